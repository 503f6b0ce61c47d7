//! Fencing tokens of holders to whom a lock was handed over: the server issues one for each that asks.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use lock_core::redis::RedisBackend;
use lock_core::{LockGuard, LockProvider};
use lock_tests::redis_key;
use lock_tests::servers::RedisServer;

use crate::support::{NAME, PATIENCE, client, scripts_run, take, token};

/// The lock, its first holder's token, and then a holder to whom it was handed over.
async fn handed_over(here: &LockProvider) -> (u64, LockGuard) {
    let first = take(here).await;
    let of_first = token(&first).await;
    let mut acquire = here.lock(NAME).unwrap().acquire_owned(PATIENCE);
    let waits = poll_fn(|cx| Poll::Ready(Pin::new(&mut acquire).poll(cx).is_pending())).await;
    assert!(waits, "the lock is held");
    first.release().await.unwrap();
    (of_first, acquire.await.unwrap())
}

/// A client that hands over for as long as a test takes, in which nothing is renewed: scripts are counted.
async fn patient(server: &RedisServer) -> LockProvider {
    let backend = RedisBackend::builder(&server.url())
        .lease(Duration::from_secs(3_600))
        .quarantine(Duration::ZERO);
    LockProvider::builder(backend.connect().await.unwrap())
        .local_handover(PATIENCE)
        .build()
}

/// The key that is not the lock's, and what is in it.
async fn server_key(server: &RedisServer) -> (String, String) {
    let keys: Vec<String> = server.ask(&["KEYS", "lock:*"]).await.unwrap();
    let of_lock = redis_key("", &NAME.parse().unwrap());
    let key = keys.into_iter().find(|key| *key != of_lock).unwrap();
    let note = server.ask(&["GET", &key]).await.unwrap();
    (key, note)
}

#[tokio::test]
async fn a_hand_over_costs_no_call_and_a_token_after_it_costs_one() {
    let server = RedisServer::start().await;
    let here = patient(&server).await;
    let first = take(&here).await;
    let before = scripts_run(&server).await;
    token(&first).await;
    let next = {
        let lock = here.lock(NAME).unwrap();
        tokio::spawn(async move { lock.acquire(PATIENCE).await.unwrap() })
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    first.release().await.unwrap();
    let next = next.await.unwrap();
    assert_eq!(scripts_run(&server).await, before);
    assert_eq!(token(&next).await, token(&next).await);
    assert_eq!(scripts_run(&server).await, before + 1);
}

#[tokio::test]
async fn tokens_grow_where_the_slot_was_noted_by_another_server() {
    let server = RedisServer::start().await;
    let here = patient(&server).await;
    let (first, second) = handed_over(&here).await;
    let (key, note) = server_key(&server).await;
    let (_, rest) = note.split_once(' ').unwrap();
    let of_another = format!("{} {rest}", "a".repeat(40));
    let () = server.ask(&["SET", &key, &of_another]).await.unwrap();
    let second_token = token(&second).await;
    // The last ones that the other issued may be unknown here.
    assert!(second_token > first + 2_000_000);
    let (_, noted) = server_key(&server).await;
    assert!(
        noted.starts_with(note.split(' ').next().unwrap()),
        "the server has noted its own before: {noted}"
    );
    assert!(noted.contains(&format!(" {second_token} ")), "{noted}");
    second.release().await.unwrap();
    let third = take(&client(&server.url()).await).await;
    assert!(token(&third).await > second_token);
}

#[tokio::test]
async fn no_token_is_issued_by_what_no_script_wrote() {
    let server = RedisServer::start().await;
    let here = patient(&server).await;
    let (first, second) = handed_over(&here).await;
    let (key, note) = server_key(&server).await;
    let far = format!("{} 0 9007199254740990 0", "a".repeat(40));
    for wrong in ["text", &far] {
        let () = server.ask(&["SET", &key, wrong]).await.unwrap();
        let error = second.fencing_token().await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        assert!(second.is_valid());
    }
    let () = server.ask(&["SET", &key, &note]).await.unwrap();
    assert!(token(&second).await > first);
}

#[tokio::test]
async fn a_token_is_issued_where_the_server_key_is_gone() {
    let server = RedisServer::start().await;
    let here = patient(&server).await;
    let (first, second) = handed_over(&here).await;
    let (key, _) = server_key(&server).await;
    let () = server.ask(&["DEL", &key]).await.unwrap();
    assert!(token(&second).await > first);
    assert!(second.is_valid());
}

#[tokio::test]
async fn a_token_is_asked_for_again_where_the_connection_was_cut() {
    let server = RedisServer::start().await;
    let here = patient(&server).await;
    let (first, second) = handed_over(&here).await;
    let cut = server.ask::<u32>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let (of_second, _) = tokio::join!(second.fencing_token(), cut);
    assert!(of_second.unwrap().get() > first);
    assert!(second.is_valid());
}

#[tokio::test]
async fn a_token_of_a_lock_that_was_taken_away_is_refused() {
    let server = RedisServer::start().await;
    let here = patient(&server).await;
    let (_, second) = handed_over(&here).await;
    let key = redis_key("", &NAME.parse().unwrap());
    let () = server.ask(&["SET", &key, "another"]).await.unwrap();
    assert!(second.fencing_token().await.unwrap_err().is_lost());
    assert!(!second.is_valid(), "its holder knows by then");
}
