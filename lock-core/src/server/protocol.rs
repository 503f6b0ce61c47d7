//! How a store of leased keys is asked: what is different in each, behind one [driver](super::driver).
//!
//! The driver decides what is sent, when, and what an answer means for the callers: which locks share a
//! request, how many requests are on their way, what is tried again, given back, renewed or refused. The
//! protocol makes a request of that, reads the answer, and knows the servers. It owns what it knows, and asks
//! the driver for something by an [`Effect`].
//!
//! *Lanes* are kinds of keys that cannot share a request. A request of a lane goes over its connection, and
//! carries releases first, then acquires: an acquire that was given up and its next copy travel together.
//!
//! How four stores answer:
//!
//! - **Redis**: a lane is a server, or a bucket of a cluster; an exchange is one script, renewals and tokens
//!   are others. Connections are the protocol's and come and go ([`retry_at`](Protocol::retry_at)). What a
//!   lane needs beside its locks, that a clock has jumped or what became of a master, is its
//!   [extra](Protocol::take_extra); with replicas a grant waits for them ([`give`](Protocol::give)). Waiters are
//!   woken by subscriptions, which leave [`AcquireForWaiting`](super::leased::Command::AcquireForWaiting) in the
//!   queue.
//! - **A table of rows in PostgreSQL**: one lane, and a connection is a handle of the pool, so that there is
//!   one always. An exchange is one statement, `DELETE`s or `UPDATE`s that end leases and an `INSERT .. ON CONFLICT`;
//!   a statement that failed did nothing ([`Then::Refuse`]), one without an answer may have ([`Then::Undo`]).
//!   Renewing is one `UPDATE` with the names still held as its answer; the token is a column. Its own
//!   [work](Protocol::work) is the poll for waiters, or `LISTEN`, which ends in the same command as above.
//! - **etcd**: one lane, one HTTP/2 channel for all. An exchange is a batch of `Txn`s that compare the create
//!   revision of the key, which is the token; a lease of etcd's is kept alive for each lock, or the value names
//!   its end and a renewal is a `Txn` as well. A watch over the prefix wakes waiters. A new leader forgets
//!   nothing: there is no quarantine, and [`valid_until`](Protocol::valid_until) is as provided by the terms.
//! - **A session of PostgreSQL** has one lane with one request in flight, but its lease is that of the session
//!   and not of a key: there is nothing to renew by key, an owner is not a value in the store, and what a failed
//!   statement left behind is found by an audit instead of being given back by an owner. It has a
//!   driver of its own.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use super::leased::{
    Acquire, Given, HeldLock, LockKey, Owner, Probe, Release, Token, WaiterTable, WhoHolds,
};
use super::link::LinkId;
use crate::{Holder, LockError, LossReason};

