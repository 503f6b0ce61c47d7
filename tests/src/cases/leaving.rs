//! Callers that leave.

use std::time::Duration;

use fastrand::Rng;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::{PATIENCE, wait_for};
use crate::{Harness, Storm, seed};

/// How many runtimes end, one after the other.
const RUNTIMES: u32 = 100;

/// Under load, at any time, in every way.
pub async fn acquires_that_are_dropped_at_random_times_leak_nothing(harness: Harness) {
    let clients = vec![harness.client().await, harness.client().await];
    let names = (0..4).map(|_| harness.name()).collect();
    Storm::new(clients, names).blow(seed(), 16, 60).await;
}

/// As those of tests do, or of a program that makes one for each call.
pub async fn runtimes_that_end_in_the_middle_of_an_acquire_leak_nothing(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    let (client, held) = (here.clone(), name.clone());
    let mut random = Rng::with_seed(seed());
    let ended = tokio::task::spawn_blocking(move || {
        for _ in 0..RUNTIMES {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let lock = client.lock(held.clone()).unwrap();
            let acquire = lock.acquire(PATIENCE);
            let moment = Duration::from_micros(random.u64(0..2_000));
            // Granted, refused, on its way or not begun, and the guard of one that was granted.
            let acquired = runtime.block_on(timeout(moment, acquire));
            drop(runtime);
            drop(acquired);
        }
    });
    ended.await.unwrap();
    for client in [&there, &here] {
        wait_for(client, &name).await.release().await.unwrap();
    }
}
