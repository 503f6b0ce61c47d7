//! Readers in a cluster, and behind Sentinels.

use std::sync::Arc;
use std::time::Duration;

use lock_core::backend::Grant;
use lock_core::redis::RedisBackend;
use lock_tests::servers::{RedisCluster, RedisSentinels};
use tokio::time::{sleep, timeout};

use super::{FOR_EVER, backend, is_refused, key, reads, take, wait_for, writes};
use crate::support::{LEASE, PATIENCE};

#[tokio::test]
async fn in_a_cluster_readers_and_writers_wake_each_other() {
    let cluster = RedisCluster::patient().await;
    let url = &cluster.urls()[0];
    let one = Arc::new(backend(url, FOR_EVER).await);
    let two = Arc::new(backend(url, FOR_EVER).await);
    let (first, second) = (take(&one, &reads()).await, take(&two, &reads()).await);
    let writer = tokio::spawn({
        let two = Arc::clone(&two);
        async move { wait_for(&two, &writes()).await }
    });
    sleep(LEASE / 4).await;
    first.release().await.unwrap();
    assert!(!writer.is_finished());
    second.release().await.unwrap();
    let writer = timeout(PATIENCE, writer).await.expect("it is woken");
    let reader = tokio::spawn(async move { wait_for(&one, &reads()).await });
    sleep(LEASE / 4).await;
    writer.unwrap().release().await.unwrap();
    let reader = timeout(PATIENCE, reader).await.expect("it is woken");
    drop(reader.unwrap());
}

#[tokio::test]
async fn readers_hold_while_the_slot_of_their_lock_is_moved() {
    let cluster = RedisCluster::patient().await;
    let url = &cluster.urls()[0];
    let (one, two) = (backend(url, LEASE).await, backend(url, LEASE).await);
    let (first, second) = (take(&one, &reads()).await, take(&two, &reads()).await);
    let master = cluster.master_of(&key()).await.port();
    let to = cluster.nodes().iter().find(|node| node.port() != master);
    cluster
        .move_slot(&key(), to.unwrap(), async {
            // While some of its keys are here and some there.
            assert!(first.lease().is_valid() && second.lease().is_valid());
        })
        .await;
    sleep(LEASE).await;
    assert!(first.lease().is_valid() && second.lease().is_valid());
    assert!(is_refused(&one, &writes()).await);
    first.release().await.unwrap();
    second.release().await.unwrap();
    let writer = timeout(PATIENCE, wait_for(&two, &writes())).await;
    drop(writer.unwrap());
}

#[tokio::test]
async fn readers_that_the_next_master_knows_go_on_after_a_fail_over() {
    let set = RedisSentinels::start().await;
    let lease = Duration::from_secs(6);
    let careful = async || {
        let backend = RedisBackend::builder(&set.url()).lease(lease);
        backend.connect().await.unwrap()
    };
    let (one, two) = (careful().await, careful().await);
    let (first, second) = (wait_for(&one, &reads()).await, take(&two, &reads()).await);
    set.until_replicated().await;
    let former = set.master().await;
    set.fail_over().await;
    set.until_replaced(former).await;
    sleep(lease).await;
    assert!(first.lease().is_valid() && second.lease().is_valid());
    assert!(is_refused(&one, &writes()).await);
    first.release().await.unwrap();
    second.release().await.unwrap();
    drop(wait_for(&two, &writes()).await);
}
