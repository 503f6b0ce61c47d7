//! Releases and acquires: batches on their way, and what their answers mean.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::answers::Answers;
use super::lane::Batch;
use super::nodes::Via;
use super::{Done, Driver};
use crate::LockError;
use crate::backend::{Attempt, Lease};
use crate::hand_over::HAND_OVER;
use crate::redis::clock::Jump;
use crate::redis::command::HeldLock;
use crate::redis::command::Release;
use crate::redis::command::{Acquire, Claim, Command};
use crate::redis::rights::Asked;
use crate::redis::scripts::{EXCHANGE, Failure};
use crate::redis::settings::LEASES;
use crate::server::PATIENCE;

/// How many calls are on their way: few, so that batches grow with the load, and more than one, so that the
/// server has the next when it has answered.
const MAX_CALLS: usize = 3;

/// Between copies of a release that the server refused.
const AGAIN: Duration = Duration::from_millis(50);

/// Longer than masters mostly take to say what they are.
const SHORTLY: Duration = Duration::from_millis(20);

/// Between calls for keys of a slot that is being moved.
const REST: Duration = Duration::from_millis(100);

/// How long the end of such a move is waited for before it is reported.
const MOVING_FOR: Duration = Duration::from_millis(500);

const IS_MOVING: &str = "the slot of the lock is being moved from one node of the Redis cluster to another, \
    and the move does not come to its end: finish it, or take it back";

const NOT_DONE: &str = "the Redis server did not do it";

/// What the script says of a server key that it does not believe.
pub(super) const BAD_NOTE: &str = "note";

/// What the script says of a slot whose master was another.
const MOVED: &str = "moved";

/// What the script says of a lock that is held by what it has not written.
const FOREIGN: &str = "foreign";

/// What is said of a token that no script of ours issues.
const UNBELIEVABLE: &str = "a token that is far ahead of its clock";

/// How far a token is ahead of the server's time at most, in microseconds: as in the script, with the
/// longest lease.
const FURTHEST: u64 = 3 * 24 * 3600 * 1_000_000;

/// A token that comes from no script of ours would be the newest that is known for good.
pub(super) fn believable(answer: i64, time: u64) -> Result<i64, String> {
    if u64::try_from(answer).is_ok_and(|token| token > time.saturating_add(FURTHEST)) {
        return Err(UNBELIEVABLE.to_owned());
    }
    Ok(answer)
}

/// How long the server says that it takes; no lease and no quarantine takes longer than a day.
fn pause(millis: i64) -> Duration {
    Duration::from_millis(millis.unsigned_abs()).min(*LEASES.end())
}

