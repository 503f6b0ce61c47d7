//! What is to be sent of the keys that can share a request.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::tries::Tries;
use crate::LockError;
use crate::server::leased::{Acquire, Claim, Probe, Release};
use crate::server::protocol::{Batch, Protocol};

pub(super) struct Lane<P: Protocol> {
    pub(super) releases: VecDeque<Release<P::Key>>,
    pub(super) acquires: VecDeque<Acquire<P::Waiters>>,
    pub(super) claims: VecDeque<Claim<P::Waiters>>,
    pub(super) probes: Vec<Probe>,
    /// Until when nothing is sent.
    pub(super) rests_until: Option<Instant>,
    /// How many requests are not answered yet.
    pub(super) in_flight: usize,
    /// Whether the last request was for a claim: they take turns with acquires.
    claimed: bool,
}

impl<P: Protocol> Lane<P> {
    pub(super) const fn new() -> Self {
        Self {
            releases: VecDeque::new(),
            acquires: VecDeque::new(),
            claims: VecDeque::new(),
            probes: Vec::new(),
            rests_until: None,
            in_flight: 0,
            claimed: false,
        }
    }

    /// Whether no user has left something to send.
    pub(super) fn is_empty(&self) -> bool {
        self.releases.is_empty()
            && self.acquires.is_empty()
            && self.claims.is_empty()
            && self.probes.is_empty()
    }

    /// Whether nothing is sent for now.
    pub(super) fn rests(&mut self) -> bool {
        let rests = self.rests_until.is_some_and(|until| until > Instant::now());
        if !rests {
            self.rests_until = None;
        }
        rests
    }

    /// What goes into the next request.
    pub(super) fn take(
        &mut self,
        extra: Option<P::Extra>,
        tries: &mut Tries<P::Key>,
        now: Duration,
    ) -> Batch<P> {
        let releases = self.releases.len().min(P::BATCH);
        let mut batch = Batch {
            releases: self.releases.drain(..releases).collect(),
            acquires: Vec::new(),
            limit: None,
            probes: std::mem::take(&mut self.probes),
            extra,
        };
        let is_turn = !self.claimed || self.acquires.is_empty();
        let claim = self.claims.pop_front_if(|_| is_turn);
        self.claimed = claim.is_some();
        if let Some(claim) = claim {
            batch.limit = Some(claim.limit);
            batch.acquires = claim.acquires;
            return batch;
        }
        while batch.locks() < P::BATCH {
            match self.acquires.pop_front() {
                // No caller waits for it.
                Some(acquire) if acquire.reply.is_closed() => {}
                Some(acquire) => {
                    if acquire.is_for_waiters() {
                        tries.begin(&acquire.key, now);
                    }
                    batch.acquires.push(acquire);
                }
                None => break,
            }
        }
        batch
    }

    /// Gives up what is too late.
    pub(super) fn expire(&mut self, now: Duration) {
        while let Some(acquire) = (self.acquires).pop_front_if(|acquire| acquire.until <= now) {
            acquire.reply.send(Err(LockError::unanswered()));
        }
        while let Some(claim) = self.claims.pop_front_if(|claim| claim.until() <= now) {
            claim.fail(LockError::unanswered);
        }
        while let Some(release) = (self.releases).pop_front_if(|release| release.until <= now) {
            release.answer(Err(LockError::unanswered()));
        }
    }

    /// Answers all but the releases with such an error.
    pub(super) fn refuse(&mut self, error: impl Fn() -> LockError) {
        for acquire in std::mem::take(&mut self.acquires) {
            acquire.reply.send(Err(error()));
        }
        for claim in std::mem::take(&mut self.claims) {
            claim.fail(&error);
        }
        for probe in std::mem::take(&mut self.probes) {
            let _ = probe.send(Err(error()));
        }
    }

    /// When the first is too late, on CLOCK_BOOTTIME.
    pub(super) fn first_late(&self) -> Option<Duration> {
        let acquire = self.acquires.front().map(|acquire| acquire.until);
        let claim = self.claims.front().map(Claim::until);
        acquire.into_iter().chain(claim).min()
    }
}
