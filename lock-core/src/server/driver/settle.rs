//! What an answer, or none, means for the callers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Driver;
use super::tries::ANSWERED_WITHIN;
use crate::backend::{Attempt, Lease};
use crate::hand_over::HAND_OVER;
use crate::server::leased::{
    Acquire, Answer, Claim, Command, Given, HeldLock, KeyGrant, Release, Reply, Token, WaiterTable,
};
use crate::server::protocol::{
    Acquired, Batch, Failed, Issued, Protocol, Refusal, Released, Renewal, Sent, Settling, Then,
};
use crate::server::terms::PATIENCE;
use crate::{LockError, LossReason, observe};

/// Between copies of a release that the server refused.
const RELEASE_AGAIN: Duration = Duration::from_millis(50);

/// What one caller is answered, and where. Dropped, a grant is released.
enum Answered<P: Protocol> {
    Release(Release<P::Key>, Result<(), LockError>),
    Granted(KeyGrant<P::Key>, Reply<P::Waiters>),
    Refused(Reply<P::Waiters>, Answer<P::Key>),
}

impl<P: Protocol> Driver<P> {
    pub(super) fn answered(&mut self, sent: Sent, batch: Batch<P>, mut answers: P::Answers) {
        let Self {
            protocol, effects, ..
        } = self;
        let settling = protocol.answered(sent, &batch, &mut answers, effects);
        // Locks that are lost are so before any is granted.
        self.apply_effects();
        let Batch {
            releases,
            acquires,
            limit,
            probes,
            extra: _,
        } = batch;
        let tries = keys_of_tries(&acquires);
        let mut places = 1..;
        let mut replies = Vec::with_capacity(releases.len() + acquires.len());
        for (release, place) in releases.into_iter().zip(&mut places) {
            let released = self.protocol.released(&release, place, &mut answers);
            replies.extend(self.release_answered(sent, release, released));
        }
        match settling {
            Settling::Each => {
                for (acquire, place) in acquires.into_iter().zip(places) {
                    let acquired = (self.protocol).acquired(sent, &acquire, place, &mut answers);
                    replies.extend(self.acquire_answered(sent, acquire, acquired, limit.is_some()));
                }
            }
            Settling::Later(after) => {
                let now = self.users.clock.now();
                self.pending.put_off(sent.lane, acquires, limit, after, now);
            }
        }
        // The others of the batch were settled while these were on their way.
        tries.iter().for_each(|key| self.tries.end(key));
        // All in a row: a worker of the application that is woken for the first finds the others, and does
        // not sleep again between two of them.
        for reply in replies {
            self.reply(sent, reply);
        }
        for probe in probes {
            match self.protocol.probed(sent, &answers) {
                Ok(()) => self.protocol.give(sent, Given::Probe(probe)),
                Err(error) => drop(probe.send(Err(error))),
            }
        }
    }

    fn reply(&mut self, sent: Sent, reply: Answered<P>) {
        match reply {
            Answered::Release(release, answer) => release.answer(answer),
            Answered::Granted(grant, to) => self.protocol.give(sent, Given::Grant(grant, to)),
            Answered::Refused(to, answer) => to.send(answer),
        }
    }

    fn release_answered(
        &mut self,
        sent: Sent,
        mut release: Release<P::Key>,
        released: Released,
    ) -> Option<Answered<P>> {
        let answer = match released {
            Released::Free { is_awaited } => {
                if is_awaited {
                    self.pending.hand_over(&release.key);
                }
                Ok(())
            }
            Released::Missing => {
                // The copy before did it, or it was not ours any more: a server that was started
                // since has forgotten which.
                let was_ours = (release.reply.as_ref()).is_some_and(|(_, lease)| lease.is_valid());
                let done = release.sent_to == Some(sent.link.server) && was_ours;
                if done { Ok(()) } else { Err(taken_away()) }
            }
            Released::Taken => Err(taken_away()),
            Released::Again => {
                (self.pending).delay(RELEASE_AGAIN, Command::Release(release));
                return None;
            }
            Released::Failed(error) => Err(error),
        };
        if self.tries.has_strays() {
            self.tries.released(release.owner, self.users.clock.now());
        }
        if release.ghost.is_some()
            && let Some((after, again)) = release.again(self.users.clock.now())
        {
            self.pending
                .delay(after + HAND_OVER, Command::Release(again));
        }
        Some(Answered::Release(release, answer))
    }

