//! A server that takes no writes for a while: what is held lives on, and the answers say why and what ends it.

use std::fs;
use std::path::PathBuf;

use lock_tests::eventually;
use lock_tests::servers::RedisServer;
use tokio::time::{Instant, sleep};

use crate::support::{LEASE, PATIENCE, client, take, try_once};

/// From `begin` to `end`, in whose time renewals are due, the server refuses writes for this cause.
async fn is_outlasted(
    server: &RedisServer,
    begin: impl AsyncFnOnce(),
    end: impl AsyncFnOnce(),
    cause: &str,
) {
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let other = "order:process:7";
    // The longest that renewals can be missing.
    let guard = take(&here).await;
    begin().await;
    let begun = Instant::now();
    let error = there.try_acquire(other, LEASE / 20).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(error.to_string().contains(cause), "{error}");
    let health = there.health().await;
    let error = health.error().unwrap();
    assert!(error.to_string().contains(cause), "{error}");
    // That it is held is no write: whose it is does not matter here.
    assert!(!matches!(try_once(&there).await, Ok(Some(_))));
    let waiting = tokio::spawn(async move { there.acquire(other, PATIENCE).await });
    sleep((LEASE / 2).saturating_sub(begun.elapsed())).await;
    end().await;
    waiting.await.unwrap().unwrap().release().await.unwrap();
    sleep(2 * LEASE).await;
    assert!(guard.is_valid(), "{:?}", guard.name());
    guard.release().await.unwrap();
    take(&here).await.release().await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_save_says_so_and_costs_no_lock() {
    let server = RedisServer::with(&[("save", "3600 1000000")]).await;
    let directory: (String, String) = server.ask(&["CONFIG", "GET", "dir"]).await.unwrap();
    // The snapshot cannot be put there.
    let dump = PathBuf::from(directory.1).join("dump.rdb");
    let status = async |status: &str| {
        let () = server.ask(&["BGSAVE"]).await.unwrap();
        eventually("it has saved, or failed to", async || {
            let info: String = server.ask(&["INFO", "persistence"]).await.unwrap();
            info.contains("rdb_bgsave_in_progress:0") && info.contains(status)
        })
        .await;
    };
    is_outlasted(
        &server,
        async || {
            fs::create_dir(&dump).unwrap();
            status("rdb_last_bgsave_status:err").await;
        },
        async || {
            fs::remove_dir(&dump).unwrap();
            status("rdb_last_bgsave_status:ok").await;
        },
        "it cannot save its data",
    )
    .await;
}

#[tokio::test]
async fn a_master_without_its_replicas_says_so_and_costs_no_lock() {
    let server = RedisServer::start().await;
    let least = async |replicas: &str| {
        let set = ["CONFIG", "SET", "min-replicas-to-write", replicas];
        server.ask::<()>(&set).await.unwrap();
    };
    is_outlasted(
        &server,
        async || least("1").await,
        async || least("0").await,
        "`min-replicas-to-write`",
    )
    .await;
}

#[tokio::test]
async fn a_server_whose_memory_is_full_says_so_and_costs_no_lock() {
    let server = RedisServer::start().await;
    let most = async |bytes: &str| {
        let set = ["CONFIG", "SET", "maxmemory", bytes];
        server.ask::<()>(&set).await.unwrap();
    };
    is_outlasted(
        &server,
        async || most("1").await,
        async || most("0").await,
        "its memory is full (`maxmemory`)",
    )
    .await;
}
