//! A server far away: each exchange with it takes a third of a second.

use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_core::{LockProvider, LockSettings, ProviderKind};
use lock_tests::servers::{Direction, PgBouncer, PostgresServer, Proxy};
use sqlx::{Connection, PgConnection};
use tempfile::tempdir;
use tokio::time::{sleep, timeout};

use crate::support::{self, PATIENCE, acquire, order, take};

/// Half of a round trip.
const ONE_WAY: Duration = Duration::from_millis(150);

/// Longer than that of the other tests, of which round trips would leave a busy machine little.
const LEASE: Duration = support::LEASE.saturating_mul(2);

async fn client(url: &str) -> LockProvider {
    let builder = PostgresBackend::builder(url).lease(LEASE);
    LockProvider::new(builder.connect().await.unwrap())
}

/// A server, and the way to it.
async fn far(server: &PostgresServer) -> Proxy {
    let link = Proxy::to(server.address()).await;
    link.delay(ONE_WAY);
    link
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_work_over_a_round_trip_of_300_ms() {
    let server = PostgresServer::start().await;
    let link = far(&server).await;
    let url = link.url(&server.url());
    let (holder, waiter) = tokio::join!(client(&url), client(&url));
    let guard = acquire(&holder, order(), PATIENCE).await;
    // Longer than two heartbeats, and than the lease.
    sleep(LEASE * 3 / 2).await;
    assert!(guard.is_valid());
    let lock = waiter.lock(order()).unwrap();
    let contended = lock.try_acquire(Duration::ZERO).await.unwrap();
    assert!(contended.is_none());
    let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    sleep(LEASE).await;
    guard.release().await.unwrap();
    let guard = waiting.await.unwrap().unwrap();
    assert!(guard.fencing_token().await.unwrap().get() > 0);
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_comes_back_over_a_round_trip_of_300_ms() {
    let server = PostgresServer::start().await;
    let link = far(&server).await;
    let client = client(&link.url(&server.url())).await;
    let guard = take(&client, order()).await;
    link.reset();
    guard.lost().await;
    drop(acquire(&client, order(), PATIENCE).await);
}

/// TLS, a password that is proved in three exchanges, and the mark of the provider.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_connecting_can_need_fits_over_a_round_trip_of_300_ms() {
    let server = PostgresServer::options().tls().start().await;
    let link = far(&server).await;
    let url = link.url(&server.url_for("secretive:secret", "postgres"));
    let in_postgres = LockProvider::connect(LockSettings::new().database_url(&url)).await;
    drop(in_postgres.unwrap());
    let dir = tempdir().unwrap();
    let in_files = LockSettings::new()
        .database_url(&url)
        .provider(ProviderKind::File)
        .dir(dir.path().join("locks"));
    // Until the mark of the other has gone with its session.
    timeout(PATIENCE, async {
        while let Err(error) = LockProvider::connect(in_files.clone()).await {
            let said = error.to_string();
            assert!(said.contains("held by `postgres`"), "{said}");
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_takes_few_round_trips() {
    let server = PostgresServer::start().await;
    let link = Proxy::to(server.address()).await;
    let url = link.url(&server.url());
    let _connected = PostgresBackend::connect(&url).await.unwrap();
    // Two connections of two each, nine for what is asked and set.
    assert!(link.asked() <= 13, "{}", link.asked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_not_answered_is_named_with_its_bound() {
    let server = PostgresServer::start().await;
    let link = Proxy::to(server.address()).await;
    link.hold(Direction::ToClient);
    let error = PostgresBackend::connect(&link.url(&server.url())).await;
    let error = error.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("within 5s"), "{said}");
    assert!(said.contains("logged in"), "{said}");

    // A first and a second connection that wait for a session of the pool.
    for others in [1, 0] {
        let settings = [("pool_mode", "session"), ("default_pool_size", "1")];
        let bouncer = PgBouncer::with(&server, &settings).await;
        let mut open = Vec::new();
        for _ in 0..others {
            open.push(PgConnection::connect(&bouncer.url()).await.unwrap());
        }
        for other in &mut open {
            other.ping().await.unwrap();
        }
        let error = PostgresBackend::connect(&bouncer.url()).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("within 5s"), "{said}");
        assert!(said.contains("`default_pool_size`"), "{said}");
    }
}