    fn acquire_answered(
        &mut self,
        sent: Sent,
        acquire: Acquire<P::Waiters>,
        acquired: Acquired,
        is_claim: bool,
    ) -> Option<Answered<P>> {
        let refusal = match acquired {
            Acquired::Granted(token) => return self.granted(sent, acquire, token),
            Acquired::Again if is_claim => Refusal::Error(LockError::unanswered()),
            Acquired::Again => {
                self.try_again(sent, acquire, None);
                return None;
            }
            Acquired::Refused(Refusal::Held { .. })
                if self.may_be_ours(sent, &acquire, is_claim) =>
            {
                self.try_again(sent, acquire, Some(HAND_OVER));
                return None;
            }
            Acquired::Refused(refusal) => refusal,
            Acquired::Void(refusal) => {
                self.undo(sent.lane, &acquire, None);
                refusal
            }
        };
        let answer = match refusal {
            Refusal::Held { retry_in } => Ok(Attempt::Held { retry_in }),
            Refusal::Error(error) => Err(error),
        };
        Some(Answered::Refused(acquire.reply, answer))
    }

    fn try_again(&mut self, sent: Sent, acquire: Acquire<P::Waiters>, after: Option<Duration>) {
        let (lane, now) = (sent.lane, self.users.clock.now());
        (self.pending).retry(lane, acquire, after, now, LockError::unanswered);
    }

    /// Whether a caller was refused by a try for waiters that have left. One that waits itself is not kept: what
    /// the try is granted is left to it.
    fn may_be_ours(&self, sent: Sent, acquire: &Acquire<P::Waiters>, is_claim: bool) -> bool {
        let now = self.users.clock.now();
        let was_asked_for = (now + PATIENCE).saturating_sub(acquire.until);
        !is_claim
            && !acquire.is_for_waiters()
            && was_asked_for < ANSWERED_WITHIN
            && self.tries.may_have_refused(&acquire.key, sent.at, now)
            && !self.users.waiters.is_waited_for(&acquire.key)
    }

    fn granted(
        &mut self,
        sent: Sent,
        acquire: Acquire<P::Waiters>,
        token: u64,
    ) -> Option<Answered<P>> {
        let lease = Lease::until(
            Arc::clone(&self.users.clock),
            self.protocol.valid_until(sent),
            self.users.terms.heartbeat(),
        );
        if !lease.is_valid() {
            self.undo(sent.lane, &acquire, None);
            let unanswered = Err(LockError::unanswered());
            return Some(Answered::Refused(acquire.reply, unanswered));
        }
        if acquire.is_for_waiters() && acquire.reply.is_closed() {
            self.undo(sent.lane, &acquire, None);
            return None;
        }
        let kept_until = (acquire.at_least).map(|at_least| self.users.clock.now() + at_least);
        self.users.held.insert(HeldLock {
            key: acquire.key.clone(),
            owner: acquire.owner,
            lease: lease.clone(),
            server: sent.link.server,
            kept_until,
        });
        let grant = acquire.grant(token, lease, kept_until);
        Some(Answered::Granted(grant, acquire.reply))
    }

