//! Releases and acquires: batches on their way, and what their answers mean.

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, Value};
use tokio::time::Instant;

use super::backend::{PATIENCE, RedisGrant};
use super::builder::Settings;
use super::clock::Jump;
use super::command::{Acquire, Command, Probe, Release};
use super::driver::Driver;
use super::key::millis;
use super::scripts::{EXCHANGE, Failure};
use super::shared::HeldLock;
use crate::LockError;
use crate::backend::{Attempt, Lease};

/// How long a lock that others wait for is left to them before this process asks for it again.
pub(super) const HAND_OVER: Duration = Duration::from_millis(5);

/// Between copies of a release that the server refused.
const AGAIN: Duration = Duration::from_millis(50);

/// What travels in one call.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) releases: Vec<Release>,
    pub(super) acquires: Vec<Acquire>,
    pub(super) probes: Vec<Probe>,
    pub(super) jumped: bool,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.releases.is_empty()
            && self.acquires.is_empty()
            && self.probes.is_empty()
            && !self.jumped
    }

    pub(super) fn call(
        &self,
        settings: &Settings,
        server_key: &str,
        not_after: u64,
        newest: u64,
        is_cluster: bool,
    ) -> Cmd {
        let locks = || {
            let releases = self.releases.iter().map(|r| (&r.key, r.owner));
            releases.chain(self.acquires.iter().map(|a| (&a.key, a.owner)))
        };
        let mut call = EXCHANGE.call(1 + self.releases.len() + self.acquires.len());
        call.arg(server_key);
        locks().for_each(|(key, _)| {
            call.arg(&*key.text);
        });
        call.arg(not_after)
            .arg(millis(settings.lease))
            .arg(millis(settings.quarantine))
            .arg(newest)
            // In a cluster the message stays on the node of the lock.
            .arg(if is_cluster { "SPUBLISH" } else { "PUBLISH" })
            .arg(self.releases.len())
            .arg(u8::from(self.jumped))
            .arg(u8::from(!self.probes.is_empty()));
        locks().for_each(|(_, owner)| {
            call.arg(&owner.text()[..]);
        });
        call
    }

    /// Notes that the server may take this later.
    pub(super) fn mark_sent(&mut self, sent: Duration) {
        for acquire in &mut self.acquires {
            acquire.ghost = Some(sent + PATIENCE);
        }
        for release in &mut self.releases {
            release.sent_before = true;
        }
    }
}

/// An answer for one lock.
fn number(value: Option<Value>) -> Result<i64, String> {
    match value {
        Some(Value::Int(number)) => Ok(number),
        Some(Value::BulkString(text)) => Err(String::from_utf8_lossy(&text).into_owned()),
        _ => Err("an answer that is none".to_owned()),
    }
}

impl Driver {
    pub(super) fn answered(
        &mut self,
        lane: usize,
        sent: Duration,
        batch: Batch,
        values: Vec<Value>,
    ) {
        let mut values = values.into_iter();
        let (Ok(time), left) = (number(values.next()), number(values.next())) else {
            return self.failed(lane, batch, Failure::Unknown(None));
        };
        let jump = self.saw_time(lane, sent, time.unsigned_abs());
        for release in batch.releases {
            let answer = number(values.next());
            self.release_answered(release, answer);
        }
        for acquire in batch.acquires {
            let answer = number(values.next());
            if jump == Some(Jump::Forward) {
                // Whoever held it may think so still.
                let retry_in = Some(self.shared.settings.quarantine);
                self.undo(lane, &acquire);
                let _ = acquire.reply.send(Ok(Attempt::Held { retry_in }));
            } else {
                self.acquire_answered(lane, sent, acquire, answer);
            }
        }
        if let Ok(left @ 1..) = left {
            self.in_quarantine(Duration::from_millis(left.unsigned_abs()));
        }
        for probe in batch.probes {
            let answer = left.as_ref().map(|_| ()).map_err(|error| {
                LockError::unavailable("the Redis server cannot grant locks")
                    .with_source(error.clone())
            });
            let _ = probe.send(answer);
        }
    }

    fn release_answered(&mut self, mut release: Release, answer: Result<i64, String>) {
        match answer {
            Ok(heard @ 1..) => {
                let ours = i64::from(self.shared.waiting.is_subscribed(&release.key));
                if heard - 1 > ours {
                    self.hand_over(&release);
                }
                release.answer(Ok(()));
            }
            Ok(_) => {
                if let Some(ghost) = release.ghost.take() {
                    // A copy of the acquire may come after its undoing.
                    let now = self.shared.clock.now();
                    if ghost > now {
                        let at = Instant::now() + (ghost - now) + HAND_OVER;
                        return self.park(at, Command::Release(release));
                    }
                }
                // The copy before did it, or it was not ours any more.
                let was_ours = (release.reply.as_ref()).is_some_and(|(_, lease)| lease.is_valid());
                let done = release.sent_before && was_ours;
                release.answer(if done { Ok(()) } else { Err(taken_away()) });
            }
            // Something else is under its key.
            Err(_) => {
                release.answer(Err(taken_away()));
            }
        }
    }

