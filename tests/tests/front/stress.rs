//! A storm of callers who leave, over a backend whose answers come late or never.

use std::time::Duration;

use fastrand::Rng;
use lock_core::LockName;
use lock_tests::scripted_backend::{Play, ScriptedBackend};
use lock_tests::{Storm, seed};

use crate::support::{ms, s};

/// Answers of every kind, many of them.
fn tricks(seed: u64, count: usize) -> Vec<Play> {
    let mut rng = Rng::with_seed(seed);
    let mut play = || {
        let delay = Duration::from_micros(rng.u64(0..4_000));
        match rng.u8(0..10) {
            0..3 => Play::Answer,
            3..5 => Play::Late(delay),
            5..8 => Play::DoneThenLate(delay),
            8 => Play::Fail("down"),
            _ => Play::FailLate(delay, "down"),
        }
    };
    (0..count).map(|_| play()).collect()
}

async fn storm(clients: usize, names: usize) {
    let seed = seed();
    let scripted = ScriptedBackend::new();
    scripted.tries(tricks(seed, 4_000));
    scripted.every_release(Play::Late(Duration::from_micros(500)));
    let clients = (0..clients).map(|_| scripted.client()).collect();
    let names = (0..names)
        .map(|number| LockName::new("test", "storm", number).unwrap())
        .collect();
    Storm::new(clients, names).blow(seed, 16, 100).await;
    tokio::time::sleep(ms(100)).await;
    assert_eq!(scripted.held(), 0);
    assert_eq!(
        scripted.most_under_way(),
        1,
        "one question for a name at a time"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_one_client_who_leave_leak_nothing() {
    storm(1, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_several_clients_who_leave_leak_nothing() {
    storm(3, 4).await;
}

/// On a clock that stands still, so that one seed gives one run.
#[tokio::test(start_paused = true)]
async fn a_storm_that_can_be_repeated_leaks_nothing() {
    for _ in 0..5 {
        tokio::time::timeout(s(3_600), storm(2, 3)).await.unwrap();
    }
}
