//! Locks between processes.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{BOUND, PATIENCE, take, wait_for};
use crate::checker::{Event, Rules, judge};
use crate::child::Child;
use crate::{Harness, Lateness, is_held};

/// The wait of a child, in milliseconds: longer than anything takes.
const LONG: u64 = 60_000;

/// Held is held, for every process.
pub async fn a_lock_that_a_child_holds_cannot_be_had_until_the_child_releases_it(harness: Harness) {
    let (client, name) = (harness.client().await, harness.name());
    let (mut child, mut other) = (harness.child().await, harness.child().await);
    for _ in 0..3 {
        child.hold(&name).await;
        assert!(is_held(&client, &name).await);
        assert_eq!(other.ask(&format!("acquire {name} 0")).await, "contended");
        assert_eq!(child.ask("valid").await, "valid true");
        child.release().await;

        let guard = take(&client, &name).await;
        assert_eq!(child.ask(&format!("acquire {name} 0")).await, "contended");
        assert_eq!(other.ask(&format!("acquire {name} 50")).await, "contended");
        guard.release().await.unwrap();
        other.hold(&name).await;
        other.release().await;
    }
}

/// The end of a process is the end of its holds, soon.
async fn is_granted_in_time(harness: &Harness, child: &mut Child, exit: bool) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    child.hold(&name).await;
    assert!(is_held(&there, &name).await);
    let waiting = {
        let lock = here.lock(&name).unwrap();
        tokio::spawn(async move { lock.acquire(PATIENCE).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    if exit {
        child.tell("exit").await;
        assert!(child.ended().await.success());
    } else {
        child.kill().await;
    }
    let lateness = Lateness::of(harness.store.granted_after_a_kill());
    let guard = waiting.await.unwrap().unwrap();
    lateness.at_most(BOUND).await;
    guard.fencing_token().await.unwrap();
    guard.release().await.unwrap();
    wait_for(&there, &name).await.release().await.unwrap();
}

/// It ends without a word.
pub async fn the_lock_of_a_child_that_ends_without_a_release_is_granted(harness: Harness) {
    for _ in 0..3 {
        let mut child = harness.child().await;
        is_granted_in_time(&harness, &mut child, true).await;
    }
}

/// It is not even asked.
pub async fn the_lock_of_a_child_that_is_killed_is_granted(harness: Harness) {
    for _ in 0..3 {
        let mut child = harness.child().await;
        is_granted_in_time(&harness, &mut child, false).await;
    }
}

/// What a holder has started inherits nothing of the lock.
pub async fn a_program_that_the_holder_started_does_not_keep_its_lock(harness: Harness) {
    let (client, name, mut child) = (
        harness.client().await,
        harness.name(),
        harness.child().await,
    );
    child.hold(&name).await;
    let started = child.start_another("spawn").await;
    child.kill().await;
    wait_for(&client, &name).await.release().await.unwrap();
    assert!(started.lives());
}

/// Each direction of a hand-over.
pub async fn a_waiting_child_and_a_waiting_parent_are_each_served_when_the_other_releases(
    harness: Harness,
) {
    let (client, name, mut child) = (
        harness.client().await,
        harness.name(),
        harness.child().await,
    );
    for _ in 0..3 {
        let guard = wait_for(&client, &name).await;
        child.tell(&format!("acquire {name} {LONG}")).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        guard.release().await.unwrap();
        assert_eq!(child.answer().await, "granted");

        let lock = client.lock(&name).unwrap();
        let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(!waiting.is_finished());
        child.release().await;
        waiting.await.unwrap().unwrap().release().await.unwrap();
    }
}

/// Judged from outside, by what each of them wrote down.
pub async fn processes_that_hammer_a_few_names_are_never_inside_together(harness: Harness) {
    const PROCESSES: usize = 4;
    let names = [harness.name(), harness.name(), harness.name()]
        .map(|name| name.to_string())
        .join(" ");
    let mut children = JoinSet::new();
    for _ in 0..PROCESSES {
        let (mut child, command) = (harness.child().await, format!("hammer 100 {names}"));
        children.spawn(async move {
            child.tell(&command).await;
            let mut events: Vec<Event> = Vec::new();
            loop {
                match child.answer().await.as_str() {
                    "done" => return events,
                    event => events.push(serde_json::from_str(event).unwrap()),
                }
            }
        });
    }
    let history = children.join_all().await.concat();
    let verdict = judge(&history, &Rules::default()).assert_clean();
    assert_eq!(verdict.counts.acquires.done, PROCESSES * 3 * 100);
    assert_eq!(verdict.counts.releases.done, PROCESSES * 3 * 100);
}
