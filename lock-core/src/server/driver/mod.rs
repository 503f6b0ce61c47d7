//! The thread's work for a store of leased keys: commands in, requests out, one loop.
//!
//! - [`Pending`] is what users have asked for and no request has taken yet, by [`Lane`](lane::Lane).
//! - [`Renewals`] is when what is held is renewed.
//! - The [protocol](super::protocol) makes requests, reads answers and knows the servers.
//! - [`settle`] is what an answer, or none, means for the callers.
//!
//! # Why a lost answer leaves no lock behind
//!
//! An acquire that was sent and not answered may have been granted, or be granted later. It is sent again as
//! another owner, behind a release of the former one in the same request or an earlier one; and that release
//! is made once more when the server cannot take the former copy any more ([`PATIENCE`]). So a lock that an
//! unknown copy was granted is neither contention for the next copy, nor held by an owner that no caller has.

mod delayed;
mod lane;
mod pending;
mod questions;
mod renewals;
mod restart;
mod settle;
mod spins;
mod tries;
mod users;

use std::collections::BTreeMap;
use std::mem;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};

use self::pending::Pending;
use self::renewals::Renewals;
use self::spins::Spins;
use self::tries::Tries;
use super::Queues;
use super::leased::{Command, HeldLock, HoldCommand, Owner, Token};
use super::protocol::{Batch, Call, Effect, Effects, Ended, Protocol, Sent};
use super::terms::PATIENCE;
use crate::LockError;

pub(crate) use users::Users;

/// How long releases are still tried for after the last user has left: longer than the server may take
/// an acquire that was not answered, which is given back once more after that.
const DRAIN_TIMEOUT: Duration = PATIENCE.saturating_add(Duration::from_secs(1));

/// No timer is set for longer.
const NO_TIMER: Duration = Duration::from_secs(3600);

/// Before tokens are asked for again that had no answer, or no connection.
const TOKENS_AGAIN: Duration = Duration::from_millis(10);

pub(crate) struct Driver<P: Protocol> {
    users: Users<P::Waiters>,
    protocol: P,
    /// What the protocol has asked for and was not done yet.
    effects: Effects<P>,
    pending: Pending<P>,
    tries: Tries<P::Key>,
    renewals: Renewals<P>,
    calls: FuturesUnordered<Call<P>>,
    spins: Spins,
}

impl<P: Protocol> Driver<P> {
    /// A driver for this protocol, which has asked for these already.
    pub(crate) fn new(users: Users<P::Waiters>, protocol: P, effects: Effects<P>) -> Self {
        Self {
            effects,
            pending: Pending::new(protocol.lanes()),
            tries: Tries::new(),
            renewals: Renewals::new(users.terms.heartbeat()),
            calls: FuturesUnordered::new(),
            spins: Spins::new(),
            users,
            protocol,
        }
    }

    /// Until the last user has left.
    pub(crate) async fn run(mut self) {
        let (mut commands, mut of_grants) = (Vec::new(), Vec::new());
        let mut drain_until = None;
        self.apply_effects();
        loop {
            let more = self.users.queues.take(&mut commands, &mut of_grants);
            for command in of_grants.drain(..) {
                self.pending.receive_of_grant(command, &self.protocol);
            }
            for command in commands.drain(..) {
                self.pending.receive(command, &self.protocol, &self.users);
            }
            self.pending.receive_delayed(&self.protocol, &self.users);
            self.renew();
            let wants = wants(&self.pending, &self.renewals);
            self.protocol.work(wants, &mut self.effects);
            self.apply_effects();
            self.dispatch();
            self.issue_tokens();
            self.ask_holders();
            self.apply_effects();
            if !more {
                let end = *drain_until.get_or_insert_with(|| Instant::now() + DRAIN_TIMEOUT);
                if self.is_done() || end <= Instant::now() {
                    return;
                }
            }
            let wake = self
                .next_look()
                .min(drain_until.unwrap_or_else(|| Instant::now() + NO_TIMER));
            if let Some(ended) = self.wait(wake).await {
                self.finish(ended);
                while let Some(Some(ended)) = self.calls.next().now_or_never() {
                    self.finish(ended);
                }
            }
        }
    }

    /// Whether there is nothing to send and nothing to hear of.
    fn is_done(&self) -> bool {
        let mut lanes = 0..self.protocol.lanes();
        self.pending.is_done()
            && self.protocol.is_done()
            // What the protocol has sent itself since the queues were emptied.
            && !self.users.queues.has_some()
            && !lanes.any(|lane| self.protocol.has_extra(lane))
    }

