//! The service of the README under probes: who is asked, what is answered, how soon.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lock_tests::orders::{Instance, Shop};
use lock_tests::servers::{PostgresServer, RedisServer, Server};
use lock_tests::{Lateness, eventually};
use serde_json::Value;

/// By when a readiness probe says what is so.
const WITHIN: Duration = Duration::from_secs(5);

/// Returns when the probe is answered so.
async fn until_ready_is(instance: &Instance, status: u16) {
    let late = Lateness::of(WITHIN);
    eventually("the probe is answered so", || async {
        instance.get("/health/ready").await.status == status
    })
    .await;
    late.at_most(Duration::ZERO).await;
}

/// Name, role and status of each server.
async fn servers(instance: &Instance) -> Vec<[String; 3]> {
    let answer = instance.get("/health").await;
    assert_eq!(answer.content_type.as_deref(), Some("application/json"));
    assert!(!answer.body.contains("127.0.0.1") && !answer.body.contains("hunter2"));
    let health: Value = serde_json::from_str(&answer.body).unwrap();
    let servers = health["servers"].as_array().unwrap().iter();
    servers
        .map(|server| {
            assert!(
                server["latency_ms"].as_f64().unwrap() < 3_000.0,
                "{health:#}"
            );
            ["name", "role", "status"].map(|member| server[member].as_str().unwrap().to_owned())
        })
        .collect()
}

async fn freezes_and_comes_back(instance: &Instance, server: &impl Server) {
    until_ready_is(instance, 200).await;
    server.freeze().await;
    until_ready_is(instance, 503).await;
    // Restarting the process would not help.
    assert_eq!(instance.get("/health/live").await.status, 200);
    // Longer than any one look at the server takes.
    tokio::time::sleep(Duration::from_secs(6)).await;
    server.thaw().await;
    until_ready_is(instance, 200).await;
}

#[tokio::test]
async fn a_frozen_database_is_503_within_5_s_and_200_within_5_s_of_its_return() {
    let (shop, server) = (Shop::new(), PostgresServer::start().await);
    let pool = server.pool().await;
    let grant = sqlx::query("GRANT CREATE ON SCHEMA public TO secretive");
    grant.execute(&pool).await.unwrap();
    pool.close().await;
    let url = server.url_for("secretive:secret", "postgres");
    let environment = [("DATABASE_URL", &*url), ("REDIS_URL", "")];
    let instance = shop.open_with(&environment).await;
    assert_eq!(
        servers(&instance).await,
        [["postgres", "locks", "up"].map(str::to_owned)]
    );
    freezes_and_comes_back(&instance, &server).await;
    // Longer than the lease of the session: it comes back with another one.
    server.freeze().await;
    tokio::time::sleep(Duration::from_secs(35)).await;
    until_ready_is(&instance, 503).await;
    server.thaw().await;
    until_ready_is(&instance, 200).await;
}

#[tokio::test]
async fn a_frozen_redis_is_503_within_5_s_and_200_within_5_s_of_its_return() {
    let server = RedisServer::with(&[("requirepass", "hunter2")]).await;
    let options = format!("{},password=hunter2", server.address());
    let instance = Shop::new().open_with(&[("REDIS_URL", &options)]).await;
    assert_eq!(
        servers(&instance).await,
        [["redis", "locks", "up"].map(str::to_owned)]
    );
    freezes_and_comes_back(&instance, &server).await;
}

#[tokio::test]
async fn a_database_beside_redis_is_told_about_and_fails_nothing() {
    let (database, redis) = tokio::join!(PostgresServer::start(), RedisServer::start());
    let environment = [
        ("DATABASE_URL", &*database.url()),
        ("REDIS_URL", &*redis.url()),
    ];
    let instance = Shop::new().open_with(&environment).await;
    let state = |database: &str| {
        [["redis", "locks", "up"], ["postgres", "reported", database]]
            .map(|server| server.map(str::to_owned))
    };
    assert_eq!(servers(&instance).await, state("up"));
    database.kill().await;
    let health = eventually("it is told", || async {
        servers(&instance).await == state("down")
    });
    health.await;
    let answer = instance.get("/health").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains(r#""status":"degraded""#), "{answer:?}");
    assert_eq!(instance.get("/health/ready").await.status, 200);
    let line = instance.until_printed("a server is down").await;
    assert!(line.contains("WARN") && line.contains("postgres"), "{line}");
    database.restart().await;
    eventually("it is back", || async {
        servers(&instance).await == state("up")
    })
    .await;
    let _ = instance.until_printed("a server is up again").await;
}

/// What Kubernetes gives a probe by default.
const TIMEOUT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn no_readiness_probe_waits_for_a_frozen_server_that_is_reported() {
    let (database, redis) = tokio::join!(PostgresServer::start(), RedisServer::start());
    let environment = [
        ("DATABASE_URL", &*database.url()),
        ("REDIS_URL", &*redis.url()),
    ];
    let instance = Shop::new().open_with(&environment).await;
    until_ready_is(&instance, 200).await;
    database.freeze().await;
    for _ in 0..5 {
        let late = Lateness::of(TIMEOUT);
        assert_eq!(instance.get("/health/ready").await.status, 200);
        late.at_most(Duration::ZERO).await;
        tokio::time::sleep(TIMEOUT).await;
    }
    // It is reported there as well.
    eventually("it is told", || async {
        let answer = instance.get("/health/ready").await;
        answer.status == 200 && answer.body.contains(r#""status":"degraded""#)
    })
    .await;
    database.thaw().await;
}

#[tokio::test]
async fn a_crowd_of_probes_is_one_statement_and_none_takes_a_lock() {
    let server = PostgresServer::with(&[("log_statement", "all")]).await;
    let environment = [("DATABASE_URL", &*server.url())];
    let instance = Shop::new().open_with(&environment).await;
    let beats = || {
        let log = server.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("distributed_lock "));
        lines
            .filter(|line| {
                line.contains(
                    "pg_is_in_recovery() WHERE pg_catalog.current_setting('distributed_lock.session'",
                )
            })
            .count()
    };
    assert_eq!(instance.get("/health").await.status, 200);
    let before = beats();
    assert!(before >= 1, "the log shows them");
    let crowd = (0..300).map(|number| {
        instance.get(if number % 2 == 0 {
            "/health"
        } else {
            "/health/ready"
        })
    });
    let started = Instant::now();
    for answer in join_all(crowd).await {
        assert_eq!(answer.status, 200);
    }
    // One a second, and one that was due when they came.
    let allowed = usize::try_from(started.elapsed().as_secs()).unwrap() + 2;
    assert!(beats() - before <= allowed, "{}", beats() - before);
}
