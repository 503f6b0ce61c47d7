//! What operators see of a storm, and of those who leave. The first records its whole program, since its
//! tasks are on several threads; the other a thread.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::collections::BTreeMap;
use std::time::Duration;

use lock_core::memory::MemoryBackend;
use lock_core::{LockName, LockProvider};
use lock_tests::puppet::{Play, Puppet};
use lock_tests::{Storm, abandon, seed};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_storm_nothing_is_held_or_waiting_and_no_name_was_shown() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();

    let store = MemoryBackend::new();
    let clients = [(); 2].map(|()| LockProvider::new(store.clone()));
    let names = (0..3).map(|number| LockName::new("order", "process", 7_000 + number).unwrap());
    let storm = Storm::new(clients.to_vec(), names.collect());
    storm.blow(seed(), 8, 100).await;

    let mut gauges = BTreeMap::new();
    let mut acquired = 0;
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        for label in key.labels() {
            assert!(!label.value().contains('7'), "{key} shows a name");
        }
        match value {
            DebugValue::Gauge(value) => drop(gauges.insert(key.name().to_owned(), value.0)),
            DebugValue::Histogram(values)
                if key.name() == "distributed_lock_acquire_duration_seconds" =>
            {
                acquired += values.len();
            }
            _ => {}
        }
    }
    let nobody =
        ["distributed_lock_held", "distributed_lock_waiting"].map(|name| (name.to_owned(), 0.0));
    assert_eq!(gauges, BTreeMap::from(nobody));
    assert!(acquired > 0);
}

/// How many acquires ended so, by lock and outcome.
fn acquires(snapshotter: &Snapshotter) -> BTreeMap<(String, String), usize> {
    let mut acquires = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        if let DebugValue::Histogram(values) = value
            && key.name() == "distributed_lock_acquire_duration_seconds"
            && !values.is_empty()
        {
            let label = |name| {
                let mut labels = key.labels();
                labels
                    .find(|label| label.key() == name)
                    .unwrap()
                    .value()
                    .to_owned()
            };
            acquires.insert((label("lock"), label("outcome")), values.len());
        }
    }
    acquires
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_is_counted_and_so_is_a_claim_that_fails() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let counted = |expected: &[(&str, &str, usize)]| {
        let expected = expected
            .iter()
            .map(|(lock, outcome, count)| (((*lock).to_owned(), (*outcome).to_owned()), *count));
        assert_eq!(acquires(&snapshotter), expected.collect());
    };
    let minute = Duration::from_secs(60);
    let puppet = Puppet::new();
    let locks = puppet.client();
    let lock = locks.lock("order:process:1").unwrap();
    let held = lock.acquire(Duration::ZERO).await.unwrap();
    counted(&[("order:process", "acquired", 1)]);

    // One that did not begin, one in line, and one whose question is on its way.
    drop(lock.acquire(minute));
    counted(&[]);
    assert!(abandon(lock.acquire(minute), 1).await.is_none());
    puppet.every_try(Play::Late(Duration::from_millis(1)));
    let other = locks.lock("user:login:1").unwrap();
    assert!(abandon(other.acquire(minute), 1).await.is_none());
    counted(&[
        ("order:process", "cancelled", 1),
        ("user:login", "cancelled", 1),
    ]);
    drop(held);

    // Of many locks each that is had, and else each label.
    let names = ["cart:pay:1", "stock:take:1", "stock:take:2"];
    assert!(abandon(locks.claim(names, 3), 1).await.is_none());
    counted(&[("cart:pay", "cancelled", 1), ("stock:take", "cancelled", 1)]);
    tokio::time::sleep(minute).await;
    puppet.every_try(Play::Fail("down"));
    assert!(locks.claim(names, 3).await.unwrap_err().is_unavailable());
    let failed = |outcome| [("cart:pay", outcome, 1), ("stock:take", outcome, 1)];
    counted(&failed("unavailable"));
    puppet.every_try(Play::Hang);
    assert!(locks.claim(names, 3).await.unwrap_err().is_unavailable());
    counted(&failed("unavailable"));
    puppet.let_go();
    puppet.behave();
    tokio::time::sleep(minute).await;
    let claimed = locks.claim(names, 3).await.unwrap();
    counted(&[("cart:pay", "acquired", 1), ("stock:take", "acquired", 2)]);
    assert!(locks.claim(names, 3).await.unwrap().is_empty());
    counted(&[]);
    drop(claimed);
    tokio::time::sleep(minute).await;

    // Of all of some locks each.
    let all = locks.acquire_all(names, minute).await.unwrap();
    counted(&[("cart:pay", "acquired", 1), ("stock:take", "acquired", 2)]);
    drop(all);
    tokio::time::sleep(minute).await;
    puppet.tries([Play::Answer]);
    puppet.every_try(Play::Hang);
    let left = abandon(locks.acquire_all(names, minute), 1).await;
    assert!(left.is_none());
    counted(&[("cart:pay", "acquired", 1), ("stock:take", "cancelled", 1)]);
    puppet.let_go();
    puppet.behave();
    locks.shutdown(minute).await;
    assert!(locks.claim(names, 3).await.unwrap_err().is_closed());
    counted(&failed("closed"));
}
