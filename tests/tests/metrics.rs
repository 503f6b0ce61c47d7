//! What operators see of a storm, and of those who leave. The first records its whole program, since its
//! tasks are on several threads; the other a thread.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::collections::BTreeMap;
use std::time::Duration;

use lock_core::memory::MemoryBackend;
use lock_core::{LockName, LockPolicy, LockProvider};
use lock_tests::scripted_backend::{Play, ScriptedBackend};
use lock_tests::{Storm, abandon, seed};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
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

/// What the gauges of one lock say in the text that Prometheus reads.
fn gauges(prometheus: &PrometheusHandle) -> BTreeMap<String, f64> {
    let text = prometheus.render();
    let gauges = text.lines().filter(|line| !line.starts_with('#'));
    let gauges = gauges.filter_map(|line| line.rsplit_once(' '));
    gauges
        .filter_map(|(series, value)| Some((series.split_once('{')?.0, value)))
        .filter(|(name, _)| GAUGES.contains(name))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

fn held_and_waiting(held: f64, waiting: f64) -> BTreeMap<String, f64> {
    let named = GAUGES.map(str::to_owned).into_iter().zip([held, waiting]);
    named.collect()
}

const GAUGES: [&str; 2] = ["distributed_lock_held", "distributed_lock_waiting"];

/// Longer than the exporter of these tests keeps a series that does not change.
async fn idle() {
    tokio::time::sleep(4 * IDLE).await;
}

const IDLE: Duration = Duration::from_millis(50);

#[tokio::test]
async fn gauges_are_right_where_the_exporter_forgets_idle_series() {
    let recorder = PrometheusBuilder::new()
        .idle_timeout(MetricKindMask::GAUGE, Some(IDLE))
        .build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let prometheus = recorder.handle();
    let store = MemoryBackend::new();
    let clients = [(); 2].map(|()| LockProvider::new(store.clone()));
    let [lock, elsewhere] = clients
        .each_ref()
        .map(|c| c.lock("order:process:1").unwrap());
    let other = clients[1].lock("order:process:2").unwrap();
    let minute = Duration::from_secs(60);

    let held = lock.acquire(Duration::ZERO).await.unwrap();
    assert_eq!(gauges(&prometheus)[GAUGES[0]], 1.0);
    let waiting = tokio::spawn(async move { elsewhere.acquire(minute).await });
    while gauges(&prometheus).get(GAUGES[1]) != Some(&1.0) {
        tokio::task::yield_now().await;
    }
    idle().await;
    assert_eq!(
        gauges(&prometheus),
        BTreeMap::new(),
        "they were not forgotten"
    );

    // Of both clients together, which a recorder cannot tell apart.
    let second = other.acquire(Duration::ZERO).await.unwrap();
    assert_eq!(gauges(&prometheus)[GAUGES[0]], 2.0);
    idle().await;
    gauges(&prometheus);
    second.release().await.unwrap();
    assert_eq!(gauges(&prometheus)[GAUGES[0]], 1.0);
    idle().await;
    gauges(&prometheus);
    held.release().await.unwrap();
    let held = waiting.await.unwrap().unwrap();
    assert_eq!(gauges(&prometheus), held_and_waiting(1.0, 0.0));
    idle().await;
    gauges(&prometheus);
    drop(held);
    assert_eq!(gauges(&prometheus)[GAUGES[0]], 0.0);
}

#[tokio::test]
async fn gauges_are_right_where_the_recorder_comes_later() {
    let store = MemoryBackend::new();
    let [here, there] = [(); 2].map(|()| LockProvider::new(store.clone()));
    let held = here
        .lock("order:ship:1")
        .unwrap()
        .acquire(Duration::ZERO)
        .await
        .unwrap();
    let lock = there.lock("order:ship:1").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire(Duration::from_secs(60)).await });
    tokio::task::yield_now().await;

    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let prometheus = recorder.handle();
    held.release().await.unwrap();
    let held = waiting.await.unwrap().unwrap();
    assert_eq!(gauges(&prometheus), held_and_waiting(1.0, 0.0));
    held.release().await.unwrap();
    assert_eq!(gauges(&prometheus), held_and_waiting(0.0, 0.0));
}

/// Whichever slot it is. A lock that is kept after its release is held by none.
#[tokio::test]
async fn permits_are_counted_under_the_label_of_their_lock() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let prometheus = recorder.handle();
    let locks = LockProvider::new(MemoryBackend::new());
    let exports = locks.lock("export:run:acme").unwrap().permits(2);
    let kept = LockPolicy::background_job().with_at_least(Duration::from_secs(600));
    let guards = [
        exports.acquire(Duration::ZERO).await.unwrap(),
        exports.acquire(kept).await.unwrap(),
    ];
    assert_eq!(gauges(&prometheus), held_and_waiting(2.0, 0.0));
    let waiting = tokio::spawn({
        let exports = exports.clone();
        async move { exports.acquire(Duration::from_secs(60)).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(gauges(&prometheus), held_and_waiting(2.0, 1.0));
    for guard in guards {
        guard.release().await.unwrap();
    }
    waiting.await.unwrap().unwrap().release().await.unwrap();
    assert_eq!(gauges(&prometheus), held_and_waiting(0.0, 0.0));
    let text = prometheus.render();
    for series in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(
            !series.contains('#') && !series.contains("acme"),
            "{series}"
        );
    }
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
    let scripted = ScriptedBackend::new();
    let locks = scripted.client();
    let lock = locks.lock("order:process:1").unwrap();
    let held = lock.acquire(Duration::ZERO).await.unwrap();
    counted(&[("order:process", "acquired", 1)]);

    // One that did not begin, one in line, and one whose question is on its way.
    drop(lock.acquire(minute));
    counted(&[]);
    assert!(abandon(lock.acquire(minute), 1).await.is_none());
    scripted.every_try(Play::Late(Duration::from_millis(1)));
    let other = locks.lock("user:login:1").unwrap();
    assert!(abandon(other.acquire(minute), 1).await.is_none());
    counted(&[
        ("order:process", "cancelled", 1),
        ("user:login", "cancelled", 1),
    ]);
    drop(held);

    // Of many locks each that is granted, and else each label.
    let names = ["cart:pay:1", "stock:take:1", "stock:take:2"];
    assert!(abandon(locks.claim(names, 3), 1).await.is_none());
    counted(&[("cart:pay", "cancelled", 1), ("stock:take", "cancelled", 1)]);
    tokio::time::sleep(minute).await;
    scripted.every_try(Play::Fail("down"));
    assert!(locks.claim(names, 3).await.unwrap_err().is_unavailable());
    let failed = |outcome| [("cart:pay", outcome, 1), ("stock:take", outcome, 1)];
    counted(&failed("unavailable"));
    scripted.every_try(Play::Hang);
    assert!(locks.claim(names, 3).await.unwrap_err().is_unavailable());
    counted(&failed("unavailable"));
    scripted.let_go();
    scripted.behave();
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
    scripted.tries([Play::Answer]);
    scripted.every_try(Play::Hang);
    let left = abandon(locks.acquire_all(names, minute), 1).await;
    assert!(left.is_none());
    counted(&[("cart:pay", "acquired", 1), ("stock:take", "cancelled", 1)]);
    scripted.let_go();
    scripted.behave();
    locks.shutdown(minute).await;
    assert!(locks.claim(names, 3).await.unwrap_err().is_closed());
    counted(&failed("closed"));
}
