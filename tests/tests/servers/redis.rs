//! Redis, its replicas and clusters.

use lock_tests::servers::{RedisCluster, RedisServer, Server};
use redis::AsyncConnectionConfig;
use tokio::time::timeout;

use crate::support::{A_WHILE, PATIENCE};

async fn set_in_redis(server: &RedisServer, name: &str, value: &str) -> redis::RedisResult<()> {
    server.ask(&["SET", name, value]).await
}

async fn in_redis(server: &RedisServer, name: &str) -> Option<String> {
    server.ask(&["GET", name]).await.unwrap()
}

/// A command that gives its own connection one way only.
async fn ping(url: &str) -> redis::RedisResult<String> {
    let client = redis::Client::open(url)?;
    // The driver's own bounds are those of a machine that is not busy.
    let patient = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let connection = client.get_multiplexed_async_connection_with_config(&patient);
    let mut connection = connection.await?;
    redis::cmd("PING").query_async(&mut connection).await
}

#[tokio::test]
async fn a_redis_server_keeps_what_it_is_told_to_and_nothing_else() {
    let forgetful = RedisServer::start().await;
    let careful = RedisServer::with(&[("appendonly", "yes"), ("appendfsync", "always")]).await;
    for (server, kept) in [(&forgetful, None), (&careful, Some("1"))] {
        ping(&server.url()).await.unwrap();
        set_in_redis(server, "name", "1").await.unwrap();
        server.kill().await;
        assert!(server.processes().is_empty());
        ping(&server.url()).await.unwrap_err();
        server.restart().await;
        ping(&server.url()).await.unwrap();
        assert_eq!(in_redis(server, "name").await.as_deref(), kept);
    }
    let directory = forgetful.daemon().directory().to_owned();
    drop(forgetful);
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_frozen_redis_server_answers_when_it_is_thawed() {
    let server = RedisServer::start().await;
    server.freeze().await;
    let url = server.url();
    let mut answer = Box::pin(server.ask::<String>(&["PING"]));
    assert!(timeout(A_WHILE, &mut answer).await.is_err());
    assert!(timeout(A_WHILE, ping(&url)).await.is_err());
    server.thaw().await;
    ping(&url).await.unwrap();
}

#[tokio::test]
async fn a_redis_server_with_a_password_needs_it() {
    let server = RedisServer::with(&[("requirepass", "secret")]).await;
    assert!(
        ping(&server.url())
            .await
            .unwrap_err()
            .to_string()
            .contains("NOAUTH")
    );
    ping(&server.url_for(":secret")).await.unwrap();
}

#[tokio::test]
async fn a_promoted_replica_has_the_data_and_takes_writes() {
    let master = RedisServer::with(&[("requirepass", "secret")]).await;
    set_in_redis(&master, "name", "1").await.unwrap();
    let replica = master.replica().await;
    assert_eq!(in_redis(&replica, "name").await.as_deref(), Some("1"));
    let refused = set_in_redis(&replica, "name", "2").await.unwrap_err();
    assert_eq!(refused.code(), Some("READONLY"));
    master.kill().await;
    replica.promote().await;
    set_in_redis(&replica, "name", "3").await.unwrap();
    replica.restart().await;
    set_in_redis(&replica, "name", "4").await.unwrap();
}

#[tokio::test]
async fn a_redis_server_with_tls_proves_who_it_is_and_refuses_plain_clients() {
    let server = RedisServer::tls().await;
    assert!(server.url().starts_with("rediss://"));
    let (port, authority) = (server.port().to_string(), server.authority().unwrap());
    let cli = |arguments: &[&str]| {
        let mut cli = tokio::process::Command::new("redis-cli");
        cli.args(["-h", "127.0.0.1", "-p", &port])
            .args(arguments)
            .arg("PING")
            .output()
    };
    let trusting = cli(&["--tls", "--cacert", authority.to_str().unwrap()])
        .await
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&trusting.stdout),
        "PONG\n",
        "{trusting:?}"
    );
    assert!(!cli(&["--tls"]).await.unwrap().status.success());
    ping(&server.url().replace("rediss", "redis"))
        .await
        .unwrap_err();
    server.replica().await;
}

#[tokio::test]
async fn a_cluster_serves_every_slot_from_one_of_its_members() {
    let cluster = RedisCluster::patient().await;
    let mut served = [0; 3];
    for name in 0..100 {
        let name = name.to_string();
        let mut taken = 0;
        for (node, served) in cluster.nodes().iter().zip(&mut served) {
            match set_in_redis(node, &name, "1").await {
                Ok(()) => {
                    taken += 1;
                    *served += 1;
                }
                Err(error) => assert_eq!(error.code(), Some("MOVED"), "{error}"),
            }
        }
        assert_eq!(taken, 1);
    }
    assert!(served.iter().all(|served| *served > 10), "{served:?}");
}
