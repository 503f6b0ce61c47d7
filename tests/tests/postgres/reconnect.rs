//! What it takes to be back: after a loss, without descriptors, over a network that gives no rest.

use std::time::Duration;

use lock_core::LockProvider;
use lock_core::postgres::PostgresBackend;
use lock_tests::servers::{PostgresServer, Proxy};
use lock_tests::{PostgresStore, Store, eventually};
use sqlx::Executor;
use tokio::time::sleep;

use crate::network::Network;
use crate::support::{HeldUp, LEASE, PATIENCE, acquire, builder, child, client, order, take};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_ends_the_session_that_it_left() {
    let server = PostgresServer::start().await;
    let network = Network::half_open(&server).await;
    // Long enough that a lease which ends by itself is told from one that was ended.
    let url = network.url(&server.url());
    let long = PostgresBackend::builder(url).lease(Duration::from_secs(60));
    let holder = LockProvider::new(long.connect().await.unwrap());
    let other = LockProvider::new(builder(&server).connect().await.unwrap());
    let guard = take(&holder, order()).await;
    network.lose();
    guard.lost().await;
    drop(acquire(&other, order(), Duration::from_secs(5)).await);
    drop(acquire(&holder, order(), Duration::from_secs(5)).await);
}

/// Each pause is as long as the one before, and longer; without them this takes milliseconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_never_lasts_is_made_anew_after_growing_pauses() {
    const SHORTEST: Duration = Duration::from_millis(10);
    let server = PostgresServer::start().await;
    let network = Network::without_rest(&server).await;
    let client = client(&network.url(&server.url())).await;
    network.lose();
    // After the first, which can have lasted, there need be no pause.
    let losses = network.losses(9).await;
    for (round, pair) in losses[1..].windows(2).enumerate() {
        let pause = pair[1] - pair[0];
        assert!(pause >= SHORTEST * (1 << round), "round {round}: {pause:?}");
    }
    let lock = client.lock(order()).unwrap();
    match lock.acquire(Duration::from_millis(50)).await {
        // The session lived long enough for that, and no longer.
        Ok(guard) => drop(guard.lost().await),
        Err(error) => assert!(error.is_unavailable(), "{error:?}"),
    }
}

/// Whatever it is that cannot be opened: the runtime of a session, its socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_descriptors_is_refused_and_recovers() {
    let store = PostgresStore::open().await;
    let mut process = child(&store).await;
    let ask = format!("acquire {} 0", order());
    let wait = format!("acquire {} 30000", order());
    for files in 3..16 {
        assert_eq!(process.ask(&format!("files {files}")).await, "limited");
        store.terminate(None).await;
        let answer = process.ask(&ask).await;
        match answer.as_str() {
            "error unavailable" => {}
            // With the descriptors of the session that was lost it has enough.
            "granted" => {
                assert!(files > 8, "{files}");
                process.release().await;
            }
            _ => panic!("{answer} with {files} descriptors"),
        }
        assert_eq!(process.ask("files 256").await, "limited");
        assert_eq!(process.ask(&wait).await, "granted");
        process.release().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_that_somebody_else_holds_up_are_told_at_connect() {
    let server = PostgresServer::start().await;
    let held_up = HeldUp::on(&server).await;
    let error = PostgresBackend::connect(&server.url()).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    let told = error.to_string();
    assert!(told.contains("takes no notifications now"), "{told}");
    held_up.end().await;
    PostgresBackend::connect(&server.url()).await.unwrap();
}

/// By an administrator, as the shortest of timeouts would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_is_cancelled_at_connect_is_told_with_its_causes() {
    let server = PostgresServer::start().await;
    let (held_up, url) = (HeldUp::on(&server).await, server.url());
    let pool = server.pool().await;
    let cancelling = async {
        let cancel =
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        loop {
            pool.execute(cancel).await.unwrap();
            sleep(Duration::from_millis(5)).await;
        }
    };
    let error = tokio::select! {
        connected = PostgresBackend::connect(&url) => connected.unwrap_err(),
        () = cancelling => unreachable!(),
    };
    assert!(error.is_unavailable(), "{error:?}");
    let told = error.to_string();
    assert!(
        told.contains("ALTER ROLE app SET statement_timeout"),
        "{told}"
    );
    held_up.end().await;
}

/// A wait outlasts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_that_somebody_else_holds_up_delay_who_comes_back() {
    let server = PostgresServer::start().await;
    let client = client(&server.url()).await;
    let guard = take(&client, order()).await;
    let held_up = HeldUp::on(&server).await;
    assert!(server.terminate_backends("distributed_lock").await >= 1);
    guard.lost().await;
    assert!(guard.release().await.unwrap_err().is_lost());
    let lock = client.lock(order()).unwrap();
    let error = lock.acquire(Duration::ZERO).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    held_up.end().await;
    drop(waiter.await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_slow_link_a_session_with_a_short_lease_does_not_begin_lost() {
    let server = PostgresServer::start().await;
    let link = Proxy::to(server.address()).await;
    // Connecting takes thirteen round trips of twice this length, which is longer than the lease.
    link.delay(Duration::from_millis(100));
    let backend = PostgresBackend::builder(link.url(&server.url())).lease(LEASE);
    let locks = LockProvider::new(backend.connect().await.unwrap());
    let guard = locks
        .lock(order())
        .unwrap()
        .acquire(Duration::ZERO)
        .await
        .unwrap();
    assert!(guard.is_valid());
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_that_holds_the_key_of_the_lease_alone_is_told_of_at_connect() {
    let server = PostgresServer::start().await;
    let first = client(&server.url()).await;
    let pool = server.pool().await;
    // Of what a session holds shared, the key that is one number.
    let key = "SELECT (classid::int8 << 32) | objid::int8 FROM pg_locks WHERE locktype = 'advisory' \
         AND mode = 'ShareLock' AND objsubid = 1";
    let key: i64 = sqlx::query_scalar(key).fetch_one(&pool).await.unwrap();
    drop(first);
    let mut neighbour = pool.acquire().await.unwrap();
    eventually("the session is gone", async || {
        let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        sqlx::query_scalar::<_, i64>(held)
            .fetch_one(&pool)
            .await
            .unwrap()
            == 0
    })
    .await;
    let taken = sqlx::query_scalar::<_, bool>("SELECT pg_try_advisory_lock($1)").bind(key);
    assert!(taken.fetch_one(&mut *neighbour).await.unwrap());
    let error = PostgresBackend::builder(server.url())
        .lease(LEASE)
        .connect()
        .await;
    let error = error.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(
        error.to_string().contains("the key of our lease"),
        "{error}"
    );
}
