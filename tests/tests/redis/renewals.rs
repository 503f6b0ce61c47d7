//! How much time renewals have left.

use std::time::Duration;

use lock_core::redis::RedisBackend;
use lock_core::{LockName, LockProvider};
use lock_tests::Queued;
use lock_tests::servers::RedisServer;
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::time::{Instant, sleep};

use crate::support::{BOUND, LEASE, MARGIN, PATIENCE, RESPONSE_TIMEOUT, client, take};

/// What was recorded since the last look, in seconds.
fn headroom(metrics: &Snapshotter) -> Vec<f64> {
    let recorded = metrics.snapshot().into_vec().into_iter();
    let mut of_it = recorded.filter_map(|(key, _, _, value)| match value {
        DebugValue::Histogram(values)
            if key.kind() == MetricKind::Histogram
                && key.key().name() == "distributed_lock_renew_headroom_seconds" =>
        {
            Some(values.into_iter().map(|value| value.0).collect())
        }
        _ => None,
    });
    of_it.next().unwrap_or_default()
}

#[tokio::test]
async fn what_is_left_of_a_lease_when_it_is_renewed_is_measured() {
    let recorder = DebuggingRecorder::new();
    let metrics = recorder.snapshotter();
    recorder.install().unwrap();
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let guard = take(&here).await;
    let (began, queued) = (Instant::now(), Queued::here_and_there());
    sleep(2 * LEASE).await;
    let calm = headroom(&metrics);
    // What a busy machine takes.
    let queued = queued.since();
    let taken = (BOUND + queued).as_secs_f64();
    let at_best = (LEASE - MARGIN - LEASE / 3).as_secs_f64();
    // Three in a lease.
    let times = |time: Duration| usize::try_from(3 * time.as_millis() / LEASE.as_millis()).unwrap();
    let (least, most) = (
        times((2 * LEASE).saturating_sub(queued)).saturating_sub(2),
        times(began.elapsed()),
    );
    assert!((least..=most).contains(&calm.len()), "{calm:?}");
    // The first heartbeat is the backend's, which may come soon after the grant.
    for left in calm.iter().skip(1) {
        assert!((at_best - taken..at_best + 0.01).contains(left), "{calm:?}");
    }
    // A server that is slow leaves less.
    let slow = Duration::from_millis(600);
    let queued = Queued::here_and_there();
    let () = server.ask(&["CLIENT", "PAUSE", "600"]).await.unwrap();
    sleep(LEASE).await;
    let taken = (slow + BOUND + queued.since()).as_secs_f64();
    let left = headroom(&metrics).into_iter().fold(f64::MAX, f64::min);
    assert!(left < at_best && left > at_best - taken);
    guard.release().await.unwrap();
    // One may have been on its way, for as long as an answer is waited for.
    sleep(RESPONSE_TIMEOUT).await;
    headroom(&metrics);
    sleep(LEASE).await;
    assert_eq!(headroom(&metrics), [0.0; 0]);
}

#[tokio::test]
async fn connections_that_are_cut_again_and_again_cost_no_lock_of_a_healthy_server() {
    let server = RedisServer::start().await;
    // So that a busy machine has time for its own part in it.
    let lease = 3 * LEASE;
    let backend = RedisBackend::builder(&server.url())
        .lease(lease)
        .quarantine(Duration::ZERO);
    let here = LockProvider::new(backend.connect().await.unwrap());
    let names = (0..20).map(|id| LockName::new("order", "process", id).unwrap());
    let guards = here.acquire_all(names, PATIENCE).await.unwrap();
    let end = Instant::now() + 2 * lease;
    while Instant::now() < end {
        let _: u64 = server
            .ask(&["CLIENT", "KILL", "TYPE", "normal"])
            .await
            .unwrap();
        // Less than the time between two attempts to renew what was not renewed.
        sleep(lease / 32).await;
        assert!(guards.is_valid(), "lost on a server that answers");
    }
    guards.release().await.unwrap();
}
