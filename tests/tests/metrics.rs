//! What operators see of a storm. The only test of its program: there is one recorder in each.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::collections::BTreeMap;

use lock_core::memory::MemoryBackend;
use lock_core::{LockName, LockProvider};
use lock_tests::{Storm, seed};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

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