    fn acquire_answered(
        &mut self,
        lane: usize,
        sent: Duration,
        acquire: Acquire,
        answer: Result<i64, String>,
    ) {
        let answer = match answer {
            Ok(token @ 1..) => return self.granted(lane, sent, acquire, token.unsigned_abs()),
            // Too late by the server's clock, which we know now.
            Ok(0) => return self.retry(lane, acquire, None, LockError::unanswered),
            Ok(wait) => {
                if acquire.ghost.is_some() {
                    // In quarantine it can be ours.
                    self.undo(lane, &acquire);
                }
                Ok(Attempt::Held {
                    retry_in: Some(Duration::from_millis(wait.unsigned_abs())),
                })
            }
            Err(error) => {
                Err(LockError::unavailable("the Redis server refused to lock").with_source(error))
            }
        };
        // Nobody may wait any more.
        let _ = acquire.reply.send(answer);
    }

    fn granted(&mut self, lane: usize, sent: Duration, acquire: Acquire, token: u64) {
        self.newest = self.newest.max(token);
        let settings = &self.shared.settings;
        let lease = Lease::until(
            Arc::clone(&self.shared.clock),
            settings.valid_until(sent),
            settings.heartbeat(),
        );
        if !lease.is_valid() {
            self.undo(lane, &acquire);
            let _ = acquire.reply.send(Err(LockError::unanswered()));
            return;
        }
        self.shared.held.insert(HeldLock {
            key: acquire.key.clone(),
            owner: acquire.owner,
            lease: lease.clone(),
        });
        let grant = RedisGrant::new(&acquire, token, lease);
        // Wanted by nobody any more, it comes back and is dropped, which releases it.
        drop(acquire.reply.send(Ok(Attempt::Granted(grant))));
    }

    /// What to do with a batch that has no answer.
    pub(super) fn failed(&mut self, lane: usize, mut batch: Batch, failure: Failure) {
        let refused = matches!(failure, Failure::Refused(_));
        let moved = failure.is_elsewhere();
        if !refused {
            // `sent` is not after now.
            batch.mark_sent(self.shared.clock.now());
        }
        if moved {
            self.look_for_nodes(lane);
        }
        let reason = failure.to_string();
        let error =
            || LockError::unavailable("the Redis server did not do it").with_source(reason.clone());
        for release in batch.releases {
            if refused {
                self.park(Instant::now() + AGAIN, Command::Release(release));
            } else {
                self.lanes[lane].releases.push_back(release);
            }
        }
        for acquire in batch.acquires {
            if moved {
                self.retry(lane, acquire, Some(HAND_OVER), error);
            } else if refused {
                self.give_up(lane, acquire, error());
            } else {
                self.retry(lane, acquire, None, error);
            }
        }
        for probe in batch.probes {
            let _ = probe.send(Err(error()));
        }
        self.lanes[lane].jumped |= batch.jumped;
    }

    /// Tries again, at once or after this long, unless it is too late.
    fn retry(
        &mut self,
        lane: usize,
        acquire: Acquire,
        after: Option<Duration>,
        error: impl FnOnce() -> LockError,
    ) {
        if acquire.until <= self.shared.clock.now() || acquire.reply.is_closed() {
            return self.give_up(lane, acquire, error());
        }
        match after {
            Some(after) => self.park(Instant::now() + after, Command::Acquire(acquire)),
            None => self.lanes[lane].acquires.push_back(acquire),
        }
    }

    /// Answers with an error, and undoes what may have been done.
    pub(super) fn give_up(&mut self, lane: usize, acquire: Acquire, error: LockError) {
        if acquire.ghost.is_some() {
            self.undo(lane, &acquire);
        }
        let _ = acquire.reply.send(Err(error));
    }

    fn undo(&mut self, lane: usize, acquire: &Acquire) {
        let until = self.shared.clock.now() + self.shared.settings.lease;
        let release = Release::undo(acquire, until);
        self.lanes[lane].releases.push_back(release);
    }

    /// Takes note of a server's time.
    pub(super) fn saw_time(&mut self, lane: usize, sent: Duration, time: u64) -> Option<Jump> {
        let node = self.lanes[lane].node;
        let (received, margin) = (self.shared.clock.now(), self.shared.settings.margin());
        let jump = self.nodes[node].clock.observe(sent, received, time, margin);
        if jump == Some(Jump::Forward) {
            self.jumped(node);
        }
        jump
    }
}

fn taken_away() -> LockError {
    LockError::lost("it was taken away in the store")
}
