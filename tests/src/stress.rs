//! Randomness that can be repeated, and callers that leave.

use std::env;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use lock_core::{LockError, LockGuard, LockName, LockProvider};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Sets the seed of a stress test.
const SEED: &str = "LOCK_TEST_SEED";

/// The seed of this run: from the environment, or a new one. It is printed, for the case that the
/// test fails.
#[must_use]
#[allow(clippy::print_stderr, reason = "shown when a test fails")]
pub fn seed() -> u64 {
    let given = env::var(SEED)
        .ok()
        .map(|seed| seed.parse().expect("the seed is a number"));
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("repeat with {SEED}={seed}");
    seed
}

/// Polls a future no more than `polls` times and drops it; its output if it came that far.
pub async fn abandon<F: Future>(future: F, polls: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Locks that many callers want, who leave when they like.
#[derive(Clone, Debug)]
pub struct Storm {
    clients: Vec<LockProvider>,
    names: Vec<LockName>,
    /// Who is inside, by the position of the name.
    inside: Arc<[AtomicBool]>,
}

impl Storm {
    /// Over these locks, from these clients.
    #[must_use]
    pub fn new(clients: Vec<LockProvider>, names: Vec<LockName>) -> Self {
        let inside = names.iter().map(|_| AtomicBool::new(false)).collect();
        Self {
            clients,
            names,
            inside,
        }
    }

    /// Blows for some rounds, each of which is one call of one of the tasks, and then checks that
    /// nothing is left: every lock can be had by every client, and every client ends at once.
    ///
    /// # Panics
    ///
    /// When two are inside at once, when a call ends as none may, or when something is left.
    pub async fn blow(&self, seed: u64, tasks: u64, rounds: u32) {
        let mut blowing = JoinSet::new();
        for task in 0..tasks {
            let (storm, mut rng) = (self.clone(), Rng::with_seed(seed.wrapping_add(task)));
            blowing.spawn(async move {
                for _ in 0..rounds {
                    let guards = storm.call(&mut rng).await;
                    for guard in guards {
                        storm.visit(guard, &mut rng).await;
                    }
                }
            });
        }
        blowing.join_all().await;
        for name in &self.names {
            for client in &self.clients {
                let lock = client.lock(name).unwrap();
                let guard = timeout(Duration::from_secs(20), lock.acquire(Duration::MAX)).await;
                let guard = guard.unwrap_or_else(|_| panic!("{name} is stuck")).unwrap();
                guard.release().await.unwrap();
            }
        }
        for client in &self.clients {
            let end = timeout(Duration::from_secs(20), client.shutdown(Duration::MAX)).await;
            end.expect("nothing is left to wait for");
        }
    }

    /// One caller, who has more or less patience.
    async fn call(&self, rng: &mut Rng) -> Vec<LockGuard> {
        let client = rng.choice(&self.clients).unwrap().clone();
        let lock = client.lock(rng.choice(&self.names).unwrap()).unwrap();
        let wait = Duration::from_micros(rng.u64(0..20_000));
        let patience = Duration::from_micros(rng.u64(0..5_000));
        let one = |result: Result<LockGuard, LockError>| result.map(|guard| vec![guard]);
        let result = match rng.u8(0..10) {
            0..4 => timeout(patience, lock.acquire(wait)).await.ok().map(one),
            4 => Some(one(lock.acquire(wait).await)),
            5 => abandon(lock.acquire(wait), rng.u32(0..4)).await.map(one),
            6 => {
                let task = tokio::spawn(async move { lock.acquire(wait).await });
                tokio::time::sleep(patience).await;
                task.abort();
                task.await.ok().map(one)
            }
            7 => timeout(patience, client.claim(&self.names, 2)).await.ok(),
            _ => {
                let names = rng.choose_multiple(&self.names, 3);
                let all = timeout(patience, client.acquire_all(names, wait))
                    .await
                    .ok();
                all.map(|result| result.map(|guards| guards.into_iter().collect()))
            }
        };
        match result {
            Some(Ok(guards)) => guards,
            Some(Err(error)) if error.is_contended() || error.is_unavailable() => Vec::new(),
            Some(Err(error)) => panic!("{error}"),
            None => Vec::new(),
        }
    }

    /// What is done with a lock, and how it is given back.
    async fn visit(&self, guard: LockGuard, rng: &mut Rng) {
        let position = self
            .names
            .iter()
            .position(|name| name == guard.name())
            .unwrap();
        let inside = &self.inside[position];
        assert!(
            !inside.swap(true, Ordering::SeqCst),
            "two are inside {}",
            guard.name()
        );
        if rng.bool() {
            tokio::time::sleep(Duration::from_micros(rng.u64(0..300))).await;
        }
        assert!(guard.is_valid());
        inside.store(false, Ordering::SeqCst);
        match rng.u8(0..3) {
            0 => drop(guard),
            1 => drop(abandon(guard.release(), rng.u32(0..3)).await),
            _ => guard.release().await.unwrap(),
        }
    }
}
