//! Processes that wait for nothing: what others release costs neither them nor the server anything.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use lock_core::LockProvider;
use lock_tests::eventually;
use lock_tests::servers::{Direction, PostgresServer, Proxy, Wiretap};
use sqlx::{Executor, PgPool};
use tokio::time::sleep;

use crate::support::{PATIENCE, acquire, client, order, take};

/// Notifications that the server has sent through a proxy.
static NOTIFIED: AtomicUsize = AtomicUsize::new(0);

/// How often it has said there that a session does not listen any more.
static RESTING: AtomicUsize = AtomicUsize::new(0);

#[expect(clippy::ptr_arg, reason = "what the proxy calls")]
fn count(answers: &mut Vec<u8>) {
    const CHANNEL: &[u8] = b"distributed_lock\0";
    const RESTS: &[u8] = b"UNLISTEN\0";
    let found = answers.windows(CHANNEL.len()).filter(|at| *at == CHANNEL);
    NOTIFIED.fetch_add(found.count(), Ordering::Relaxed);
    let found = answers.windows(RESTS.len()).filter(|at| *at == RESTS);
    RESTING.fetch_add(found.count(), Ordering::Relaxed);
}

/// Whether a notification reaches a listener behind the proxy.
async fn is_heard(pool: &PgPool) -> bool {
    let before = NOTIFIED.load(Ordering::Relaxed);
    let told = pool.execute("SELECT pg_notify('distributed_lock', 'none')");
    told.await.unwrap();
    sleep(Duration::from_millis(100)).await;
    NOTIFIED.load(Ordering::Relaxed) > before
}

/// So often the two take one lock from each other.
async fn contend(one: &LockProvider, other: &LockProvider, times: usize) {
    let cycles = [one, other].map(async |locks| {
        for _ in 0..times {
            let guard = acquire(locks, order(), PATIENCE).await;
            guard.release().await.unwrap();
        }
    });
    join_all(cycles).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_reaches_no_process_that_waits_for_nothing() {
    const IDLE: usize = 40;
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let proxy = Proxy::to(server.address()).await;
    proxy.corrupt(Direction::ToClient, count);
    let url = proxy.url(&server.url());
    let idle = join_all((0..IDLE).map(|_| client(&url))).await;
    let (one, other) = (client(&server.url()).await, client(&server.url()).await);
    let rest = async || RESTING.load(Ordering::Relaxed) >= IDLE;
    eventually("they rest", rest).await;
    let before = NOTIFIED.load(Ordering::Relaxed);
    contend(&one, &other, 100).await;
    let notified = NOTIFIED.load(Ordering::Relaxed) - before;
    assert_eq!(notified, 0, "notifications, to {IDLE} processes");
    // Who has waited rests as well, after a while.
    let guard = take(&one, order()).await;
    let waiting = acquire(&idle[0], order(), PATIENCE);
    let release = async {
        eventually("it hears", async || is_heard(&pool).await).await;
        guard.release().await.unwrap();
    };
    drop(tokio::join!(waiting, release));
    eventually("it rests again", async || !is_heard(&pool).await).await;
}

/// Where in what a client has sent this is, each time.
fn places(heard: &[u8], sought: &[u8]) -> Vec<usize> {
    let windows = heard.windows(sought.len()).enumerate();
    let found = windows.filter(|(_, window)| *window == sought);
    found.map(|(place, _)| place).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_listens_before_the_try_after_which_somebody_waits_and_rests_later() {
    // With its length before it, which tells it from UNLISTEN.
    const LISTEN: &[u8] = b"\x1cLISTEN distributed_lock";
    const UNLISTEN: &[u8] = b"UNLISTEN distributed_lock";
    const REGISTER: &[u8] = b"pg_try_advisory_lock_shared($3)";
    let server = PostgresServer::start().await;
    let tap = Wiretap::to(server.address()).await;
    let url = server.url();
    let url = url.replacen(&server.address().to_string(), &tap.address().to_string(), 1);
    let (holder, waiter) = (client(&server.url()).await, client(&url).await);
    let rests = async |times: usize| {
        eventually("it rests", async || {
            places(&tap.heard(), UNLISTEN).len() == times
        })
        .await;
    };
    rests(1).await;
    // Uncontended: it goes on resting.
    drop(take(&waiter, order()).await);
    let guard = acquire(&holder, order(), PATIENCE).await;
    assert!(places(&tap.heard(), LISTEN).is_empty());
    let waiting = acquire(&waiter, order(), PATIENCE);
    let release = async {
        eventually("it is registered", async || {
            !places(&tap.heard(), REGISTER).is_empty()
        })
        .await;
        guard.release().await.unwrap();
    };
    let (granted, ()) = tokio::join!(waiting, release);
    let heard = tap.heard();
    let [listens] = places(&heard, LISTEN)[..] else {
        panic!("{:?}", places(&heard, LISTEN));
    };
    assert!(listens < places(&heard, REGISTER)[0]);
    drop(granted);
    rests(2).await;
}
