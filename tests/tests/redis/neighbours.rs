//! Other users of the server who write to the keys of locks, by mistake or on purpose.

use std::time::Duration;

use lock_core::redis::RedisBackend;
use lock_core::{LockErrorKind, LockProvider};
use lock_tests::servers::{RedisServer, Server};
use lock_tests::{Lateness, Log, redis_key};

use crate::support::{
    BOUND, LEASE, NAME, PATIENCE, careful_client, client, is_held, take, token, try_once,
};

/// Microseconds.
const DAY: u64 = 24 * 3600 * 1_000_000;

async fn server_key(server: &RedisServer) -> String {
    let keys: Vec<String> = server.ask(&["KEYS", "*server-v1*"]).await.unwrap();
    let [key] = &keys[..] else {
        panic!("{keys:?}");
    };
    key.clone()
}

async fn get(server: &RedisServer, key: &str) -> String {
    server.ask(&["GET", key]).await.unwrap()
}

async fn set(server: &RedisServer, command: &[&str]) {
    let _: redis::Value = server.ask(command).await.unwrap();
}

/// What the note says: the server, the end of the quarantine, the last token, its length (ms).
fn fields(note: &str) -> [String; 4] {
    let fields: Vec<_> = note.split(' ').map(str::to_owned).collect();
    fields.try_into().unwrap()
}

/// Every way to a lock, refused with what to do, and soon.
async fn is_refused(client: &LockProvider, key: &str) {
    let late = Lateness::of(Duration::ZERO);
    let asked = client.lock(NAME).unwrap().acquire(PATIENCE).await;
    let error = asked.unwrap_err();
    late.at_most(BOUND).await;
    assert_eq!(error.kind(), LockErrorKind::Misconfigured, "{error}");
    let text = error.to_string();
    assert!(text.contains(key) && text.contains("deleted"), "{text}");
    let claimed = client.claim([NAME], 1).await.unwrap_err();
    assert_eq!(claimed.kind(), LockErrorKind::Misconfigured, "{claimed}");
    let health = client.health().await;
    assert!(
        health.error().unwrap().to_string().contains(key),
        "{health:?}"
    );
}

#[tokio::test]
async fn a_note_that_no_client_writes_is_refused_by_name_and_over_when_it_is_deleted() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&here).await;
    let before = token(&guard).await;
    let key = server_key(&server).await;
    let note = get(&server, &key).await;
    let [run_id, till, last, length] = fields(&note);
    let now: u64 = last.parse().unwrap();
    let (far, huge) = (now + 2 * DAY, "9007199254740000");
    for bad in [
        format!("{run_id} {huge} {last} {length}"),
        format!("{run_id} {far} {last} {length}"),
        format!("{run_id} {till} {huge} {length}"),
        format!("{run_id} {till} {far} {length}"),
        format!("{run_id} {till} {last} {huge}"),
        format!("{run_id} {till} {last} 86400001"),
        format!("{run_id} {huge}{huge} {huge}{huge} {huge}{huge}"),
        format!("0 {huge} {huge} {huge}"),
    ] {
        set(&server, &["SET", &key, &bad]).await;
        is_refused(&there, &key).await;
        // Nothing is written back, and what is held stays held.
        assert_eq!(get(&server, &key).await, bad);
        assert!(guard.is_valid());
        set(&server, &["DEL", &key]).await;
        assert!(is_held(&there).await, "{bad}");
    }
    guard.release().await.unwrap();
    for client in [&there, &here] {
        let guard = take(client).await;
        let next = token(&guard).await;
        assert!(before < next && next < now + DAY, "{next} after {before}");
        guard.release().await.unwrap();
    }
}

#[tokio::test]
async fn a_quarantine_of_a_day_and_a_token_of_tomorrow_are_kept_to() {
    let server = RedisServer::start().await;
    let (here, there) = (
        client(&server.url()).await,
        careful_client(&server.url()).await,
    );
    let guard = take(&here).await;
    let last = token(&guard).await;
    guard.release().await.unwrap();
    let key = server_key(&server).await;
    let [run_id, ..] = fields(&get(&server, &key).await);
    let tomorrow = last + DAY - DAY / 100;
    let note = format!("{run_id} 0 {tomorrow} 0");
    set(&server, &["SET", &key, &note]).await;
    let guard = take(&here).await;
    assert!(token(&guard).await > tomorrow);
    guard.release().await.unwrap();
    // Another server, of clients with a lease of a day.
    let note = format!("0 0 {tomorrow} 86400000");
    set(&server, &["SET", &key, &note]).await;
    assert!(try_once(&there).await.unwrap().is_none());
    let [_, till, _, length] = fields(&get(&server, &key).await);
    let till: u64 = till.parse().unwrap();
    assert!(till > last + DAY - DAY / 100 && length == "86400000");
}

