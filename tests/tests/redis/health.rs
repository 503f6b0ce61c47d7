//! What a look at the health of a server says, against what an acquire would meet.

use std::time::Duration;

use lock_core::LockProvider;
use lock_core::redis::RedisBackend;
use lock_tests::eventually;
use lock_tests::servers::{RedisCluster, RedisServer, Server};

use crate::support::{LEASE, client, take, try_once};

async fn is_up(client: &LockProvider) -> bool {
    let health = client.health().await;
    let said = health.error().map(ToString::to_string);
    assert_eq!(health.is_up(), said.is_none());
    said.is_none()
}

/// Returns when the server has closed the connection for commands; the other one is never idle.
async fn until_closed(server: &RedisServer) {
    eventually("the idle connection is closed", async || {
        let clients: String = server.ask(&["CLIENT", "LIST"]).await.unwrap();
        !clients.contains("cmd=evalsha")
    })
    .await;
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_is_well_at_every_look() {
    let server = RedisServer::with(&[("timeout", "1")]).await;
    let here = client(&server.url()).await;
    for _ in 0..3 {
        assert!(is_up(&here).await);
        until_closed(&server).await;
    }
    assert!(is_up(&here).await);
}

#[tokio::test]
async fn the_first_look_after_a_restart_is_right() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    for _ in 0..3 {
        assert!(is_up(&here).await);
        server.restart().await;
    }
    assert!(is_up(&here).await);
    server.kill().await;
    assert!(!is_up(&here).await && !is_up(&here).await);
    server.restart().await;
    assert!(is_up(&here).await);
}

#[tokio::test]
async fn the_first_look_after_connections_to_all_nodes_were_cut_is_right() {
    let cluster = RedisCluster::patient().await;
    let here = client(&cluster.urls()[0]).await;
    for _ in 0..3 {
        assert!(is_up(&here).await);
        for node in cluster.nodes() {
            let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
            let _: u32 = node.ask(&kill).await.unwrap();
        }
    }
    assert!(is_up(&here).await);
}

#[tokio::test]
async fn a_server_without_the_replicas_that_locks_need_is_not_well() {
    let server = RedisServer::start().await;
    let replica = server.replica().await;
    let backend = RedisBackend::builder(&server.url())
        .lease(LEASE)
        .quarantine(Duration::ZERO)
        .replicas(1);
    let here = LockProvider::new(backend.connect().await.unwrap());
    assert!(is_up(&here).await);
    replica.freeze().await;
    let error = try_once(&here).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    let health = here.health().await;
    let said = health.error().unwrap().to_string();
    assert!(said.contains("replicas"), "{said}");
    replica.thaw().await;
    eventually("it is well", async || is_up(&here).await).await;
    take(&here).await.release().await.unwrap();
}
