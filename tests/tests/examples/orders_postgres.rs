//! The service of the README with its locks in a PostgreSQL database.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::time::{Duration, Instant};

use lock_core::postgres::PostgresBackend;
use lock_tests::eventually;
use lock_tests::orders::{Instance, PATIENCE, Shop, cases, command};
use lock_tests::servers::{PostgresServer, Server};
use rustix::process::Signal;

async fn open(shop: &Shop, server: &PostgresServer) -> Instance {
    shop.open_with(&[("DATABASE_URL", &server.url())]).await
}

#[tokio::test]
async fn two_processes_share_a_hundred_requests_for_one_order() {
    let (shop, server) = (Shop::new(), PostgresServer::start().await);
    let (here, there) = tokio::join!(open(&shop, &server), open(&shop, &server));
    let line = "Distributed locks: PostgreSQL advisory locks (using existing database)";
    for instance in [&here, &there] {
        assert!(instance.until_printed(line).await.contains("INFO"));
    }
    cases::a_hundred_requests_for_one_order_are_shared(&here, &there).await;
}

#[tokio::test]
async fn of_two_refunds_in_two_processes_one_is_refused() {
    let (shop, server) = (Shop::new(), PostgresServer::start().await);
    let (here, there) = tokio::join!(open(&shop, &server), open(&shop, &server));
    cases::of_two_refunds_one_is_refused(&here, &there).await;
}

#[tokio::test]
async fn the_order_of_a_killed_instance_goes_to_another() {
    let (shop, server) = (Shop::new(), PostgresServer::start().await);
    let (here, there) = tokio::join!(open(&shop, &server), open(&shop, &server));
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    let locks = lock_core::LockProvider::new(backend);
    let _request = here.begin_post("/orders/9/process?work_ms=60000", "").await;
    let lock = locks.lock("order:process:9").unwrap();
    let started = Instant::now();
    while let Some(guard) = lock.try_acquire(Duration::ZERO).await.unwrap() {
        guard.release().await.unwrap();
        assert!(started.elapsed() < PATIENCE, "nobody takes the lock");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    here.signal(Signal::KILL);
    let _ = there.post("/orders/9/process?work_ms=0").await.receipt();
}

#[tokio::test]
async fn a_database_that_goes_away_is_503_and_the_service_recovers() {
    let (shop, server) = (Shop::new(), PostgresServer::start().await);
    let instance = open(&shop, &server).await;
    let _ = instance.post("/orders/1/process?work_ms=0").await.receipt();
    server.kill().await;
    eventually("it is down", || async {
        instance.get("/health").await.status == 503
    })
    .await;
    let answer = instance.post("/payments/7/refund?work_ms=0").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    server.restart().await;
    // It waits for its lock, and the lock for its server.
    let _ = instance.post("/orders/1/process?work_ms=0").await.receipt();
    eventually("it is up", || async {
        instance.get("/health").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_not_there_ends_the_start_without_the_password() {
    let shop = Shop::new();
    let port = lock_tests::servers::Port::reserve();
    let url = format!("postgres://app:hunter2@127.0.0.1:{}/shop", port.number());
    let mut command = command(&shop.lock_dir(), &[("DATABASE_URL", &url)]);
    let output = command.stderr(std::process::Stdio::piped()).output();
    let output = output.await.unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        said.contains("nothing listens at this host and port"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}
