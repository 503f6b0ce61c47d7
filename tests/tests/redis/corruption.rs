//! A server, or what is between, that says what no server says: every question has an answer in time, no
//! answer is taken for that to another question, and afterwards the client serves again.

use std::time::{Duration, Instant};

use lock_core::{LockErrorKind, LockProvider};
use lock_tests::comparison::own_time;
use lock_tests::servers::{Direction, Proxy, RedisServer};
use lock_tests::{Lateness, eventually};
use tokio::time::timeout;

use crate::support::{BOUND, PATIENCE, RESPONSE_TIMEOUT, careful_client, client, is_held, take};

/// How long it lasts: some back-offs, and not for long.
const LASTS: Duration = Duration::from_millis(1_200);

/// Puts this in front of everything.
fn before(piece: &mut Vec<u8>, bytes: &[u8]) {
    piece.splice(0..0, bytes.iter().copied());
}

/// Makes this of every integer.
fn integers(piece: &mut Vec<u8>, number: &str) {
    let text = String::from_utf8_lossy(piece).into_owned();
    let lines = text.split("\r\n").map(|line| match line.strip_prefix(':') {
        Some(_) => format!(":{number}"),
        None => line.to_owned(),
    });
    *piece = lines.collect::<Vec<_>>().join("\r\n").into_bytes();
}

async fn a_stream_is_corrupted_for_a_while(change: fn(&mut Vec<u8>)) {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let here = client(&proxy.url(&server.url())).await;
    let there = client(&server.url()).await;
    let guard = take(&here).await;
    let theirs = there.lock("order:process:7").unwrap();
    let theirs = theirs.acquire(Duration::ZERO).await.unwrap();
    let waiter = {
        let lock = here.lock("order:process:7").unwrap();
        tokio::spawn(async move { lock.acquire(PATIENCE).await })
    };
    let before = connections(&server).await;
    proxy.corrupt(Direction::ToClient, change);
    let begun = Instant::now();
    while begun.elapsed() < LASTS {
        answers_in_time(&here).await;
    }
    // Not at full speed: for commands after 10 ms, 20, 40 .., for messages each 200 ms.
    let made = connections(&server).await - before;
    assert!(made < 50, "{made} connections");
    proxy.heal().await;
    drop(guard);
    eventually("it is well", async || here.health().await.is_up()).await;
    let again = timeout(PATIENCE, take(&here)).await.unwrap();
    again.release().await.unwrap();
    theirs.release().await.unwrap();
    // Granted, or refused for what it had seen; not granted by the answer to another.
    if let Ok(granted) = timeout(PATIENCE, waiter).await.unwrap().unwrap() {
        granted.release().await.unwrap();
    }
}

/// How many the server has taken so far.
async fn connections(server: &RedisServer) -> u64 {
    let stats: String = server.ask(&["INFO", "stats"]).await.unwrap();
    let mut lines = stats.lines();
    let taken = lines.find_map(|line| line.strip_prefix("total_connections_received:"));
    taken.unwrap().trim().parse().unwrap()
}

/// Whatever the answer is, there is one.
async fn answers_in_time(here: &LockProvider) {
    let in_time = Lateness::of(RESPONSE_TIMEOUT);
    let lock = here.lock("order:process:8").unwrap();
    if let Err(error) = lock.try_acquire(Duration::ZERO).await {
        let kinds = [LockErrorKind::Unavailable, LockErrorKind::Misconfigured];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
    in_time.at_most(BOUND).await;
    let in_time = Lateness::of(RESPONSE_TIMEOUT);
    here.health().await;
    in_time.at_most(BOUND).await;
    tokio::time::sleep(BOUND / 20).await;
}

#[tokio::test]
async fn bytes_of_no_protocol_cost_the_connections_alone() {
    a_stream_is_corrupted_for_a_while(|piece| piece.fill(0xff)).await;
}

#[tokio::test]
async fn flipped_bits_cost_the_connections_alone() {
    a_stream_is_corrupted_for_a_while(|piece| piece.iter_mut().for_each(|byte| *byte ^= 1)).await;
}

#[tokio::test]
async fn the_smallest_numbers_cost_no_more_than_what_is_held() {
    a_stream_is_corrupted_for_a_while(|piece| integers(piece, "-9223372036854775808")).await;
}

#[tokio::test]
async fn the_greatest_numbers_cost_no_more_than_what_is_held() {
    a_stream_is_corrupted_for_a_while(|piece| integers(piece, "9223372036854775807")).await;
}

#[tokio::test]
async fn numbers_that_are_none_cost_no_more_than_what_is_held() {
    a_stream_is_corrupted_for_a_while(|piece| integers(piece, "99999999999999999999999")).await;
}

#[tokio::test]
async fn a_text_of_nine_billion_bytes_is_not_waited_for() {
    a_stream_is_corrupted_for_a_while(|piece| before(piece, b"$9999999999\r\n")).await;
}

#[tokio::test]
async fn a_list_of_nine_billion_values_is_not_waited_for() {
    a_stream_is_corrupted_for_a_while(|piece| before(piece, b"*9999999999\r\n")).await;
}

#[tokio::test]
async fn lists_in_lists_in_lists_do_not_end_the_process() {
    a_stream_is_corrupted_for_a_while(|piece| before(piece, &b"*1\r\n".repeat(100_000))).await;
}

#[tokio::test]
async fn answers_that_were_not_asked_for_are_not_taken_for_others() {
    a_stream_is_corrupted_for_a_while(|piece| before(piece, b":1\r\n*0\r\n_\r\n")).await;
}

#[tokio::test]
async fn messages_that_are_none_cost_the_connections_alone() {
    a_stream_is_corrupted_for_a_while(|piece| {
        before(
            piece,
            b">0\r\n>1\r\n$7\r\nmessage\r\n>3\r\n$7\r\nmessage\r\n:1\r\n*0\r\n>2\r\n$9\r\nsubscribe\r\n_\r\n",
        );
    })
    .await;
}

/// As of a slot that came from another node, of which the masters of a cluster are asked.
#[tokio::test]
async fn a_note_that_only_a_cluster_writes_keeps_no_thread_busy() {
    const WRITE: &str = "local time = redis.call('TIME') \
         local till = string.format('%.0f', time[1] * 1000000 + time[2] + 1500000) \
         for _, key in ipairs(redis.call('KEYS', 'lock:*server*')) do \
         local note = redis.call('GET', key) \
         note = string.gsub(note, '^(%S+) %d+ (%d+) (%d+).*$', '%1 ' .. till .. ' %2 %3 ~') \
         redis.call('SET', key, note) end";
    const WATCHED: Duration = Duration::from_secs(2);
    let server = RedisServer::start().await;
    let here = careful_client(&server.url()).await;
    take(&here).await.release().await.unwrap();
    let () = server.ask(&["EVAL", WRITE, "0"]).await.unwrap();
    assert!(is_held(&here).await, "it is in a quarantine");
    take(&here).await.release().await.unwrap();
    let before = own_time();
    tokio::time::sleep(WATCHED).await;
    let spent = own_time().saturating_sub(before);
    assert!(spent < WATCHED / 20, "{spent:?} of a processor");
}
