//! Servers that say nothing for longer than a lease, or nothing but that they cannot.

use std::time::{Duration, Instant};

use lock_core::LockError;
use lock_core::redis::RedisBackend;
use lock_tests::servers::{RedisServer, Server};
use lock_tests::{Lateness, eventually};
use tokio::time::{sleep, timeout};

use crate::support::{BOUND, LEASE, MARGIN, NAME, RESPONSE_TIMEOUT, client, take, try_once};

/// Long enough for the lease to end, and for who asks to hear nothing.
const SILENT: Duration = Duration::from_secs(5);

/// A holder, and a caller that asks, when the server does this.
async fn a_silence_costs_the_lock_at_its_deadline(command: &[&str]) {
    let server = RedisServer::with(&[("enable-debug-command", "yes")]).await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&here).await;
    // Renewed once at least.
    sleep(LEASE).await;
    let mut command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    let mut ask = redis::cmd(&command.remove(0));
    ask.arg(command);
    let mut connection = server.connection().await;
    let silent = Instant::now();
    // The driver does not wait that long.
    let silence = tokio::spawn(async move { drop(ask.query_async::<()>(&mut connection).await) });
    eventually("it is silent", async || {
        let pong = server.ask::<String>(&["PING"]);
        timeout(BOUND / 5, pong).await.is_err()
    })
    .await;
    let (earliest, latest) = (LEASE - MARGIN - LEASE / 3, Lateness::of(LEASE - MARGIN));
    let wait = Duration::from_millis(300);
    let in_time = Lateness::of(wait + RESPONSE_TIMEOUT);
    let asking = tokio::spawn({
        let lock = there.lock("order:process:7").unwrap();
        async move {
            let error = lock.acquire(wait).await.unwrap_err();
            in_time.at_most(BOUND).await;
            error
        }
    });
    guard.lost().await;
    assert!(
        silent.elapsed() + BOUND / 5 > earliest,
        "{:?}",
        silent.elapsed()
    );
    latest.at_most(BOUND).await;
    let error = asking.await.unwrap();
    assert!(error.is_unavailable(), "{error}");
    silence.await.unwrap();
    take(&there).await.release().await.unwrap();
}

#[tokio::test]
async fn a_server_that_sleeps_costs_the_lock_at_its_deadline_and_not_before() {
    let seconds = SILENT.as_secs().to_string();
    a_silence_costs_the_lock_at_its_deadline(&["DEBUG", "SLEEP", &seconds]).await;
}

#[tokio::test]
async fn a_server_that_is_paused_costs_the_lock_at_its_deadline_and_not_before() {
    let milliseconds = SILENT.as_millis().to_string();
    a_silence_costs_the_lock_at_its_deadline(&["CLIENT", "PAUSE", &milliseconds, "ALL"]).await;
}

#[tokio::test]
async fn a_server_that_is_loading_is_unavailable_and_then_serves() {
    let server = RedisServer::with(&[
        ("enable-debug-command", "yes"),
        // Microseconds for each key, and as often as it can it answers meanwhile.
        ("key-load-delay", "1000"),
        ("loading-process-events-interval-bytes", "1024"),
    ])
    .await;
    let here = client(&server.url()).await;
    take(&here).await.release().await.unwrap();
    let () = server.ask(&["DEBUG", "POPULATE", "20000"]).await.unwrap();
    let () = server.ask(&["SAVE"]).await.unwrap();
    let asking = async {
        eventually("it is loading", async || {
            let pong = server.ask::<String>(&["PING"]).await;
            pong.is_err_and(|error| error.code() == Some("LOADING"))
        })
        .await;
        let error = try_once(&here).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        assert!(error.to_string().contains("loading its data"), "{error}");
        let error = RedisBackend::connect(&server.url()).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        assert!(format!("{error:?}").contains("load"), "{error:?}");
        assert!(
            here.health()
                .await
                .error()
                .is_some_and(LockError::is_unavailable)
        );
        assert!(
            server.ask::<String>(&["PING"]).await.is_err(),
            "it is loading still"
        );
        // Enough of that.
        let hurry = ["CONFIG", "SET", "key-load-delay", "0"];
        server.ask::<()>(&hurry).await.unwrap();
        // Retried within the wait.
        here.lock(NAME).unwrap().acquire(SILENT * 6).await.unwrap()
    };
    let (guard, ()) = tokio::join!(asking, server.restart());
    guard.release().await.unwrap();
}
