//! What users have asked for and no request has taken yet.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::delayed::Delayed;
use super::lane::Lane;
use super::users::Users;
use crate::LockError;
use crate::backend::Attempt;
use crate::hand_over::{HAND_OVER, HandOver};
use crate::server::leased::{
    Acquire, Claim, Command, HoldCommand, Release, Reply, Token, WhoHolds,
};
use crate::server::protocol::Protocol;
use crate::server::terms::PATIENCE;

/// Commands: by lane, put off, or left to other processes for a moment.
pub(super) struct Pending<P: Protocol> {
    pub(super) lanes: Vec<Lane<P>>,
    delayed: Delayed<P::Waiters>,
    /// To be asked for.
    tokens: Vec<Token<P::Key>>,
    questions: Vec<WhoHolds<P::Key>>,
    /// Locks that are left to other processes for a moment.
    handed_over: HandOver<P::Key>,
}

impl<P: Protocol> Pending<P> {
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            lanes: (0..lanes).map(|_| Lane::new()).collect(),
            delayed: Delayed::new(),
            tokens: Vec::new(),
            questions: Vec::new(),
            handed_over: HandOver::default(),
        }
    }

    pub(super) fn receive_of_grant(&mut self, command: HoldCommand<P::Key>, protocol: &P) {
        match command {
            HoldCommand::Release(release) => self.release(release, protocol),
            HoldCommand::Token(token) => self.tokens.push(token),
        }
    }

    pub(super) fn receive(
        &mut self,
        command: Command<P::Waiters>,
        protocol: &P,
        users: &Users<P::Waiters>,
    ) {
        match command {
            Command::AcquireForWaiting(key) => {
                // Without a user left there is no waiter.
                if let Some(client) = users.client.upgrade() {
                    let reply = Reply::Waiting(Arc::clone(&users.waiters), key.clone());
                    let acquire = Acquire::new(client, key, reply);
                    self.receive(Command::Acquire(acquire), protocol, users);
                }
            }
            Command::Acquire(acquire) => match protocol.refuses() {
                Some(error) => acquire.reply.send(Err(error)),
                None => self.acquire(acquire, protocol),
            },
            Command::Claim(claim) => match protocol.refuses() {
                Some(error) => claim.fail(|| error.duplicate()),
                None => self.claim(claim, protocol, users.clock.now()),
            },
            Command::Release(release) => self.release(release, protocol),
            Command::Token(token) => self.tokens.push(token),
            Command::WhoHolds(question) => self.questions.push(question),
            Command::Probe(probe) => {
                if let Some(error) = protocol.refuses() {
                    // Who asked may have left.
                    return drop(probe.send(Err(error)));
                }
                for lane in protocol.probed_lanes() {
                    self.lanes[lane].probes.push(probe.clone());
                }
            }
        }
    }

    /// Those that were put off and are due.
    pub(super) fn receive_delayed(&mut self, protocol: &P, users: &Users<P::Waiters>) {
        let now = Instant::now();
        while let Some(command) = self.delayed.take(now) {
            self.receive(command, protocol, users);
        }
    }

    fn acquire(&mut self, acquire: Acquire<P::Waiters>, protocol: &P) {
        match self.handed_over_until(&acquire.key) {
            Some(until) => self.delayed.put(until, Command::Acquire(acquire)),
            None => {
                let lane = protocol.lane_of(&acquire.key);
                self.lanes[lane].acquires.push_back(acquire);
            }
        }
    }

    /// One that is new waits for the end of the windows that there are: what is left to others can be free by then.
    fn claim(&mut self, mut claim: Claim<P::Waiters>, protocol: &P, now: Duration) {
        let windows = claim.acquires.iter();
        let windows = windows.filter_map(|acquire| self.handed_over_until(&acquire.key));
        if let Some(until) = windows.max()
            && now + PATIENCE < claim.until() + HAND_OVER
        {
            return self.delayed.put(until, Command::Claim(claim));
        }
        let handed_over = |acquire: &mut Acquire<_>| self.handed_over_until(&acquire.key).is_some();
        for acquire in claim.acquires.extract_if(.., handed_over) {
            acquire.reply.send(Ok(Attempt::Held { retry_in: None }));
        }
        if let Some(first) = claim.acquires.first() {
            let lane = protocol.lane_of(&first.key);
            self.lanes[lane].claims.push_back(claim);
        }
    }

    fn release(&mut self, release: Release<P::Key>, protocol: &P) {
        let lane = protocol.lane_of(&release.key);
        self.lanes[lane].releases.push_back(release);
    }

    /// The lock was released, and another process waits for it.
    pub(super) fn hand_over(&mut self, key: &P::Key) {
        let now = Instant::now();
        self.handed_over.forget_ended(now);
        self.handed_over.begin(key.clone(), (), now);
    }

    /// Until when this one is left to others.
    fn handed_over_until(&self, key: &P::Key) -> Option<Instant> {
        let (until, ()) = self.handed_over.get(key)?;
        (until > Instant::now()).then_some(until)
    }

    pub(super) fn delay(&mut self, after: Duration, command: Command<P::Waiters>) {
        self.delayed.put(Instant::now() + after, command);
    }

    /// Tries again, now or after this long, unless it is too late.
    pub(super) fn retry(
        &mut self,
        lane: usize,
        acquire: Acquire<P::Waiters>,
        after: Option<Duration>,
        now: Duration,
        error: impl FnOnce() -> LockError,
    ) {
        if acquire.until <= now || acquire.reply.is_closed() {
            return acquire.reply.send(Err(error()));
        }
        match after {
            Some(after) => self.delay(after, Command::Acquire(acquire)),
            None => self.lanes[lane].acquires.push_back(acquire),
        }
    }

    /// Tries these again after this long, unless it is too late.
    pub(super) fn put_off(
        &mut self,
        lane: usize,
        acquires: Vec<Acquire<P::Waiters>>,
        limit: Option<usize>,
        after: Duration,
        now: Duration,
    ) {
        let Some(limit) = limit else {
            for acquire in acquires {
                self.retry(lane, acquire, Some(after), now, LockError::unanswered);
            }
            return;
        };
        let claim = Claim { acquires, limit };
        self.retry_claim(claim, after, |until| until <= now, LockError::unanswered);
    }

    /// Tries a claim again after this long, unless it is given up or its callers have left.
    pub(super) fn retry_claim(
        &mut self,
        claim: Claim<P::Waiters>,
        after: Duration,
        is_given_up: impl FnOnce(Duration) -> bool,
        error: impl Fn() -> LockError,
    ) {
        if is_given_up(claim.until()) || claim.is_closed() {
            claim.fail(error);
        } else {
            self.delay(after, Command::Claim(claim));
        }
    }

    /// Gives back what may have been granted, until it has ended by itself; `ghost` is until when it may be
    /// granted yet.
    pub(super) fn undo(
        &mut self,
        lane: usize,
        acquire: &Acquire<P::Waiters>,
        until: Duration,
        ghost: Option<Duration>,
    ) {
        let release = acquire.undo(until, ghost);
        self.lanes[lane].releases.push_back(release);
    }

    /// The tokens that are to be asked for.
    pub(super) fn take_tokens(&mut self) -> Vec<Token<P::Key>> {
        mem::take(&mut self.tokens)
    }

    /// Who is to be asked for.
    pub(super) fn take_questions(&mut self) -> Vec<WhoHolds<P::Key>> {
        mem::take(&mut self.questions)
    }

    /// Whether nothing is left to send or to answer, but for what the protocol adds.
    pub(super) fn is_done(&self) -> bool {
        let is_idle = |lane: &Lane<P>| lane.is_empty() && lane.in_flight == 0;
        self.delayed.is_empty() && self.lanes.iter().all(is_idle)
    }

    /// When the first that was put off is due.
    pub(super) fn next_delayed(&self) -> Option<Instant> {
        self.delayed.next()
    }
}
