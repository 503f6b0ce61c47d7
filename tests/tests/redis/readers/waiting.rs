//! Who is woken, and in which order readers and writers come.

use std::sync::Arc;

use lock_core::backend::{Backend, Grant};
use lock_core::redis::{RedisBackend, RedisGrant};
use lock_tests::eventually;
use lock_tests::servers::RedisServer;
use tokio::task::JoinHandle;

use super::{FOR_EVER, backend, is_refused, places, reads, take, wait_for, writes};
use crate::support::PATIENCE;

async fn three(server: &RedisServer) -> [Arc<RedisBackend>; 3] {
    let one = async || Arc::new(backend(&server.url(), FOR_EVER).await);
    [one().await, one().await, one().await]
}

fn writer_waits(backend: &Arc<RedisBackend>) -> JoinHandle<RedisGrant> {
    let backend = Arc::clone(backend);
    tokio::spawn(async move { wait_for(&backend, &writes()).await })
}

fn reader_waits(backend: &Arc<RedisBackend>) -> JoinHandle<RedisGrant> {
    let backend = Arc::clone(backend);
    tokio::spawn(async move { wait_for(&backend, &reads()).await })
}

async fn has_places(server: &RedisServer, number: usize) {
    eventually("the writers have their places", async || {
        places(server).await == number
    })
    .await;
}

async fn comes(waiting: JoinHandle<RedisGrant>) -> RedisGrant {
    let granted = tokio::time::timeout(PATIENCE, waiting).await;
    granted.expect("it is woken").unwrap()
}

#[tokio::test]
async fn the_last_reader_wakes_a_writer_and_the_writer_wakes_readers() {
    let server = RedisServer::start().await;
    let [one, two, three] = three(&server).await;
    let (first, second) = (take(&one, &reads()).await, take(&one, &reads()).await);
    let writer = writer_waits(&two);
    has_places(&server, 1).await;
    let (third, fourth) = (reader_waits(&one), reader_waits(&three));
    first.release().await.unwrap();
    assert!(!writer.is_finished());
    second.release().await.unwrap();
    let writer = comes(writer).await;
    assert!(!third.is_finished() && !fourth.is_finished());
    writer.release().await.unwrap();
    let (third, fourth) = (comes(third).await, comes(fourth).await);
    assert!(third.lease().is_valid() && fourth.lease().is_valid());
    has_places(&server, 0).await;
}

#[tokio::test]
async fn a_waiting_writer_keeps_new_readers_out() {
    let server = RedisServer::start().await;
    let [one, two, three] = three(&server).await;
    let first = take(&one, &reads()).await;
    let writer = writer_waits(&two);
    has_places(&server, 1).await;
    assert!(is_refused(&one, &reads()).await && is_refused(&three, &reads()).await);
    first.release().await.unwrap();
    let writer = comes(writer).await;
    writer.release().await.unwrap();
    let next = comes(reader_waits(&three)).await;
    // No place is left behind.
    let beside = comes(reader_waits(&one)).await;
    drop((next, beside));
}

#[tokio::test]
async fn a_writer_that_only_tries_keeps_no_reader_out() {
    let server = RedisServer::start().await;
    let [one, two, _] = three(&server).await;
    let _reader = take(&one, &reads()).await;
    assert!(is_refused(&two, &writes()).await);
    drop(take(&one, &reads()).await);
    assert_eq!(places(&server).await, 0);
}

#[tokio::test]
async fn a_writer_that_waits_no_longer_lets_readers_in_and_wakes_them() {
    let server = RedisServer::start().await;
    let [one, two, three] = three(&server).await;
    let _first = take(&one, &reads()).await;
    let (writer, stays) = (writer_waits(&two), writer_waits(&three));
    has_places(&server, 2).await;
    let reader = reader_waits(&one);
    writer.abort();
    has_places(&server, 1).await;
    assert!(is_refused(&one, &reads()).await && !reader.is_finished());
    stays.abort();
    let reader = comes(reader).await;
    assert!(reader.lease().is_valid());
    has_places(&server, 0).await;
}

#[tokio::test]
async fn a_writer_that_waits_behind_a_writer_comes_before_readers_that_came_later() {
    let server = RedisServer::start().await;
    let [one, two, three] = three(&server).await;
    let first = take(&one, &writes()).await;
    let writer = writer_waits(&two);
    let channel = super::key();
    eventually("it listens", async || {
        let listens: (String, u32) = server.ask(&["PUBSUB", "NUMSUB", &channel]).await.unwrap();
        listens.1 == 1
    })
    .await;
    // No reader is there yet: its place costs nothing.
    assert_eq!(places(&server).await, 0);
    let reader = reader_waits(&three);
    has_places(&server, 1).await;
    first.release().await.unwrap();
    let writer = comes(writer).await;
    assert!(!reader.is_finished());
    writer.release().await.unwrap();
    drop(comes(reader).await);
}

#[tokio::test]
async fn readers_that_come_and_go_do_not_keep_a_writer_out() {
    let server = RedisServer::start().await;
    let [one, two, three] = three(&server).await;
    let come_and_go = |backend: Arc<RedisBackend>| {
        tokio::spawn(async move {
            loop {
                let grant = wait_for(&backend, &reads()).await;
                tokio::task::yield_now().await;
                let request = reads();
                let overlaps = wait_for(&backend, &request);
                let overlaps = tokio::time::timeout(PATIENCE / 1_000, overlaps).await;
                grant.release().await.unwrap();
                drop(overlaps);
            }
        })
    };
    let readers = [come_and_go(one.clone()), come_and_go(two.clone())];
    for _ in 0..10 {
        let writer = comes(writer_waits(&three)).await;
        assert!(is_refused(&one, &reads()).await);
        writer.release().await.unwrap();
    }
    for reader in readers {
        reader.abort();
    }
}

#[tokio::test]
async fn a_reader_and_a_writer_of_one_backend_wait_beside_each_other() {
    let server = RedisServer::start().await;
    let [one, two, _] = three(&server).await;
    for _ in 0..10 {
        let held = take(&one, &writes()).await;
        let (reader, writer) = (reader_waits(&two), writer_waits(&two));
        has_places(&server, 1).await;
        held.release().await.unwrap();
        comes(writer).await.release().await.unwrap();
        comes(reader).await.release().await.unwrap();
        has_places(&server, 0).await;
    }
    two.close().await;
}
