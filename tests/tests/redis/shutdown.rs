//! What a shutdown leaves behind: nothing.

use std::time::Duration;

use lock_tests::servers::{RedisServer, Server};
use lock_tests::{Lateness, eventually};

use crate::support::{RESPONSE_TIMEOUT, client, is_held, take};

/// All but that of the one who looks.
async fn connections(server: &RedisServer) -> usize {
    let list: String = server.ask(&["CLIENT", "LIST"]).await.unwrap();
    list.lines()
        .filter(|line| !line.contains(" cmd=client|list "))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_knows_of_no_connection_when_a_shutdown_returns() {
    let server = RedisServer::start().await;
    for kept in [false, true] {
        let (here, there) = (client(&server.url()).await, client(&server.url()).await);
        let guard = take(&here).await;
        // Which subscribes.
        let lock = there.lock(guard.name().clone()).unwrap();
        let waited = lock.try_acquire(Duration::from_millis(100)).await;
        assert!(waited.unwrap().is_none());
        let guard = kept.then_some(guard);
        there.shutdown(Duration::ZERO).await;
        here.shutdown(Duration::from_millis(50)).await;
        assert_eq!(connections(&server).await, 0);
        assert!(guard.is_none_or(|guard| !guard.is_valid()));
        let next = client(&server.url()).await;
        assert!(!is_held(&next).await, "it was released before");
        next.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_beside_a_server_that_is_frozen_or_gone_ends_and_leaves_no_connection() {
    let server = RedisServer::start().await;
    for is_frozen in [true, false] {
        let here = client(&server.url()).await;
        let guard = take(&here).await;
        if is_frozen {
            server.freeze().await;
        } else {
            server.stop().await;
        }
        let late = Lateness::of(2 * RESPONSE_TIMEOUT);
        here.shutdown(Duration::from_millis(50)).await;
        late.at_most(Duration::from_secs(1)).await;
        assert!(!guard.is_valid());
        if is_frozen {
            server.thaw().await;
        } else {
            server.restart().await;
        }
        eventually("nothing is connected", async || {
            connections(&server).await == 0
        })
        .await;
    }
}