/// A store of leased keys, as its driver asks it.
pub(crate) trait Protocol: Sized + Send + 'static {
    /// What metrics call the store.
    const KIND: &'static str;

    /// How many requests of a lane are on their way: few, so that batches grow with the load, and more than
    /// one, so that the server has the next when it has answered.
    const IN_FLIGHT: usize;

    /// How many locks one request releases or acquires, and how many tokens one issues.
    const BATCH: usize;

    /// How many leases one request renews: more would keep the server from others for long.
    const RENEWED: usize;

    type Key: LockKey;
    type Waiters: WaiterTable<Key = Self::Key>;
    type Connection: Send;
    /// What it adds to a request of its own accord.
    type Extra: Send;
    /// The answer to an exchange.
    type Answers: Send;
    /// The answer to a renewal.
    type Renewed: Send;
    /// The answer to a question for tokens.
    type Issued: Send;
    /// The answer to a question who holds locks.
    type Told: Send;
    /// Why there is no answer.
    type Failure: Send;
    /// How work of its own has ended.
    type Done: Send;

    fn lanes(&self) -> usize;

    fn lane_of(&self, key: &Self::Key) -> usize;

    /// Why no lock is granted now, whichever it is; what is held is renewed and released.
    fn refuses(&self) -> Option<LockError> {
        None
    }

    /// Whether it has nothing to send any more of its own accord, when its users have left.
    fn is_done(&self) -> bool {
        true
    }

    /// Lanes that stand together for all servers.
    fn probed_lanes(&self) -> Vec<usize>;

    /// The connection of a lane; where there is none, one is being made.
    fn connection(
        &mut self,
        lane: usize,
        effects: &mut Effects<Self>,
    ) -> Option<(Self::Connection, LinkId)>;

    /// When a connection of a lane can be made again.
    fn retry_at(&self, lane: usize) -> Option<Instant>;

    /// For an acquire that is sent over this connection; never the same again. The driver adds of which
    /// [part](super::leased::Part) it is.
    fn new_owner(&mut self, link: LinkId) -> Owner;

    /// Sends a batch.
    fn exchange(
        &mut self,
        connection: Self::Connection,
        sent: Sent,
        batch: &Batch<Self>,
    ) -> impl Future<Output = Result<Self::Answers, Self::Failure>> + Send + 'static;

    /// Notes what an answer says of the server; before the locks of the batch are settled.
    fn answered(
        &mut self,
        sent: Sent,
        batch: &Batch<Self>,
        answers: &mut Self::Answers,
        effects: &mut Effects<Self>,
    ) -> Settling;

    /// What the answer says of the release at this place of the batch.
    fn released(
        &self,
        release: &Release<Self::Key>,
        place: usize,
        answers: &mut Self::Answers,
    ) -> Released;

    /// What the answer says of the acquire at this place of the batch, releases counted.
    fn acquired(
        &mut self,
        sent: Sent,
        acquire: &Acquire<Self::Waiters>,
        place: usize,
        answers: &mut Self::Answers,
    ) -> Acquired;

    /// Whether locks could be granted.
    fn probed(&self, sent: Sent, answers: &Self::Answers) -> Result<(), LockError>;

    /// Gives it to who asked, now or when it is certain.
    fn give(&mut self, sent: Sent, given: Given<Self::Waiters>);

    /// What follows from there being no answer to a batch, whose extra it takes back.
    fn failed(
        &mut self,
        sent: Sent,
        batch: &mut Batch<Self>,
        failure: Self::Failure,
        effects: &mut Effects<Self>,
    ) -> Failed;

    /// When a lease ends for us that was granted or renewed by this request.
    fn valid_until(&self, sent: Sent) -> Duration;

    /// Renews leases, which are of one lane.
    fn renew(
        &mut self,
        connection: Self::Connection,
        sent: Sent,
        locks: &[HeldLock<Self::Key>],
    ) -> impl Future<Output = Result<Self::Renewed, Self::Failure>> + Send + 'static;

    /// A round of renewals begins, with these lanes.
    fn renewing(&mut self, is_renewed: impl Fn(usize) -> bool);

    /// What became of each; of those that it says nothing of, nothing.
    fn renewed(
        &mut self,
        sent: Sent,
        locks: &[HeldLock<Self::Key>],
        answer: Result<Self::Renewed, Self::Failure>,
        effects: &mut Effects<Self>,
    ) -> Vec<Renewal>;

    /// Asks for tokens of locks that are held, which are of one lane.
    fn issue(
        &mut self,
        connection: Self::Connection,
        sent: Sent,
        tokens: &[Token<Self::Key>],
    ) -> impl Future<Output = Result<Self::Issued, Self::Failure>> + Send + 'static;

    /// What each was issued; those that it says nothing of are asked for again.
    fn issued(
        &mut self,
        sent: Sent,
        tokens: &[Token<Self::Key>],
        answer: Result<Self::Issued, Self::Failure>,
        effects: &mut Effects<Self>,
    ) -> Vec<Issued>;

    /// Asks who holds locks, which are of one lane.
    fn ask_holders(
        &mut self,
        connection: Self::Connection,
        sent: Sent,
        questions: &[WhoHolds<Self::Key>],
    ) -> impl Future<Output = Result<Self::Told, Self::Failure>> + Send + 'static;

    /// Who holds each; those that it says nothing of are asked for again.
    fn told(
        &mut self,
        sent: Sent,
        questions: &[WhoHolds<Self::Key>],
        answer: Result<Self::Told, Self::Failure>,
        effects: &mut Effects<Self>,
    ) -> Vec<Told>;

    /// Whether there is something to add to a request of this lane, also one without locks.
    fn has_extra(&self, lane: usize) -> bool;

    fn take_extra(&mut self, lane: usize) -> Option<Self::Extra>;

    /// Starts what is due of its own work. `wants` says of which lanes something waits.
    fn work(&mut self, wants: impl Fn(usize) -> bool, effects: &mut Effects<Self>);

    /// When such work is due next.
    fn next_work(&self, wants: impl Fn(usize) -> bool) -> Option<Instant>;

    /// Some of it has ended.
    fn done(&mut self, done: Self::Done, effects: &mut Effects<Self>);
}

/// Of a request: where it went, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) lane: usize,
    pub(crate) link: LinkId,
    /// On CLOCK_BOOTTIME, before it was sent: what it grants is valid from here on.
    pub(crate) at: Duration,
}

/// What travels in one exchange.
pub(crate) struct Batch<P: Protocol> {
    pub(crate) releases: Vec<Release<P::Key>>,
    pub(crate) acquires: Vec<Acquire<P::Waiters>>,
    /// How many of the acquires are to be granted at most, if they are a claim.
    pub(crate) limit: Option<usize>,
    pub(crate) probes: Vec<Probe>,
    pub(crate) extra: Option<P::Extra>,
}

impl<P: Protocol> Batch<P> {
    pub(crate) fn is_empty(&self) -> bool {
        self.locks() == 0 && self.probes.is_empty() && self.extra.is_none()
    }

