//! Refunds of the example service under an `Idempotency-Key`.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::time::Duration;

use lock_tests::orders::{Answer, Instance, Shop, cases};
use lock_tests::servers::{PostgresServer, RedisServer};
use rustix::process::Signal;
use sqlx::PgPool;

/// How many refunds of this payment the database has.
async fn refunds(pool: &PgPool, payment: &str) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM refunds WHERE payment = $1");
    count.bind(payment).fetch_one(pool).await.unwrap()
}

/// Sends a refund until it is made.
async fn insist(instance: &Instance, path: &str, key: &str) -> Answer {
    loop {
        let answer = instance.post_once(path, "ann", key).await;
        if answer.status == 200 {
            return answer;
        }
        // The server has not noticed yet that the holder died.
        let _ = answer.conflict();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_refund_with_a_key_is_made_once_over_files() {
    // Each instance has its answers in memory.
    let shop = Shop::new();
    let instance = shop.open().await;
    cases::a_refund_with_a_key_is_made_once(&instance, &instance).await;
}

#[tokio::test]
async fn a_refund_with_a_key_is_made_once_over_postgres() {
    let (shop, server) = (Shop::new(), PostgresServer::start().await);
    let (pool, url) = (server.pool().await, server.url());
    let environment = [("DATABASE_URL", url.as_str())];
    let (here, there) = tokio::join!(shop.open_with(&environment), shop.open_with(&environment));
    cases::a_refund_with_a_key_is_made_once(&here, &there).await;
    assert_eq!(
        (refunds(&pool, "7").await, refunds(&pool, "8").await),
        (4, 0)
    );
}

#[tokio::test]
async fn a_refund_with_a_key_is_made_once_over_redis() {
    let (shop, server) = (Shop::new(), RedisServer::up_for_a_day().await);
    let url = server.url();
    let environment = [("REDIS_URL", url.as_str())];
    let (here, there) = tokio::join!(shop.open_with(&environment), shop.open_with(&environment));
    cases::a_refund_with_a_key_is_made_once(&here, &there).await;
}

#[tokio::test]
async fn a_key_of_no_caller_refunds_nothing() {
    let shop = Shop::new();
    let instance = shop.open().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/payments/7/refund", instance.address());
    let request = client.post(url).header("idempotency-key", "a");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(problem["reason"], "idempotency-scope-missing");
}

#[tokio::test]
async fn a_refund_of_an_instance_that_is_killed_is_made_once() {
    let (shop, server) = (Shop::new(), PostgresServer::start().await);
    let (pool, url) = (server.pool().await, server.url());
    let environment = [("DATABASE_URL", url.as_str())];
    let survivor = shop.open_with(&environment).await;
    // Dead before, in and after the transaction.
    for (payment, after) in [("1", 20), ("2", 100), ("3", 104), ("4", 110), ("5", 300)] {
        let path = format!("/payments/{payment}/refund?work_ms=100");
        let mut victim = shop.open_with(&environment).await;
        let first = async {
            let url = format!("http://{}{path}", victim.address());
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let request = client.post(url).bearer_auth("ann");
            let request = request.header("idempotency-key", payment);
            let _ = request.send().await;
        };
        let kill = async {
            tokio::time::sleep(Duration::from_millis(after)).await;
            victim.signal(Signal::KILL);
        };
        tokio::join!(first, kill);
        let _ = victim.wait().await;
        let made = insist(&survivor, &path, payment).await.receipt();
        let again = insist(&survivor, &path, payment).await;
        assert_eq!((again.is_replay, again.receipt()), (true, made));
        assert_eq!(refunds(&pool, payment).await, 1, "killed after {after} ms");
    }
}