#[tokio::test]
async fn what_is_no_note_counts_as_none() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    take(&here).await.release().await.unwrap();
    let key = server_key(&server).await;
    let mut last = 0;
    for command in [
        vec!["SET", &key, "nonsense"],
        vec!["SET", &key, ""],
        vec!["RPUSH", &key, "a"],
        vec!["HSET", &key, "a", "b"],
        vec!["SETRANGE", &key, "100000000", "x"],
        vec!["SET", &key, "a -1 -1 -1"],
    ] {
        set(&server, &["DEL", &key]).await;
        set(&server, &command).await;
        let guard = take(&here).await;
        let next = token(&guard).await;
        assert!(next > last, "{command:?}");
        last = next;
        guard.release().await.unwrap();
        assert_eq!(get(&server, &key).await.split(' ').count(), 4);
    }
}

#[tokio::test]
async fn a_token_of_the_future_is_not_brought_back_by_a_client_that_has_seen_it() {
    let server = RedisServer::options().own_clock().start().await;
    let here = client(&server.url()).await;
    server.put_clock(10 * 24 * 3600);
    let guard = take(&here).await;
    let ahead = token(&guard).await;
    guard.release().await.unwrap();
    server.put_clock(0);
    let key = server_key(&server).await;
    is_refused(&here, &key).await;
    set(&server, &["DEL", &key]).await;
    let guard = take(&here).await;
    assert!(token(&guard).await < ahead - 9 * DAY);
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_lock_key_of_another_program_is_held_until_it_ends_and_is_told_of() {
    let log = Log::of_process();
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let key = redis_key("", &NAME.parse().unwrap());
    let guard = take(&there).await;
    let ours = get(&server, &key).await;
    guard.release().await.unwrap();
    let owner = &ours[..32];
    let (huge, negative) = (format!("{owner} 9007199254740000"), format!("{owner} -7"));
    for (command, is_told) in [
        (vec!["SET", &key, &ours], true),
        (vec!["SET", &key, "theirs", "PX", "60000"], true),
        (vec!["SET", &key, ""], true),
        (vec!["SET", &key, &huge, "PX", "60000"], true),
        (vec!["SET", &key, &negative, "PX", "60000"], true),
        // A copy of what a holder wrote looks like one.
        (vec!["SET", &key, &ours, "PX", "60000"], false),
    ] {
        // A client tells of one in a minute.
        let new = client(&server.url()).await;
        set(&server, &command).await;
        let lines = log.text().matches("another program has written").count();
        let late = Lateness::of(Duration::ZERO);
        for client in [&new, &here] {
            assert!(try_once(client).await.unwrap().is_none(), "{command:?}");
            assert!(client.claim([NAME], 1).await.unwrap().is_empty());
        }
        late.at_most(BOUND).await;
        let lines = log.text().matches("another program has written").count() - lines;
        assert_eq!(lines > 0, is_told, "{command:?}");
        set(&server, &["DEL", &key]).await;
        take(&new).await.release().await.unwrap();
    }
    assert!(log.text().contains(&key));
}

#[tokio::test]
async fn a_lock_key_of_another_type_is_named() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let key = redis_key("", &NAME.parse().unwrap());
    set(&server, &["RPUSH", &key, "a"]).await;
    let error = try_once(&here).await.unwrap_err();
    assert!(
        error.is_unavailable() && error.to_string().contains(&key),
        "{error}"
    );
    let other = here.lock("order:process:7").unwrap();
    let guard = other.acquire(Duration::ZERO).await.unwrap();
    guard.release().await.unwrap();
}

#[tokio::test]
async fn what_is_put_under_the_key_of_a_holder_is_not_read_whole() {
    let server = RedisServer::start().await;
    // A lease that is renewed now and then, and no quarantine.
    let long = RedisBackend::builder(&server.url())
        .lease(LEASE)
        .quarantine(Duration::ZERO);
    let here = LockProvider::new(long.connect().await.unwrap());
    let guard = take(&here).await;
    let (key, note) = (redis_key("", guard.name()), server_key(&server).await);
    let size: u64 = 100 << 20;
    let end = size.to_string();
    for key in [&key, &note] {
        set(&server, &["DEL", key]).await;
        set(&server, &["SETRANGE", key, &end, "x"]).await;
    }
    let peak = async || {
        let info: String = server.ask(&["INFO", "memory"]).await.unwrap();
        let peak = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory_peak:"));
        peak.unwrap().trim().parse::<u64>().unwrap()
    };
    let before = peak().await;
    // Renewed, looked at, released.
    guard.lost().await;
    assert!(try_once(&here).await.unwrap().is_none());
    assert!(guard.release().await.unwrap_err().is_lost());
    assert!(try_once(&here).await.unwrap().is_none());
    let after = peak().await;
    assert!(after < before + size / 4, "{before} -> {after}");
}