    /// Waits for an answer, which it gives, for a command, or until then.
    ///
    /// Commands do not wake it while each lane has as many requests on their way as it may have: they could not
    /// be sent. They are taken with the next answer, for which a request is not waited longer than an acquire is
    /// tried.
    async fn wait(&mut self, until: Instant) -> Option<Ended<P>> {
        let mut lanes = self.pending.lanes.iter();
        let has_room = lanes.any(|lane| lane.in_flight < P::IN_FLIGHT);
        let Self {
            users,
            calls,
            spins,
            ..
        } = self;
        let Some(spin) = spins.next(calls.is_empty()) else {
            return wait_asleep(&users.queues, calls, until, has_room).await;
        };
        let started = Instant::now();
        let immediately = spin.look(started, |cx| {
            if let Poll::Ready(Some(ended)) = calls.poll_next_unpin(cx) {
                return Poll::Ready(Some(ended));
            }
            match has_room && users.queues.has_some() {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        });
        let came = match immediately.await {
            Some(came) => came,
            None => wait_asleep(&users.queues, calls, until, has_room).await,
        };
        spin.took(started);
        came
    }

    /// When there is something to do that no command or answer begins.
    fn next_look(&self) -> Instant {
        let now = Instant::now();
        let wants = wants(&self.pending, &self.renewals);
        let next = [
            self.renewals.next(!self.users.held.is_empty()),
            self.pending.next_delayed(),
            self.protocol.next_work(wants),
        ];
        let mut next = (next.into_iter().flatten()).fold(now + NO_TIMER, Instant::min);
        let boot = self.users.clock.now();
        for (at, lane) in self.pending.lanes.iter().enumerate() {
            let is_empty = lane.is_empty() && !self.protocol.has_extra(at);
            if is_empty && lane.in_flight == 0 {
                continue;
            }
            let late = lane.first_late();
            let late = late.map(|until| now + until.saturating_sub(boot));
            for at in [lane.rests_until, self.protocol.retry_at(at), late] {
                next = next.min(at.unwrap_or(next));
            }
        }
        next
    }

    /// Sends what can be sent.
    fn dispatch(&mut self) {
        let now = self.users.clock.now();
        for at in 0..self.pending.lanes.len() {
            let lane = &mut self.pending.lanes[at];
            if lane.in_flight == 0 && lane.is_empty() && !self.protocol.has_extra(at) {
                continue;
            }
            lane.expire(now);
            if lane.rests() {
                continue;
            }
            while lane.in_flight < P::IN_FLIGHT {
                if lane.is_empty() && !self.protocol.has_extra(at) {
                    break;
                }
                let Some((connection, link)) = self.protocol.connection(at, &mut self.effects)
                else {
                    break;
                };
                let extra = self.protocol.take_extra(at);
                let batch = lane.take(extra, &mut self.tries, now);
                if batch.is_empty() {
                    // The callers of what was there have left; a claim comes next.
                    continue;
                }
                lane.in_flight += 1;
                let sent = Sent {
                    lane: at,
                    link,
                    at: self.users.clock.now(),
                };
                let is_alone = batch.locks() == 1 && self.calls.is_empty();
                self.spins.sent(is_alone);
                self.calls
                    .push(exchange(&mut self.protocol, connection, sent, batch));
            }
        }
    }

    /// Starts the renewals that are due.
    fn renew(&mut self) {
        self.renewals.collect(&self.users, &mut self.protocol);
        while let Some((lane, locks)) = self.renewals.take() {
            self.renew_some(lane, locks);
        }
    }

    fn renew_some(&mut self, lane: usize, locks: Vec<HeldLock<P::Key>>) {
        let Some((connection, sent)) = self.connection(lane) else {
            // Asked for by `connection`, now or when it may be; a failure of it is one of ours.
            self.renewals.again_soon();
            if let Some(retry_at) = self.protocol.retry_at(lane) {
                self.renewals.when_connected(retry_at);
            }
            return;
        };
        let renewing = self.protocol.renew(connection, sent, &locks);
        self.renewals.sent(locks.len());
        self.calls.push(Box::pin(async move {
            let answer = renewing.await;
            Ended::Renewed {
                sent,
                locks,
                answer,
            }
        }));
    }

    /// Asks for the tokens that are wanted.
    fn issue_tokens(&mut self) {
        let mut of_lanes: BTreeMap<usize, Vec<Token<P::Key>>> = BTreeMap::new();
        for token in self.pending.take_tokens() {
            if token.until <= self.users.clock.now() {
                let _ = token.reply.send(Err(LockError::unanswered()));
            } else if !token.reply.is_closed() {
                let lane = self.protocol.lane_of(&token.key);
                of_lanes.entry(lane).or_default().push(token);
            }
        }
        for (lane, mut tokens) in of_lanes {
            while !tokens.is_empty() {
                let some = tokens.split_off(tokens.len().saturating_sub(P::BATCH));
                self.issue(lane, some);
            }
        }
    }

    fn issue(&mut self, lane: usize, tokens: Vec<Token<P::Key>>) {
        let Some((connection, sent)) = self.connection(lane) else {
            return self.issue_again(tokens);
        };
        let issuing = self.protocol.issue(connection, sent, &tokens);
        self.calls.push(Box::pin(async move {
            let answer = issuing.await;
            Ended::Issued {
                sent,
                tokens,
                answer,
            }
        }));
    }

    fn issue_again(&mut self, tokens: impl IntoIterator<Item = Token<P::Key>>) {
        for token in tokens {
            self.pending.delay(TOKENS_AGAIN, Command::Token(token));
        }
    }

    /// The connection of a lane, for a request that is sent now.
    fn connection(&mut self, lane: usize) -> Option<(P::Connection, Sent)> {
        let (connection, link) = self.protocol.connection(lane, &mut self.effects)?;
        let at = self.users.clock.now();
        Some((connection, Sent { lane, link, at }))
    }

    /// Does what the protocol has asked for.
    fn apply_effects(&mut self) {
        for effect in mem::take(&mut self.effects) {
            match effect {
                Effect::Call(call) => self.calls.push(call),
                Effect::RenewAll => self.renewals.hurry(),
                Effect::RenewBy(at) => self.renewals.when_connected(at),
                Effect::Refuse { lanes, error } => {
                    for lane in lanes {
                        self.pending.lanes[lane].refuse(|| error.duplicate_as_unavailable());
                    }
                }
                Effect::Probe(lane) => {
                    let (probe, _) = tokio::sync::mpsc::unbounded_channel();
                    self.pending.lanes[lane].probes.push(probe);
                }
                Effect::EndAs { lanes, reason } => {
                    for lock in self.users.held.all() {
                        if lanes.contains(&self.protocol.lane_of(&lock.key)) {
                            lock.lease.ends_as(reason);
                        }
                    }
                }
                Effect::Lose { lanes, reason } => {
                    let is_lost = |key: &P::Key| lanes.contains(&self.protocol.lane_of(key));
                    self.users.held.lose(reason, is_lost);
                }
            }
        }
    }

    fn finish(&mut self, ended: Ended<P>) {
        match ended {
            Ended::Exchanged {
                sent,
                batch,
                answer,
            } => {
                self.pending.lanes[sent.lane].in_flight -= 1;
                match answer {
                    Ok(answers) => self.answered(sent, batch, answers),
                    Err(failure) => self.failed(sent, batch, failure),
                }
            }
            Ended::Renewed {
                sent,
                locks,
                answer,
            } => self.renewed(sent, locks, answer),
            Ended::Issued {
                sent,
                tokens,
                answer,
            } => self.issued(sent, tokens, answer),
            Ended::Told {
                sent,
                questions,
                answer,
            } => self.told(sent, questions, answer),
            Ended::Own(done) => self.protocol.done(done, &mut self.effects),
        }
        self.apply_effects();
    }
}

fn exchange<P: Protocol>(
    protocol: &mut P,
    connection: P::Connection,
    sent: Sent,
    mut batch: Batch<P>,
) -> Call<P> {
    for acquire in &mut batch.acquires {
        acquire.owner = Owner {
            part: acquire.part,
            ..protocol.new_owner(sent.link)
        };
    }
    let exchanging = protocol.exchange(connection, sent, &batch);
    Box::pin(async move {
        let answer = exchanging.await;
        Ended::Exchanged {
            sent,
            batch,
            answer,
        }
    })
}

/// Of which lanes something waits; where leases were not renewed, of any.
fn wants<P: Protocol>(pending: &Pending<P>, renewals: &Renewals<P>) -> impl Fn(usize) -> bool {
    let renews = renewals.lacks_some();
    move |lane: usize| renews || !pending.lanes[lane].is_empty()
}

async fn wait_asleep<P: Protocol>(
    queues: &Queues<Command<P::Waiters>, HoldCommand<P::Key>>,
    calls: &mut FuturesUnordered<Call<P>>,
    until: Instant,
    has_room: bool,
) -> Option<Ended<P>> {
    tokio::select! {
        biased;
        Some(ended) = calls.next(), if !calls.is_empty() => Some(ended),
        () = queues.rung(), if has_room => None,
        () = queues.rung_beside_commands(), if !has_room => None,
        () = sleep_until(until) => None,
    }
}
