//! One client under stress: acquire, token, fenced writes, release, and all of it written down.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use lock_core::{LockMode, LockName};
use tokio::select;
use tokio::time::{Instant, sleep, timeout_at};

use super::locks::{Held, Locks};
use super::resource::Resource;
use crate::checker::{Action, Journal, Operation, Stage};

/// How long a worker lets a store alone that did not answer.
const RESPITE: Duration = Duration::from_millis(20);

/// How long a worker holds on before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// The name of the fault that a [pausing](Worker::pausing) worker makes.
pub const PAUSE: &str = "pause";

/// A client that takes locks in turns, in an order of chance.
#[derive(Debug)]
pub struct Worker<L, R> {
    /// What it locks with.
    pub locks: L,
    /// What it writes to while it has the lock.
    pub resource: R,
    /// Where it writes down what it does.
    pub journal: Journal,
    /// The locks.
    pub names: Vec<LockName>,
    /// How it holds them.
    pub mode: LockMode,
    /// Its choices.
    pub rng: Rng,
    /// Every how many holds it stands still, and for how long, as a frozen process does.
    pub pausing: Option<(u32, Duration)>,
    /// One of how many holds is a long one, and how long at most: it is renewed, and what is broken
    /// meanwhile costs it.
    pub lingering: Option<(u32, Duration)>,
}

impl<L: Locks, R: Resource> Worker<L, R> {
    /// Works until it is asked to stop, then gives back what it has.
    ///
    /// # Panics
    ///
    /// On an error that no fault explains.
    pub async fn work(mut self, stop: Arc<AtomicBool>) {
        let mut holds = 0;
        while !stop.load(Ordering::Relaxed) {
            let name = self
                .rng
                .choice(&self.names)
                .expect("there are locks")
                .clone();
            let wait = Duration::from_millis(self.rng.u64(0..1_500));
            let asked = self.journal.now();
            // Which of several slots it is for is known with the grant.
            let asking = (!L::HAS_SLOTS).then(|| self.ask(&name, asked, wait));
            match self.locks.acquire(&name, self.mode, wait).await {
                Ok(Some(held)) => {
                    holds += 1;
                    let name = held.slot().cloned().unwrap_or(name);
                    let operation = asking.unwrap_or_else(|| self.ask(&name, asked, wait));
                    // What was over before it came, in a process that was frozen, was held for no time.
                    let now = self.journal.now();
                    let is_over = held.remaining().is_some_and(|left| left.is_zero());
                    let until = if is_over {
                        Some(now)
                    } else {
                        self.until(&held)
                    };
                    operation.note_until(Action::Acquire, Stage::Ok, until);
                    let pause = self.pausing.filter(|(every, _)| holds % every == 0);
                    let pause = pause.map(|(_, lasts)| lasts);
                    self.hold(&name, held, &operation, pause, &stop).await;
                }
                Ok(None) => {
                    if let Some(asking) = asking {
                        asking.note(Action::Acquire, Stage::Fail);
                    }
                }
                Err(error) if error.is_unavailable() => {
                    if let Some(asking) = asking {
                        asking.note(Action::Acquire, Stage::Info);
                    }
                    sleep(RESPITE).await;
                }
                Err(error) => panic!("{error}: {error:?}"),
            }
        }
    }

    fn ask(&self, name: &LockName, at: u64, wait: Duration) -> Operation {
        let is_reader = self.mode == LockMode::Shared;
        let operation = self.journal.operation(name).shared(is_reader);
        operation.asked(at, wait);
        operation
    }

    /// Works under a lock, and gives it back.
    async fn hold(
        &mut self,
        name: &LockName,
        held: L::Held,
        operation: &Operation,
        pause: Option<Duration>,
        stop: &AtomicBool,
    ) {
        let token = match self.mode {
            // It reads, and writes nothing.
            LockMode::Shared => None,
            _ => held.token().await.ok(),
        };
        if let Some(lasts) = pause {
            let fault = self.journal.named(PAUSE, name);
            fault.note(Action::Fault, Stage::Invoke);
            sleep(lasts).await;
            fault.note(Action::Fault, Stage::Ok);
        }
        let (mut is_ours, mut is_told) = (held.is_valid(), false);
        let patience = self.patience();
        for _ in 0..self.rng.u8(1..=3) {
            if !is_ours {
                break;
            }
            self.write(name, &held, operation, token, &mut is_told)
                .await;
            is_ours = !is_told;
            let until = Instant::now() + patience.mul_f64(self.rng.f64());
            // A long hold ends soon after it was asked to stop.
            while is_ours && !stop.load(Ordering::Relaxed) && Instant::now() < until {
                let look = until.min(Instant::now() + LOOK);
                is_ours = timeout_at(look, held.lost()).await.is_err();
            }
        }
        if !is_ours {
            if !is_told {
                operation.note(Action::Lost, Stage::Ok);
                is_told = true;
            }
            // As a holder does that does not look: the resource has to refuse it.
            self.write(name, &held, operation, token, &mut is_told)
                .await;
            if held.is_valid() {
                operation.note(Action::Lost, Stage::Fail);
            }
        }
        operation.note_token(Action::Release, Stage::Invoke, token);
        let stage = match held.release().await {
            Ok(()) => Stage::Ok,
            Err(error) if error.is_lost() => Stage::Fail,
            Err(_) => Stage::Info,
        };
        operation.note(Action::Release, stage);
    }

    /// How long it works at most between two looks at the lock. Most holds are short; some are long
    /// enough for a fault to meet them.
    fn patience(&mut self) -> Duration {
        match self.lingering {
            Some((of, lasts)) if self.rng.u32(..of) == 0 => lasts,
            _ if self.rng.u8(..16) == 0 => Duration::from_millis(100),
            _ => Duration::from_millis(2),
        }
    }

    /// Writes. A loss is written down when it is signalled, also while another process keeps the
    /// resource.
    async fn write(
        &self,
        name: &LockName,
        held: &L::Held,
        operation: &Operation,
        token: Option<u64>,
        is_told: &mut bool,
    ) {
        let Some(token) = token else { return };
        let until = self.until(held);
        operation.write(Action::Write, Stage::Invoke, Some(token), until);
        let mut writing = pin!(self.resource.write(name, token));
        let written = select! {
            biased;
            written = &mut writing => written,
            () = held.lost(), if !*is_told => {
                operation.note(Action::Lost, Stage::Ok);
                *is_told = true;
                writing.await
            }
        };
        let stage = match written {
            Ok(true) => Stage::Ok,
            Ok(false) => Stage::Fail,
            Err(_) => Stage::Info,
        };
        operation.note(Action::Write, stage);
    }

    /// Until when the lock is ours, or earlier: the clock is read first, since the process can be
    /// frozen in between. `None` also when that is over.
    fn until(&self, held: &L::Held) -> Option<u64> {
        let now = self.journal.now();
        let left = held.remaining().filter(|left| !left.is_zero())?;
        let left = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
        Some(now.saturating_add(left))
    }
}