    /// How many locks it is about.
    pub(crate) fn locks(&self) -> usize {
        self.releases.len() + self.acquires.len()
    }
}

/// What the answer to a batch says of its acquires.
pub(crate) enum Settling {
    /// Each has an answer.
    Each,
    /// None was looked at: they are sent again after this long.
    Later(Duration),
}

/// What became of a lock that was to be released.
#[cfg_attr(
    not(all(feature = "redis", feature = "postgres")),
    allow(dead_code, reason = "no store has all of these")
)]
pub(crate) enum Released {
    /// It is free; whether other processes wait for it.
    Free { is_awaited: bool },
    /// There is none of this owner: an earlier copy of the release did it, or it was not ours any more.
    Missing,
    /// It is another's.
    Taken,
    /// It could not be released now, and is tried again.
    Again,
    /// It cannot be released, and ends with its lease.
    Failed(LockError),
}

/// What became of a lock that was to be acquired.
pub(crate) enum Acquired {
    /// With this token.
    Granted(u64),
    Refused(Refusal),
    /// The server did nothing, since it came too late by its clock or met another that was under way: it is sent
    /// again.
    Again,
    /// It was or may have been granted, and is not to be used: it is given back.
    Void(Refusal),
}

/// The answer to a caller that is granted nothing.
pub(crate) enum Refusal {
    Held { retry_in: Option<Duration> },
    Error(LockError),
}

/// What follows from a batch that has no answer.
pub(crate) struct Failed {
    pub(crate) then: Then,
    /// For those who are answered now, and its source.
    pub(crate) error: LockError,
    pub(crate) reason: String,
}

/// What is done with the locks of such a batch.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "Redis alone has these")
)]
pub(crate) enum Then {
    /// The server did nothing: acquires are refused. Releases are tried again.
    Refuse,
    /// The server did nothing, since the locks are elsewhere: all is sent again in a moment.
    Again,
    /// The server did nothing, and nothing is sent for so long; acquires that are tried for longer than `patience`
    /// are refused.
    Rest { pause: Duration, patience: Duration },
    /// It may have been done, or be done later: acquires are given back, and sent again as others.
    Undo,
}

/// What became of a lease that was to be renewed.
pub(crate) enum Renewal {
    Extended,
    Lost(LossReason),
    /// It is not known, or was not done: tried again until the lease ends.
    Again,
}

/// What became of a token that was asked for.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "Redis alone has these")
)]
pub(crate) enum Issued {
    Token(u64),
    /// The lock was not held any more.
    Lost,
    /// Asked for again: a token that was issued and did not arrive is never used.
    Again,
    Failed(LockError),
}

/// What became of a question who holds a lock.
pub(crate) enum Told {
    Holder(Option<Holder>),
    Again,
    Failed(LockError),
}

/// What a protocol asks of its driver.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "Redis alone has these")
)]
pub(crate) enum Effect<P: Protocol> {
    /// To do work of its own; [`Protocol::done`] has its end.
    Call(Call<P>),
    /// To renew everything now: it may be lacking.
    RenewAll,
    /// What was not renewed can be tried again at this time, if there is such.
    RenewBy(Instant),
    /// To refuse what waits for these lanes; releases wait on.
    Refuse { lanes: Vec<usize>, error: LockError },
    /// To send a probe, for what it does to the server.
    Probe(usize),
    /// Leases of these lanes are refused their renewal, for a reason that can pass: it is why they will be lost
    /// if they end before.
    EndAs {
        lanes: Vec<usize>,
        reason: LossReason,
    },
    /// The locks of these lanes are lost.
    Lose {
        lanes: Vec<usize>,
        reason: LossReason,
    },
}

pub(crate) type Effects<P> = Vec<Effect<P>>;

impl<P: Protocol> Effect<P> {
    pub(crate) fn call(work: impl Future<Output = P::Done> + Send + 'static) -> Self {
        Self::Call(Box::pin(async move { Ended::Own(work.await) }))
    }
}

/// A request, or other work, that is under way.
pub(crate) type Call<P> = Pin<Box<dyn Future<Output = Ended<P>> + Send>>;

/// What it led to.
pub(crate) enum Ended<P: Protocol> {
    Exchanged {
        sent: Sent,
        batch: Batch<P>,
        answer: Result<P::Answers, P::Failure>,
    },
    Renewed {
        sent: Sent,
        locks: Vec<HeldLock<P::Key>>,
        answer: Result<P::Renewed, P::Failure>,
    },
    Issued {
        sent: Sent,
        tokens: Vec<Token<P::Key>>,
        answer: Result<P::Issued, P::Failure>,
    },
    Told {
        sent: Sent,
        questions: Vec<WhoHolds<P::Key>>,
        answer: Result<P::Told, P::Failure>,
    },
    Own(P::Done),
}
