//! What a campaign outlasts: a backend that is away, and the runtime that it began in.

use std::thread;
use std::time::{Duration, Instant};

use lock_core::LockProvider;
use lock_core::memory::MemoryBackend;
use lock_tests::Log;
use tokio::runtime::{Builder, Runtime};
use tracing::Level;

use super::leading::{NAME, elected, pair};

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_and_outlasted() {
    let (log, _listening) = Log::of_thread(Level::INFO);
    let store = MemoryBackend::new();
    store.set_available(false);
    let locks = LockProvider::new(store.clone());
    let mut leader = locks.leader(NAME).unwrap();
    let early = tokio::time::timeout(Duration::from_secs(120), leader.changed());
    assert!(early.await.is_err());
    assert_eq!(log.count("WARN"), 1);
    assert_eq!(log.count("a campaign for leadership failed"), 1);
    store.set_available(true);
    let soon = tokio::time::timeout(Duration::from_secs(3), elected(&mut leader));
    soon.await.expect("it is asked again within seconds");
    assert_eq!(log.count("this instance leads"), 1);
    // While it leads it asks for nothing; after that the same again.
    store.set_available(false);
    assert!(leader.is_leader());
    store.revoke(leader.name());
    assert!(!leader.changed().await.unwrap());
    let early = tokio::time::timeout(Duration::from_secs(120), leader.changed());
    assert!(early.await.is_err());
    assert_eq!(lines_about(&log, 2, "for leadership failed"), 2);
    store.set_available(true);
    elected(&mut leader).await;
}

/// How many lines with this text there are, once they have told of so many campaigns or terms.
fn lines_about(log: &Log, leaders: usize, text: &str) -> usize {
    let started = Instant::now();
    loop {
        let mut lines = log.lines(Level::INFO);
        lines.retain(|line| line.contains(text));
        if lines.iter().map(|line| leaders_of(line)).sum::<usize>() >= leaders {
            return lines.len();
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{lines:?}");
        // The thread that counts them sleeps by the clock of the machine.
        thread::sleep(Duration::from_millis(20));
    }
}

/// How many leaders a line of the log is about.
fn leaders_of(line: &str) -> usize {
    let Some((_, names)) = line.split_once("names=") else {
        return 1;
    };
    let digits = names.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap()
}

/// One for each partition, say, over one connection.
#[tokio::test(start_paused = true)]
async fn what_happens_to_hundreds_of_leaders_together_is_few_lines_with_their_number() {
    const LEADERS: usize = 200;
    // One more where the machine is so slow that some come after the first were counted.
    const FEW: usize = 3;
    let (log, _listening) = Log::of_thread(Level::INFO);
    let store = MemoryBackend::new();
    store.set_available(false);
    let locks = LockProvider::new(store.clone());
    let leaders = (0..LEADERS).map(|number| {
        let name = format!("partition:lead:{number}");
        locks.leader(name).unwrap()
    });
    let mut leaders: Vec<_> = leaders.collect();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(lines_about(&log, LEADERS, "for leadership failed") <= FEW);
    store.set_available(true);
    for leader in &mut leaders {
        elected(leader).await;
    }
    assert!(lines_about(&log, LEADERS, "this instance leads") <= FEW);
    for leader in &leaders {
        assert!(store.revoke(leader.name()));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(lines_about(&log, LEADERS, "no longer leads") <= FEW);
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn leadership_outlives_the_runtime_of_its_campaign() {
    let (store, locks, _) = pair();
    let (first, second) = (runtime(), runtime());
    let mut leader = first.block_on(async {
        let mut leader = locks.leader(NAME).unwrap();
        elected(&mut leader).await;
        leader
    });
    drop(first);
    assert!(leader.is_leader(), "the handle holds the lock");
    store.revoke(leader.name());
    assert!(!leader.is_leader());
    second.block_on(async {
        assert!(!leader.changed().await.unwrap());
        elected(&mut leader).await;
    });
}

#[test]
fn whoever_waits_in_another_runtime_carries_the_campaign_on() {
    let (_store, one, other) = pair();
    let (first, second) = (runtime(), runtime());
    // Led by another for now.
    let mut present = second.block_on(async { other.leader(NAME).unwrap() });
    second.block_on(elected(&mut present));
    let leader = first.block_on(async { one.leader(NAME).unwrap() });
    let mut waiting = leader.clone();
    let waiter = thread::spawn(move || {
        let runtime = runtime();
        runtime.block_on(elected(&mut waiting));
        waiting
    });
    first.block_on(tokio::task::yield_now());
    drop(first);
    drop(present);
    let waiting = waiter.join().unwrap();
    assert!(leader.is_leader() && waiting.is_leader());
}

#[test]
fn a_candidate_that_was_made_outside_of_a_runtime_campaigns_once_it_is_asked_in_one() {
    let (_store, locks, _) = pair();
    let mut leader = locks.leader(NAME).unwrap();
    assert!(!leader.is_leader());
    runtime().block_on(elected(&mut leader));
}
