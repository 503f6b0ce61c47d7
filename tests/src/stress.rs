//! Randomness that can be repeated, and callers that leave.

use std::env;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use lock_core::backend::TokioClock;
use lock_core::{FencingToken, LockError, LockGuard, LockName, LockProvider};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::checker::{Action, HEALED, Journal, Operation, Rules, Stage, Verdict, judge};

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

/// How long a lock is tried that is to be free.
const LONG: Duration = Duration::from_secs(20);

/// Locks that many callers want, who leave when they like.
#[derive(Clone, Debug)]
pub struct Storm {
    clients: Vec<LockProvider>,
    names: Vec<LockName>,
    journal: Journal,
}

impl Storm {
    /// Over these locks, from these clients.
    #[must_use]
    pub fn new(clients: Vec<LockProvider>, names: Vec<LockName>) -> Self {
        Self {
            clients,
            names,
            // By the clock of the runtime, which may stand still.
            journal: Journal::on_clock("", Arc::new(TokioClock::new())),
        }
    }

    /// Blows for some rounds, each of which is one call of one of the tasks, then checks that
    /// nothing is left: every lock can be acquired by every client, and every client ends immediately. What
    /// was written down meanwhile is judged.
    ///
    /// # Panics
    ///
    /// When something must not have happened, when a call ends as none may, or when something is
    /// left.
    pub async fn blow(&self, seed: u64, tasks: u64, rounds: u32) -> Verdict {
        let mut blowing = JoinSet::new();
        for task in 0..tasks {
            let (storm, mut rng) = (self.clone(), Rng::with_seed(seed.wrapping_add(task)));
            blowing.spawn(async move {
                for _ in 0..rounds {
                    let guards = storm.call(&mut rng).await;
                    for (guard, operation) in guards {
                        visit(guard, &operation, &mut rng).await;
                    }
                }
            });
        }
        blowing.join_all().await;
        let healed = self.journal.of("").named(HEALED, &"");
        healed.note(Action::Fault, Stage::Ok);
        for name in &self.names {
            for (number, client) in self.clients.iter().enumerate() {
                let (lock, operation) = (client.lock(name).unwrap(), self.operation(number, name));
                operation.ask(LONG);
                let guard = timeout(LONG, lock.acquire(Duration::MAX)).await;
                let guard = guard.unwrap_or_else(|_| panic!("{name} is stuck")).unwrap();
                operation.note(Action::Acquire, Stage::Ok);
                operation.note(Action::Release, Stage::Invoke);
                guard.release().await.unwrap();
                operation.note(Action::Release, Stage::Ok);
            }
        }
        for client in &self.clients {
            let end = timeout(LONG, client.shutdown(Duration::MAX)).await;
            end.expect("nothing is left to wait for");
        }
        judge(&self.journal.take(), &Rules::default().free_within(LONG)).assert_clean()
    }

    fn operation(&self, client: usize, name: &LockName) -> Operation {
        self.journal.of(&format!("client {client}")).operation(name)
    }

    /// One caller, who has more or less patience.
    async fn call(&self, rng: &mut Rng) -> Vec<(LockGuard, Operation)> {
        let number = rng.usize(..self.clients.len());
        let client = self.clients[number].clone();
        let name = rng.choice(&self.names).unwrap();
        let lock = client.lock(name).unwrap();
        let wait = Duration::from_micros(rng.u64(0..20_000));
        let patience = Duration::from_micros(rng.u64(0..5_000));
        let how = rng.u8(0..10);
        let names: Vec<&LockName> = match how {
            0..=6 => vec![name],
            7 => self.names.iter().collect(),
            _ => rng.choose_multiple(&self.names, 3),
        };
        let operations: Vec<_> = (names.iter())
            .map(|name| (*name, self.operation(number, name)))
            .collect();
        for (_, operation) in &operations {
            operation.ask(wait);
        }
        let one = |result: Result<LockGuard, LockError>| result.map(|guard| vec![guard]);
        let result = match how {
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
                let all = timeout(patience, client.acquire_all(names, wait)).await;
                let all = all.ok();
                all.map(|result| result.map(|guards| guards.into_iter().collect()))
            }
        };
        let (guards, otherwise) = match result {
            Some(Ok(guards)) => (guards, Stage::Fail),
            Some(Err(error)) if error.is_contended() => (Vec::new(), Stage::Fail),
            Some(Err(error)) if error.is_unavailable() => (Vec::new(), Stage::Info),
            Some(Err(error)) => panic!("{error}"),
            // Left: it may have been granted, and goes back.
            None => (Vec::new(), Stage::Info),
        };
        let mut granted = Vec::new();
        for guard in guards {
            let of_it = |(name, _): &&(&LockName, Operation)| *name == guard.name();
            let (_, operation) = operations.iter().find(of_it).expect("it was asked for");
            operation.note(Action::Acquire, Stage::Ok);
            granted.push((guard, operation.clone()));
        }
        for (name, operation) in &operations {
            if !granted.iter().any(|(guard, _)| guard.name() == *name) {
                operation.note(Action::Acquire, otherwise);
            }
        }
        granted
    }
}

/// What is done with a lock, and how it is given back.
async fn visit(guard: LockGuard, operation: &Operation, rng: &mut Rng) {
    let token = match rng.bool() {
        true => guard.fencing_token().await.ok().map(FencingToken::get),
        false => None,
    };
    if rng.bool() {
        tokio::time::sleep(Duration::from_micros(rng.u64(0..300))).await;
    }
    assert!(guard.is_valid());
    operation.note_token(Action::Release, Stage::Invoke, token);
    let released = match rng.u8(0..3) {
        0 => {
            drop(guard);
            None
        }
        1 => abandon(guard.release(), rng.u32(0..3)).await,
        _ => Some(guard.release().await),
    };
    let stage = released.map_or(Stage::Info, |released| {
        released.unwrap();
        Stage::Ok
    });
    operation.note(Action::Release, stage);
}