    /// What to do with a batch that has no answer.
    pub(super) fn failed(&mut self, sent: Sent, mut batch: Batch<P>, failure: P::Failure) {
        let lane = sent.lane;
        let now = self.users.clock.now();
        (keys_of_tries(&batch.acquires).iter()).for_each(|key| self.tries.end(key));
        let failed = (self.protocol).failed(sent, &mut batch, failure, &mut self.effects);
        let Failed {
            then,
            error,
            reason,
        } = failed;
        let error = || error.duplicate().with_source(reason.clone());
        // After how long acquires are tried again, and until when those were asked for that are not.
        let (mut again, mut given_up) = (None, None);
        match then {
            Then::Refuse => given_up = Some(Duration::MAX),
            Then::Again => again = Some(HAND_OVER),
            Then::Rest { pause, patience } => {
                self.pending.lanes[lane].rests_until = Some(Instant::now() + pause);
                given_up = Some(now + PATIENCE - patience);
            }
            Then::Undo => {
                for release in &mut batch.releases {
                    // The server may take it later.
                    release.sent_to.get_or_insert(sent.link.server);
                }
                // Each may have been granted, or be granted yet. Given back by the request that asks again, as
                // another owner, it is neither contention nor held by two.
                let ghost = now + PATIENCE;
                for acquire in &batch.acquires {
                    self.undo(lane, acquire, Some(ghost));
                }
            }
        }
        let is_given_up = |until: Duration| given_up.is_some_and(|given_up| until <= given_up);
        for release in batch.releases {
            if matches!(then, Then::Undo) {
                self.pending.lanes[lane].releases.push_back(release);
            } else {
                (self.pending).delay(RELEASE_AGAIN, Command::Release(release));
            }
        }
        if let Some(limit) = batch.limit {
            let acquires = std::mem::take(&mut batch.acquires);
            let claim = Claim { acquires, limit };
            (self.pending).retry_claim(claim, HAND_OVER, is_given_up, error);
        }
        for acquire in batch.acquires {
            if is_given_up(acquire.until) {
                acquire.reply.send(Err(error()));
            } else {
                (self.pending).retry(lane, acquire, again, now, error);
            }
        }
        for probe in batch.probes {
            let _ = probe.send(Err(error()));
        }
    }

    /// Gives back what may have been granted; `ghost` is until when it may be yet.
    fn undo(&mut self, lane: usize, acquire: &Acquire<P::Waiters>, ghost: Option<Duration>) {
        let (lease, now) = (self.users.terms.lease(), self.users.clock.now());
        if acquire.is_for_waiters() {
            self.tries.strayed(&acquire.key, acquire.owner, now);
        }
        let until = now + acquire.at_least.map_or(lease, |kept| lease.max(kept));
        self.pending.undo(lane, acquire, until, ghost);
    }

    pub(super) fn renewed(
        &mut self,
        sent: Sent,
        locks: Vec<HeldLock<P::Key>>,
        answer: Result<P::Renewed, P::Failure>,
    ) {
        self.renewals.answered(locks.len());
        let Self {
            protocol, effects, ..
        } = self;
        let renewed = protocol.renewed(sent, &locks, answer, effects);
        let until = self.protocol.valid_until(sent);
        let mut headroom: Option<Duration> = None;
        let mut renewed = renewed.into_iter();
        for lock in locks {
            match renewed.next().unwrap_or(Renewal::Again) {
                Renewal::Extended => {
                    let left = lock.lease.remaining();
                    headroom = headroom.into_iter().chain(left).min();
                    lock.lease.extend(until);
                    lock.lease.ends_as(LossReason::Expired);
                    if lock.server != sent.link.server {
                        self.users.held.moved_to(sent.link.server, lock.owner);
                    }
                }
                Renewal::Lost(reason) => {
                    lock.lease.lose(reason);
                    self.users.held.remove(lock.owner);
                }
                Renewal::Again => self.renewals.again_soon(),
            }
        }
        if let Some(headroom) = headroom {
            observe::renew_headroom(P::KIND, headroom);
        }
    }

    pub(super) fn issued(
        &mut self,
        sent: Sent,
        tokens: Vec<Token<P::Key>>,
        answer: Result<P::Issued, P::Failure>,
    ) {
        let Self {
            protocol, effects, ..
        } = self;
        let issued = protocol.issued(sent, &tokens, answer, effects);
        let mut issued = issued.into_iter();
        for token in tokens {
            let answer = match issued.next().unwrap_or(Issued::Again) {
                Issued::Token(issued) => Ok(issued),
                Issued::Lost => {
                    token.lease.lose(LossReason::Revoked);
                    Err(taken_away())
                }
                Issued::Again => {
                    self.issue_again([token]);
                    continue;
                }
                Issued::Failed(error) => Err(error),
            };
            // It may not be waited for any more.
            let _ = token.reply.send(answer);
        }
    }
}

/// What is tried for waiters.
fn keys_of_tries<W: WaiterTable>(acquires: &[Acquire<W>]) -> Vec<W::Key> {
    let tries = acquires.iter().filter(|acquire| acquire.is_for_waiters());
    tries.map(|acquire| acquire.key.clone()).collect()
}

fn taken_away() -> LockError {
    LockError::lost(LossReason::Revoked.to_string())
}
