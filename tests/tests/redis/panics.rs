//! Panics in the thread of the backend, which can come from what a program gives the library to call
//! there: its logger.

use std::io::{self, Write};
use std::panic;
use std::sync::Mutex;
use std::time::Duration;

use lock_core::LossReason;
use lock_tests::servers::{Proxy, RedisServer};
use lock_tests::{Lateness, eventually};
use tokio::time::sleep;

use crate::support::{BOUND, LEASE, NAME, PATIENCE, RESPONSE_TIMEOUT, client, take, try_once};

/// Panics at lines with these words, and counts.
static PANICS: Mutex<(&str, u32)> = Mutex::new(("", 0));

const ON_PURPOSE: &str = "on purpose";

struct Logger;

impl Write for Logger {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        // What a line was to be that panicked is kept by the thread, and comes again before the next.
        let text_so_far = String::from_utf8_lossy(text);
        let line = text_so_far.lines().next_back().unwrap_or_default();
        let mut panics = PANICS.lock().unwrap();
        let (words, count) = &mut *panics;
        if !words.is_empty() && line.contains(*words) {
            *count += 1;
            drop(panics);
            panic!("{ON_PURPOSE}");
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log_with_panics() {
    tracing_subscriber::fmt().with_writer(|| Logger).init();
    // Their backtraces take longer than what is measured.
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() != Some(ON_PURPOSE) {
            usual(panic);
        }
    }));
}

fn panic_at(words: &'static str) {
    *PANICS.lock().unwrap() = (words, 0);
}

fn panicked() -> u32 {
    PANICS.lock().unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_driver_costs_its_locks_and_not_the_provider() {
    log_with_panics();
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let here = client(&proxy.url(&server.url())).await;
    let there = client(&server.url()).await;
    let guard = take(&here).await;
    panic_at("cannot connect to the Redis server");
    proxy.refuse().await;
    proxy.reset();
    // Not by the end of the lease.
    assert_eq!(guard.lost().await, LossReason::Disconnected);
    let other = here.lock("order:process:7").unwrap();
    for _ in 0..5 {
        let in_time = Lateness::of(RESPONSE_TIMEOUT);
        let tried = other.try_acquire(Duration::ZERO).await;
        assert!(tried.unwrap_err().is_unavailable());
        assert!(!here.health().await.is_up());
        in_time.at_most(Duration::ZERO).await;
    }
    assert!(
        panicked() >= 2,
        "each of its starts ends so: {}",
        panicked()
    );
    assert!(guard.release().await.unwrap_err().is_lost());
    // A waiter waits on.
    let lock = here.lock(NAME).unwrap();
    let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    sleep(BOUND).await;
    panic_at("");
    proxy.heal().await;
    let granted = waiter.await.unwrap().unwrap();
    assert!(here.health().await.is_up());
    assert!(try_once(&there).await.unwrap().is_none());
    sleep(LEASE).await;
    assert!(granted.is_valid(), "it is renewed");
    granted.release().await.unwrap();
    take(&there).await.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_subscriber_costs_no_lock_and_releases_are_heard_again() {
    log_with_panics();
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let here = client(&proxy.url(&server.url())).await;
    let there = client(&server.url()).await;
    let guard = take(&here).await;
    let theirs = there.lock("order:process:7").unwrap();
    let theirs = theirs.acquire(Duration::ZERO).await.unwrap();
    let lock = here.lock("order:process:7").unwrap();
    let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    let subscribed = async || {
        let channels: Vec<String> = server.ask(&["PUBSUB", "CHANNELS"]).await.unwrap();
        !channels.is_empty()
    };
    eventually("it is subscribed", subscribed).await;
    panic_at("cannot subscribe to releases");
    proxy.refuse().await;
    proxy.reset();
    eventually("it panics", async || panicked() > 1).await;
    panic_at("");
    proxy.heal().await;
    eventually("it is subscribed again", subscribed).await;
    assert!(guard.is_valid());
    let late = Lateness::of(Duration::ZERO);
    theirs.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
    // Nothing but the message is that fast.
    late.at_most(BOUND).await;
    guard.release().await.unwrap();
}
