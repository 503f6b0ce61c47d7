//! Who holds a lock and is cut off, frozen or ended: it knows in time, and others go on in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_core::LockProvider;
use lock_tests::servers::{Lan, PostgresServer, Proxy, Server};
use lock_tests::{Lateness, PostgresStore, Store, boottime, eventually};
use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::support::{
    BOUND, Ended, GRANTED_WITHIN, LEASE, MARGIN, NOTICED, PATIENCE, ROUNDS, acquire, backend,
    builder, child, client, is_held, name, nanoseconds, noticed, numbered, take,
};

/// How soon the locks of a session that has ended can be had.
const FREED: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_holder_is_succeeded_in_time_and_knows_at_its_first_look() {
    let store = PostgresStore::open().await;
    let (mut holder, other) = (child(&store).await, store.client().await);
    holder.hold(&name()).await;
    let old = holder.ask("token").await;
    let old: u64 = old.strip_prefix("token ").unwrap().parse().unwrap();
    let lateness = Lateness::of(GRANTED_WITHIN);
    holder.freeze().await;
    let guard = acquire(&other, name(), PATIENCE).await;
    lateness.at_most(Duration::ZERO).await;
    assert!(guard.fencing_token().await.unwrap().get() > old);
    holder.thaw().await;
    assert_eq!(holder.ask("valid").await, "valid false");
    assert_eq!(holder.ask("token").await, "error lost");
    assert_eq!(holder.ask("release").await, "error lost");
    assert!(
        guard.is_valid(),
        "what the old holder does is nothing to the new"
    );
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_of_a_killed_holder_is_granted_within_half_a_second() {
    let store = PostgresStore::open().await;
    let (mut holder, other) = (child(&store).await, store.client().await);
    holder.hold(&name()).await;
    let lock = other.lock(name()).unwrap();
    let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    eventually("the other waits", || async {
        store.advisory_locks().await == 4
    })
    .await;
    let lateness = Lateness::of(FREED);
    holder.kill().await;
    drop(waiter.await.unwrap().unwrap());
    lateness.at_most(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_behind_a_dead_network_knows_before_another_is_granted() {
    let lan = Lan::new().await;
    let server = PostgresServer::options().inside(lan.right()).start().await;
    let (near, far) = (server.url(), server.url());
    let holder = lan.left().run(async move { client(&far).await }).await;
    let other = lan.right().run(async move { client(&near).await }).await;
    let guard = Arc::new(take(&holder, name()).await);
    let old = guard.fencing_token().await.unwrap();
    let lock = other.lock(name()).unwrap();
    let waiter = tokio::spawn(async move {
        let guard = lock.acquire(PATIENCE).await.unwrap();
        (guard, boottime())
    });

    let (at_the_deadline, granted_in_time) =
        (Lateness::of(LEASE - MARGIN), Lateness::of(GRANTED_WITHIN));
    lan.down().await;
    let down = boottime();
    let ended = Ended::of(guard).await;
    at_the_deadline.at_most(BOUND).await;
    let (next, granted) = waiter.await.unwrap();
    granted_in_time.at_most(Duration::ZERO).await;
    assert!(ended.last_valid <= down + nanoseconds(LEASE - MARGIN));
    assert!(
        ended.last_valid < granted && ended.told < granted,
        "{ended:?} {granted}"
    );
    assert!(next.fencing_token().await.unwrap() > old);

    // Cut off, it hears that there is no server, and not that the lock is held.
    let lock = holder.lock(name()).unwrap();
    let error = lock.acquire(Duration::ZERO).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    lan.up().await;
    next.release().await.unwrap();
    drop(acquire(&holder, name(), PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_connection_is_noticed_at_once_and_made_again_within_the_wait() {
    let server = PostgresServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let client = client(&proxy.url(&server.url())).await;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let guard = take(&client, name()).await;
        let token = guard.fencing_token().await.unwrap();
        let reset = Instant::now();
        proxy.reset();
        guard.lost().await;
        took.push(reset.elapsed());
        assert!(guard.release().await.unwrap_err().is_lost());
        let next = acquire(&client, name(), Duration::from_secs(5)).await;
        assert!(next.fencing_token().await.unwrap() > token);
        next.release().await.unwrap();
    }
    noticed(&took);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_costs_the_lock_and_nobody_waits_longer_than_allowed() {
    const ANSWERS: Duration = Duration::from_millis(300);
    let server = PostgresServer::start().await;
    let url = server.url();
    let holder = client(&url).await;
    let other = LockProvider::with_response_timeout(backend(&url).await, ANSWERS);
    let guard = Arc::new(take(&holder, name()).await);
    // One who waits already, one who begins to wait, and one who only tries.
    let (early, wait) = (other.lock(name()).unwrap(), Duration::from_millis(1_200));
    let (earliest, early_bound) = (Lateness::of(wait), Lateness::of(wait + ANSWERS));
    let early = tokio::spawn(async move {
        let error = early.acquire(wait).await.unwrap_err();
        earliest.check(ANSWERS + BOUND).await;
        early_bound.at_most(BOUND).await;
        error
    });
    eventually("it waits", || async { registrations(&server).await == 1 }).await;
    let at_the_deadline = Lateness::of(LEASE - MARGIN);
    let frozen = boottime();
    server.freeze().await;
    for wait in [Duration::ZERO, Duration::from_millis(200)] {
        for number in [1, 2] {
            let late = Lateness::of(wait + ANSWERS);
            let error = other.lock(numbered(number)).unwrap().acquire(wait).await;
            late.at_most(BOUND).await;
            let error = error.unwrap_err();
            assert!(error.is_unavailable(), "{error}");
        }
    }
    let error = early.await.unwrap();
    assert!(error.is_unavailable(), "{error}");
    let ended = Ended::of(guard).await;
    at_the_deadline.at_most(BOUND).await;
    assert!(ended.last_valid <= frozen + nanoseconds(LEASE - MARGIN) + nanoseconds(BOUND));
    server.thaw().await;
    acquire(&holder, name(), PATIENCE)
        .await
        .release()
        .await
        .unwrap();
    acquire(&other, name(), PATIENCE)
        .await
        .release()
        .await
        .unwrap();
}

/// How many names are registered as waited for.
async fn registrations(server: &PostgresServer) -> i64 {
    let pool = server.pool().await;
    let shared = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) - count(DISTINCT pid) FROM pg_locks \
         WHERE locktype = 'advisory' AND mode = 'ShareLock'",
    );
    shared.fetch_one(&pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_costs_the_lock_at_once_and_waits_outlast_its_restart() {
    let server = PostgresServer::start().await;
    let client = client(&server.url()).await;
    let guard = take(&client, name()).await;
    let token = guard.fencing_token().await.unwrap();
    let lost = tokio::spawn(guard.lost());
    server.kill().await;
    let lateness = Lateness::of(NOTICED);
    lost.await.unwrap();
    lateness.at_most(Duration::ZERO).await;
    let error = client.lock(numbered(1)).unwrap();
    let error = error.acquire(Duration::ZERO).await;
    let error = error.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    let lock = client.lock(name()).unwrap();
    let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    server.restart().await;
    let next = waiter.await.unwrap().unwrap();
    assert!(next.fencing_token().await.unwrap() > token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_that_is_dropped_anywhere_leaves_nothing_behind() {
    let store = PostgresStore::open().await;
    let proxy = Proxy::to(store.server.address()).await;
    let slow = client(&proxy.url(&store.server.url())).await;
    let other = store.client().await;
    proxy.delay(Duration::from_millis(5));
    for held in [false, true] {
        for after in 0..30 {
            let holder = match held {
                true => Some(take(&other, numbered(after)).await),
                false => None,
            };
            let lock = slow.lock(numbered(after)).unwrap();
            let task = tokio::spawn(async move { lock.acquire(PATIENCE).await });
            tokio::time::sleep(Duration::from_millis(after as u64)).await;
            task.abort();
            // A grant that was ready is dropped with the task.
            let _ = task.await;
            drop(holder);
        }
    }
    proxy.heal().await;
    eventually(
        "nothing is left but the markers of two sessions",
        || async { store.advisory_locks().await == 2 },
    )
    .await;
    for number in 0..30 {
        drop(take(&other, numbered(number)).await);
    }
    // The session that it was done to goes on.
    assert_eq!(store.sessions().await, 2);
    acquire(&slow, name(), PATIENCE)
        .await
        .release()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_session_loses_all_its_locks_at_once_and_is_made_again() {
    let store = PostgresStore::open().await;
    let (holder, other) = (store.client().await, store.client().await);
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let guard = acquire(&holder, name(), PATIENCE).await;
        let second = acquire(&holder, numbered(1), PATIENCE).await;
        let token = guard.fencing_token().await.unwrap();
        let lock = other.lock(name()).unwrap();
        let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
        eventually("the other waits", || async {
            store.advisory_locks().await == 5
        })
        .await;
        let freed = Lateness::of(FREED);
        store.lose(&name()).await;
        let ended = Instant::now();
        guard.lost().await;
        second.lost().await;
        took.push(ended.elapsed());
        let next = waiter.await.unwrap().unwrap();
        freed.at_most(Duration::ZERO).await;
        assert!(next.fencing_token().await.unwrap() > token);
        for lost in [guard, second] {
            assert!(lost.fencing_token().await.unwrap_err().is_lost());
            assert!(lost.release().await.unwrap_err().is_lost());
        }
        drop(acquire(&holder, numbered(1), Duration::from_secs(5)).await);
        assert!(is_held(&holder, name()).await);
        next.release().await.unwrap();
    }
    noticed(&took);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_ends_the_session_that_it_left() {
    let server = PostgresServer::start().await;
    let network = HalfOpen::to(server.address()).await;
    let url = server.url();
    let url = url.replacen(
        &server.address().to_string(),
        &network.address.to_string(),
        1,
    );
    // Long enough that a lease which ends by itself is told from one that was ended.
    let long = lock_core::postgres::PostgresBackend::builder(url).lease(Duration::from_secs(60));
    let holder = LockProvider::new(long.connect().await.unwrap());
    let other = LockProvider::new(builder(&server).connect().await.unwrap());
    let guard = take(&holder, name()).await;
    network.reset_clients();
    guard.lost().await;
    drop(acquire(&other, name(), Duration::from_secs(5)).await);
    drop(acquire(&holder, name(), Duration::from_secs(5)).await);
}

/// A network in which a client can lose its connection while the server keeps it.
struct HalfOpen {
    address: std::net::SocketAddr,
    resets: watch::Sender<u32>,
    _connections: JoinSet<()>,
}

impl HalfOpen {
    async fn to(target: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let resets = watch::Sender::new(0);
        let mut running = JoinSet::new();
        let reset = resets.clone();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut reset = reset.subscribe();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    let (mut from_server, mut to_server) = server.split();
                    let (mut from_client, mut to_client) = client.split();
                    tokio::select! {
                        _ = reset.changed() => {}
                        _ = async { tokio::join!(
                            copy(&mut from_client, &mut to_server),
                            copy(&mut from_server, &mut to_client),
                        ) } => {}
                    }
                    drop(client);
                    // The server hears nothing of that.
                    std::future::pending::<()>().await;
                });
            }
        });
        Self {
            address,
            resets,
            _connections: running,
        }
    }

    fn reset_clients(&self) {
        self.resets.send_modify(|resets| *resets += 1);
    }
}