impl Driver {
    /// Sends what can be sent.
    pub(super) fn dispatch(&mut self) {
        let now = self.shared.clock.now();
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].is_idle() {
                continue;
            }
            self.expire(lane, now);
            if self.lanes[lane].rests() {
                continue;
            }
            while self.lanes[lane].in_flight < MAX_CALLS {
                if self.lanes[lane].is_empty() {
                    break;
                }
                let Some((connection, via)) = self.connection(lane) else {
                    break;
                };
                let batch = self.lanes[lane].take();
                if batch.is_empty() {
                    // Whoever asked for what was there has left; a claim comes next.
                    continue;
                }
                self.send(lane, connection, via, batch);
            }
        }
    }

    /// Gives up what is too late.
    fn expire(&mut self, lane: usize, now: Duration) {
        while self.lanes[lane]
            .acquires
            .front()
            .is_some_and(|acquire| acquire.until <= now)
        {
            if let Some(acquire) = self.lanes[lane].acquires.pop_front() {
                acquire.reply.send(Err(LockError::unanswered()));
            }
        }
        while let Some(claim) = self.lanes[lane]
            .claims
            .pop_front_if(|claim| claim.until() <= now)
        {
            claim.fail(LockError::unanswered);
        }
        while self.lanes[lane]
            .releases
            .front()
            .is_some_and(|release| release.until <= now)
        {
            if let Some(release) = self.lanes[lane].releases.pop_front() {
                release.answer(Err(LockError::unanswered()));
            }
        }
    }

    fn send(
        &mut self,
        lane: usize,
        mut connection: MultiplexedConnection,
        via: Via,
        mut batch: Batch,
    ) {
        let is_cluster = self.lanes.len() > 1;
        let settings = &self.shared.settings;
        let within = settings.answer_within();
        let sent = self.shared.clock.now();
        let identity = self.nodes[via.node].identity;
        for acquire in &mut batch.acquires {
            acquire.owner = self.shared.new_owner(identity);
        }
        let from = &mut self.lanes[lane];
        let not_after = self.nodes[from.node].clock.not_after(sent, PATIENCE);
        let call = batch.call(
            settings,
            &from.server_key,
            not_after,
            self.newest,
            is_cluster,
        );
        from.in_flight += 1;
        let locks = batch.releases.len() + batch.acquires.len();
        self.was_alone = locks == 1 && self.calls.is_empty();
        self.calls.push(Box::pin(async move {
            let answer = EXCHANGE.invoke(&mut connection, call, within).await;
            let answer =
                answer.and_then(|values| Answers::read(values, locks).ok_or(Failure::Nonsense));
            Done::Exchanged {
                lane,
                via,
                sent,
                batch,
                answer,
            }
        }));
    }

    pub(super) fn answered(
        &mut self,
        lane: usize,
        via: Via,
        sent: Duration,
        mut batch: Batch,
        mut answers: Answers,
    ) {
        let time = answers.time;
        let jump = self.saw_time(via, sent, time);
        let mut places = 1..;
        for (release, place) in batch.releases.into_iter().zip(&mut places) {
            let answer = answers.of_release(place);
            self.release_answered(via, release, answer);
        }
        let is_asked = !batch.acquires.is_empty() || !batch.probes.is_empty();
        let mut left = mem::replace(&mut answers.left, Ok(0));
        if left.as_ref().is_err_and(|error| error == MOVED) {
            // Once it is known what became of the master before, which takes a moment.
            self.doubt(lane, via, true);
            self.put_off(lane, batch.limit, mem::take(&mut batch.acquires));
            left = Ok(0);
        }
        for (acquire, place) in batch.acquires.into_iter().zip(places) {
            let answer = answers.of_acquire(place);
            let answer = answer.and_then(|answer| believable(answer, time));
            if jump == Some(Jump::Forward) {
                // Whoever held it may think so still.
                let retry_in = Some(self.shared.settings.quarantine);
                self.undo(lane, &acquire, None);
                acquire.reply.send(Ok(Attempt::Held { retry_in }));
            } else {
                self.acquire_answered(lane, via, sent, acquire, answer, batch.limit.is_some());
            }
        }
        if let Ok(left) = left
            && left != 0
        {
            self.in_quarantine(pause(left), left < 0);
            if left < 0 && is_asked {
                self.doubt(lane, via, false);
            }
        }
        if batch.proof.is_some() && left == Ok(0) {
            // They were told to come back later.
            self.shared.waiting.wake_all_of(self.lanes[lane].bucket);
        }
        for probe in batch.probes {
            let error = match &left {
                Ok(_) => {
                    self.give_probe(lane, via, probe);
                    continue;
                }
                Err(error) if error == BAD_NOTE => self.bad_note(lane),
                Err(error) => LockError::unavailable("the Redis server cannot grant locks")
                    .with_source(error.clone()),
            };
            let _ = probe.send(Err(error));
        }
    }

    fn release_answered(&mut self, via: Via, mut release: Release, answer: Result<i64, String>) {
        if release.ghost.is_some()
            && let Some((after, again)) = release.again(self.shared.clock.now())
        {
            let at = Instant::now() + after + HAND_OVER;
            self.parked.put(at, Command::Release(again));
        }
        match answer {
            Ok(1) => release.answer(Ok(())),
            Ok(heard @ 2..) => {
                let ours = i64::from(self.shared.waiting.is_subscribed(&release.key));
                if heard - 1 > ours {
                    self.hand_over(&release.key);
                }
                release.answer(Ok(()));
            }
            Ok(_) => {
                // The copy before did it, or it was not ours any more: a server that was started
                // since has forgotten which.
                let was_ours = (release.reply.as_ref()).is_some_and(|(_, lease)| lease.is_valid());
                let done = release.sent_to == Some(via.server) && was_ours;
                release.answer(if done { Ok(()) } else { Err(taken_away()) });
            }
            Err(_) => release.answer(Err(taken_away())),
        }
    }

    fn acquire_answered(
        &mut self,
        lane: usize,
        via: Via,
        sent: Duration,
        acquire: Acquire,
        answer: Result<i64, String>,
        is_claim: bool,
    ) {
        let answer = match answer {
            Ok(token @ 1..) => return self.granted(lane, via, sent, acquire, token.unsigned_abs()),
            Ok(0) if is_claim => Err(LockError::unanswered()),
            // Too late by the server's clock, which we know now.
            Ok(0) => return self.retry(lane, acquire, None, LockError::unanswered),
            Ok(wait) => Ok(Attempt::Held {
                retry_in: Some(pause(wait)),
            }),
            Err(error) if let Some(lacking) = self.asked().lacking(&error) => {
                // An administrator may be about to give it back: it is asked for again.
                Err(lacking.duplicate_as_unavailable().with_source(error))
            }
            Err(error) if error == BAD_NOTE => Err(self.bad_note(lane)),
            Err(error) if error == FOREIGN => {
                self.foreign.tell(&acquire.key);
                Ok(Attempt::Held {
                    retry_in: Some(self.shared.settings.lease),
                })
            }
            Err(error) => {
                if error == UNBELIEVABLE {
                    self.undo(lane, &acquire, None);
                }
                let refused = format!("the Redis server refused to lock `{}`", acquire.key.text);
                Err(LockError::unavailable(refused).with_source(error))
            }
        };
        acquire.reply.send(answer);
    }

    /// Nothing can be granted, and no retry mends it.
    pub(super) fn bad_note(&self, lane: usize) -> LockError {
        LockError::misconfigured(format!(
            "the Redis key `{}` was written by another program, or the server's clock was put back by \
             more than a day: it names a quarantine of more than 24 h, or a token that is more than a \
             day ahead of the server's time. No lock is granted until it is deleted; before that, make \
             sure that the clock is right and that no storage has seen such a token",
            self.lanes[lane].server_key
        ))
    }

    fn granted(&mut self, lane: usize, via: Via, sent: Duration, acquire: Acquire, token: u64) {
        self.newest = self.newest.max(token);
        let settings = &self.shared.settings;
        let lease = Lease::until(
            Arc::clone(&self.shared.clock),
            self.valid_until(via, sent),
            settings.heartbeat(),
        );
        if !lease.is_valid() || !self.may_grant() {
            self.undo(lane, &acquire, None);
            acquire.reply.send(Err(LockError::unanswered()));
            return;
        }
        self.shared.held.insert(HeldLock {
            key: acquire.key.clone(),
            owner: acquire.owner,
            lease: lease.clone(),
            server: via.server,
        });
        let grant = acquire.grant(token, lease);
        self.give(lane, via, grant, acquire.reply);
    }

    /// What the scripts ask for.
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked::by_scripts(&self.shared.settings, self.lanes.len() > 1)
    }

    /// What to do with a batch that has no answer.
    pub(super) fn failed(&mut self, lane: usize, via: Via, mut batch: Batch, failure: Failure) {
        let refused = matches!(failure, Failure::Refused(_));
        let moved = failure.is_elsewhere();
        if !refused {
            batch.mark_sent(via.server);
            // Each may have been granted, or be granted yet. Given back by the call that asks again, as
            // another owner, it is neither contention nor held by two.
            let ghost = self.shared.clock.now() + PATIENCE;
            for acquire in &batch.acquires {
                self.undo(lane, acquire, Some(ghost));
            }
        }
        let is_moving = failure.is_moving();
        if is_moving {
            self.lanes[lane].rests_until = Some(Instant::now() + REST);
        } else if moved {
            self.look_for_nodes(lane, &failure);
        }
        if batch.proof.is_some() {
            self.doubt(lane, via, true);
        }
        let reason = failure.to_string();
        let what = if is_moving { IS_MOVING } else { NOT_DONE };
        let unavailable = match failure.lacking(self.asked()) {
            Some(lacking) => lacking.duplicate_as_unavailable(),
            None => LockError::unavailable(what),
        };
        let error = || unavailable.duplicate().with_source(reason.clone());
        for release in batch.releases {
            if refused {
                self.parked
                    .put(Instant::now() + AGAIN, Command::Release(release));
            } else {
                self.lanes[lane].releases.push_back(release);
            }
        }
        let given_up = self.shared.clock.now() + PATIENCE - MOVING_FOR;
        if let Some(limit) = batch.limit {
            let claim = Claim {
                acquires: mem::take(&mut batch.acquires),
                limit,
            };
            let given_up = is_moving && claim.until() <= given_up;
            if (refused && !moved) || given_up || claim.is_closed() {
                claim.fail(error);
            } else {
                self.parked
                    .put(Instant::now() + HAND_OVER, Command::Claim(claim));
            }
        }
        for acquire in batch.acquires {
            if is_moving && acquire.until <= given_up {
                acquire.reply.send(Err(error()));
            } else if is_moving {
                self.retry(lane, acquire, None, error);
            } else if moved {
                self.retry(lane, acquire, Some(HAND_OVER), error);
            } else if refused {
                acquire.reply.send(Err(error()));
            } else {
                self.retry(lane, acquire, None, error);
            }
        }
        for probe in batch.probes {
            let _ = probe.send(Err(error()));
        }
        self.lanes[lane].jumped |= batch.jumped;
    }

    /// Tries these again in a moment.
    fn put_off(&mut self, lane: usize, limit: Option<usize>, acquires: Vec<Acquire>) {
        let Some(limit) = limit else {
            for acquire in acquires {
                self.retry(lane, acquire, Some(SHORTLY), LockError::unanswered);
            }
            return;
        };
        let claim = Claim { acquires, limit };
        if claim.until() <= self.shared.clock.now() || claim.is_closed() {
            claim.fail(LockError::unanswered);
        } else {
            self.parked
                .put(Instant::now() + SHORTLY, Command::Claim(claim));
        }
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
            return acquire.reply.send(Err(error()));
        }
        match after {
            Some(after) => self
                .parked
                .put(Instant::now() + after, Command::Acquire(acquire)),
            None => self.lanes[lane].acquires.push_back(acquire),
        }
    }

    /// Gives back what may have been granted; `ghost` is until when it may be yet.
    fn undo(&mut self, lane: usize, acquire: &Acquire, ghost: Option<Duration>) {
        let until = self.shared.clock.now() + self.shared.settings.lease;
        let release = acquire.undo(until, ghost);
        self.lanes[lane].releases.push_back(release);
    }

    /// Takes note of a server's time; of one that another has taken the place of, it says nothing.
    pub(super) fn saw_time(&mut self, via: Via, sent: Duration, time: u64) -> Option<Jump> {
        let node = via.node;
        if self.nodes[node].via.server != via.server {
            return None;
        }
        let (received, margin) = (self.shared.clock.now(), self.shared.settings.margin());
        let jump = self.nodes[node].clock.observe(sent, received, time, margin);
        if jump == Some(Jump::Forward) {
            self.jumped(node);
        }
        jump
    }
}

pub(super) fn taken_away() -> LockError {
    LockError::lost("it was taken away in the store")
}
