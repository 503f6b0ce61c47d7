//! What the log says of an outage: that it begins, few lines while it lasts, and that it is over.

use std::process;
use std::time::{Duration, Instant};

use lock_core::backend::{Backend, LockRequest};
use lock_tests::child::resident;
use lock_tests::servers::{PostgresServer, Server};
use lock_tests::{Log, eventually};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::Level;

use crate::support::{LEASE, PATIENCE, acquire, backend, client, numbered, order, take};

/// How long a server is down.
const DOWN: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_is_a_handful_of_lines_and_one_that_it_is_back() {
    let server = PostgresServer::start().await;
    let (holder, waiter) = (client(&server.url()).await, client(&server.url()).await);
    let log = Log::of_process();
    let mut waiting = JoinSet::new();
    for number in 0..50 {
        let guard = take(&holder, numbered(number)).await;
        let waiter = waiter.clone();
        waiting.spawn(async move {
            let next =
                tokio::spawn(async move { acquire(&waiter, numbered(number), PATIENCE).await });
            guard.lost().await;
            drop(guard);
            next.await.unwrap().release().await.unwrap();
        });
    }
    sleep(LEASE).await;
    assert_eq!(log.lines(Level::WARN), Vec::<String>::new());
    server.kill().await;
    sleep(DOWN).await;
    server.restart().await;
    waiting.join_all().await;
    let again = "PostgreSQL lock session re-established";
    eventually("both are back", async || log.count(again) == 2).await;
    let lines = log.lines(Level::INFO);
    let all = lines.join("\n");
    assert!(all.contains(&server.address().to_string()), "{all}");
    // Of each of the two: that the session is lost, why there is none, 5 and 15 s later. And that guards
    // are lost.
    let troubles = log.lines(Level::WARN).len();
    assert!(troubles <= 2 * 4 + 2, "{troubles} lines: {all}");
    assert_eq!(lines.len() - troubles, 2, "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_ended_again_and_again_write_a_line_every_few_seconds() {
    let server = PostgresServer::start().await;
    let holder = client(&server.url()).await;
    let log = Log::of_process();
    let begun = Instant::now();
    while begun.elapsed() < DOWN {
        drop(acquire(&holder, numbered(1), PATIENCE).await);
        server.terminate_backends("distributed_lock").await;
        sleep(Duration::from_millis(200)).await;
    }
    let lines = log.lines(Level::INFO);
    assert!(
        (2..=8).contains(&lines.len()),
        "{} lines: {lines:#?}",
        lines.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_guards_that_are_lost_by_one_cause_are_two_lines_with_their_number() {
    const LOCKS: usize = 1_000;
    let server = PostgresServer::start().await;
    let holder = client(&server.url()).await;
    let guards = holder.claim((0..LOCKS).map(numbered), LOCKS).await.unwrap();
    assert_eq!(guards.len(), LOCKS);
    let log = Log::of_process();
    server.terminate_backends("distributed_lock").await;
    for guard in &guards {
        guard.lost().await;
    }
    drop(guards);
    sleep(LEASE).await;
    log.check_lost_together(LOCKS);
    assert_eq!(log.lines(Level::WARN).len(), 3, "that, and the session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_that_come_and_go_in_an_outage_cost_no_memory() {
    const TIMES: u64 = 2_000_000;
    let server = PostgresServer::start().await;
    let backend = backend(&server.url()).await;
    let request = LockRequest::new(order());
    drop(backend.changed(&request));
    server.kill().await;
    let before = resident(process::id());
    for _ in 0..TIMES {
        // As each new try of a caller that waits does.
        drop(backend.changed(&request));
    }
    let grown = resident(process::id()).saturating_sub(before);
    assert!(grown < TIMES * 2, "{grown} bytes");
}
