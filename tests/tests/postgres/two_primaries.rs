//! An address that leads to two primaries, of which each has locks of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_tests::servers::PostgresServer;
use sqlx::{Executor, PgPool};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{PATIENCE, client, order, take};

/// What leads each connection to one of two servers. It ends with all of them when it is dropped.
struct Front {
    address: SocketAddr,
    /// The first, the second, or each in turn.
    leads: Arc<AtomicUsize>,
    _connections: JoinSet<()>,
}

const TO_FIRST: usize = 0;
const TO_SECOND: usize = 1;
const IN_TURN: usize = 2;

impl Front {
    async fn of(servers: [&PostgresServer; 2], leads: usize) -> Self {
        let servers = servers.map(PostgresServer::address);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let leads = Arc::new(AtomicUsize::new(leads));
        let lead = Arc::clone(&leads);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            let mut turn = 0;
            while let Ok((mut client, _)) = listener.accept().await {
                turn += 1;
                let to = match lead.load(Ordering::Relaxed) {
                    IN_TURN => turn % 2,
                    one => one,
                };
                let mut server = TcpStream::connect(servers[to]).await.unwrap();
                connections.spawn(async move {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self {
            address,
            leads,
            _connections: running,
        }
    }

    fn lead(&self, to: usize) {
        self.leads.store(to, Ordering::Relaxed);
    }

    fn url(&self) -> String {
        format!("postgres://app@{}/postgres", self.address)
    }
}

async fn end_sessions(pool: &PgPool) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    pool.execute(end).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_leads_to_two_servers_in_turn_is_refused_by_name() {
    let (one, two) = tokio::join!(PostgresServer::start(), PostgresServer::start());
    let front = Front::of([&one, &two], IN_TURN).await;
    let error = PostgresBackend::connect(&front.url()).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(
        error.to_string().contains("leads to several servers"),
        "{error}"
    );
}

/// Each of two servers would grant the name to one of two processes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_comes_back_elsewhere_grants_nothing_beside_the_others() {
    let (one, two) = tokio::join!(PostgresServer::start(), PostgresServer::start());
    let front = Front::of([&one, &two], TO_FIRST).await;
    let here = client(&front.url()).await;
    let there = client(&one.url()).await;
    let guard = take(&there, order()).await;
    front.lead(TO_SECOND);
    end_sessions(&one.pool().await).await;
    let lock = here.lock(order()).unwrap();
    let refused = lock.acquire(Duration::from_secs(3)).await.unwrap_err();
    assert!(guard.is_valid());
    assert!(refused.is_unavailable(), "{refused}");
    assert!(
        refused.to_string().contains("another database system"),
        "{refused}"
    );
    front.lead(IN_TURN);
    let refused = lock.acquire(Duration::from_secs(3)).await.unwrap_err();
    assert!(refused.is_unavailable(), "{refused}");
    front.lead(TO_FIRST);
    let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    guard.release().await.unwrap();
    drop(waiting.await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_has_moved_grants_once_nothing_leads_to_the_former() {
    let (one, two) = tokio::join!(PostgresServer::start(), PostgresServer::start());
    let front = Front::of([&one, &two], TO_FIRST).await;
    let here = client(&front.url()).await;
    take(&here, order()).await.release().await.unwrap();
    front.lead(TO_SECOND);
    end_sessions(&one.pool().await).await;
    let lock = here.lock(order()).unwrap();
    lock.acquire(PATIENCE)
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

/// Others have left it for the one that was promoted, and hold locks there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_never_goes_back_to_a_primary_that_was_left() {
    /// By when a system that is reached alone counts for one that the database has moved to.
    const MOVED_AFTER: Duration = Duration::from_secs(10);
    let one = PostgresServer::start().await;
    let two = one.standby().await;
    let front = Front::of([&one, &two], TO_FIRST).await;
    let here = client(&front.url()).await;
    take(&here, order()).await.release().await.unwrap();
    two.promote().await;
    front.lead(TO_SECOND);
    end_sessions(&one.pool().await).await;
    let lock = here.lock(order()).unwrap();
    let guard = lock.acquire(PATIENCE).await.unwrap();
    guard.release().await.unwrap();
    front.lead(TO_FIRST);
    end_sessions(&two.pool().await).await;
    let refused = lock.acquire(MOVED_AFTER + MOVED_AFTER / 2).await;
    let refused = refused.unwrap_err();
    assert!(refused.is_unavailable(), "{refused}");
    front.lead(TO_SECOND);
    let guard = lock.acquire(PATIENCE).await.unwrap();
    guard.release().await.unwrap();
}
