//! How Redis is asked for locks: scripts, and what is known of the servers that run them.
//!
//! - [`Exchange`] and its like are the calls; [`Answers`] is what the scripts say, and [`Verdicts`] what that means;
//!   `exchanges` and the modules beside it send each kind of call, and settle it.
//! - [`Upkeep`] is what is known of the servers: [`Nodes`](nodes::Nodes) are connections for commands, clocks, and
//!   which server has what of a cluster; [`Moves`](moves::Moves) tells slots that were moved from masters that lost
//!   their data; [`Mastery`](mastery::Mastery) asks Sentinels whether the server is the master still;
//!   [`Replicas`](replicas::Replicas) holds back what replicas are to know of before it is given out.
//!
//! Each owns what it knows. What it has done by the [driver](crate::server::driver) is an effect.

mod answers;
mod calls;
mod exchanges;
mod foreign;
mod holders;
mod locate;
mod looks;
mod mastery;
mod moves;
mod node;
mod nodes;
mod places;
mod quarantine;
mod renewals;
mod replicas;
mod tokens;
mod upkeep;
mod verdicts;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionAddr, ConnectionInfo, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::answers::Answers;
use self::calls::Extra;
use self::moves::Masters;
use self::quarantine::Quarantine;
use self::replicas::Unconfirmed;
use self::upkeep::Upkeep;
use self::verdicts::Verdicts;
use super::KIND;
use super::command::{Acquire, HeldLock, Release, Token, WhoHolds};
use super::key::Key;
use super::opened::Opened;
use super::scripts::Failure;
use super::shared::Shared;
use super::subscriber::Question;
use super::topology::Topology;
use super::waiting::Waiting;
use crate::server::leased::{Given, Owner};
use crate::server::link::LinkId;
use crate::server::protocol::{
    self, Acquired, Batch, Effect, Failed, Issued, Protocol, Released, Renewal, Sent, Settling,
    Told,
};
use crate::{LockError, LossReason};

pub(super) use calls::{Content, Exchange};

pub(super) type Effects = protocol::Effects<RedisProtocol>;

/// The servers of a backend, as its driver asks them.
pub(super) struct RedisProtocol {
    shared: Arc<Shared>,
    upkeep: Upkeep,
    quarantine: Quarantine,
    verdicts: Verdicts,
}

/// What was asked of its own accord, and has an answer.
pub(super) enum Done {
    Connected {
        node: usize,
        address: ConnectionAddr,
        /// Large, and rare.
        result: Box<Result<Opened, LockError>>,
    },
    Looked(Result<Topology, LockError>),
    Asked(Result<Masters, LockError>),
    Watched {
        asked: Duration,
        than: ConnectionAddr,
        another: bool,
    },
    Confirmed {
        node: usize,
        grants: Vec<Unconfirmed>,
        known: bool,
    },
}

impl RedisProtocol {
    /// For the servers that are known, without a connection yet.
    pub(super) fn new(
        shared: Arc<Shared>,
        topology: watch::Sender<Arc<Topology>>,
        questions: mpsc::UnboundedSender<Question>,
    ) -> Self {
        let upkeep = Upkeep::new(Arc::clone(&shared), topology, questions);
        Self {
            verdicts: Verdicts::new(Arc::clone(&shared), upkeep.nodes.is_cluster()),
            quarantine: Quarantine::default(),
            upkeep,
            shared,
        }
    }

    /// A server that has become a replica renews nothing. None of its locks is granted elsewhere before they have
    /// ended here, and where its address comes to lead to the new master in time, that has copies of them, which
    /// are renewed. So none is lost yet.
    fn tell_read_only(&self, sent: Sent, failure: &Failure, effects: &mut Effects) {
        if failure.is_read_only() {
            effects.push(Effect::EndAs {
                lanes: self.upkeep.nodes.lanes_of(sent.link.node),
                reason: LossReason::ReadOnly,
            });
        }
    }

    /// A question about locks has failed: they may be elsewhere. The error, where what the server lacks is known.
    fn not_answered(
        &mut self,
        sent: Sent,
        failure: &Failure,
        effects: &mut Effects,
    ) -> Option<LockError> {
        if failure.is_elsewhere() && !failure.is_moving() {
            self.upkeep.nodes.look_for(sent.lane, failure, effects);
        }
        self.verdicts.lacking(failure)
    }

    /// Goes on over a connection to this node.
    pub(super) fn begin(&mut self, info: &ConnectionInfo, opened: Opened, effects: &mut Effects) {
        self.upkeep.begin(info, opened, effects);
    }
}

impl Protocol for RedisProtocol {
    const KIND: &'static str = KIND;
    const IN_FLIGHT: usize = 2;
    const BATCH: usize = 128;
    const RENEWED: usize = 256;

    type Key = Key;
    type Waiters = Waiting;
    type Connection = MultiplexedConnection;
    type Extra = Extra;
    type Answers = Answers;
    type Renewed = Vec<Value>;
    type Issued = Vec<Value>;
    type Told = Vec<Value>;
    type Failure = Failure;
    type Done = Done;

    fn lanes(&self) -> usize {
        self.upkeep.nodes.lanes()
    }

    fn lane_of(&self, key: &Key) -> usize {
        self.upkeep.nodes.lane_of(key.bucket)
    }

    fn refuses(&self) -> Option<LockError> {
        self.shared.split.error()
    }

    fn probed_lanes(&self) -> Vec<usize> {
        self.upkeep.nodes.probed_lanes()
    }

    fn connection(
        &mut self,
        lane: usize,
        effects: &mut Effects,
    ) -> Option<(MultiplexedConnection, LinkId)> {
        self.upkeep.connection(lane, effects)
    }

    fn retry_at(&self, lane: usize) -> Option<Instant> {
        self.upkeep
            .nodes
            .retry_at(self.upkeep.nodes.lane(lane).node)
    }

    fn new_owner(&mut self, link: LinkId) -> Owner {
        self.shared.new_owner(self.upkeep.nodes.identity(link.node))
    }

    fn exchange(
        &mut self,
        connection: MultiplexedConnection,
        sent: Sent,
        batch: &Batch<Self>,
    ) -> impl Future<Output = Result<Answers, Failure>> + Send + 'static {
        self.send_exchange(connection, sent, batch)
    }

    fn answered(
        &mut self,
        sent: Sent,
        batch: &Batch<Self>,
        answers: &mut Answers,
        effects: &mut Effects,
    ) -> Settling {
        self.begin_to_settle(sent, batch, answers, effects)
    }

    fn released(&self, release: &Release, place: usize, answers: &mut Answers) -> Released {
        self.settle_release(release, place, answers)
    }

    fn acquired(
        &mut self,
        sent: Sent,
        acquire: &Acquire,
        place: usize,
        answers: &mut Answers,
    ) -> Acquired {
        self.settle_acquire(sent, acquire, place, answers)
    }

    fn probed(&self, sent: Sent, answers: &Answers) -> Result<(), LockError> {
        verdicts::probed(&self.upkeep.nodes.lane(sent.lane).server_key, &answers.left)
    }

    fn give(&mut self, sent: Sent, given: Given<Waiting>) {
        let is_present = self.upkeep.nodes.is_present(sent.link);
        self.upkeep.replicas.give(sent, given, is_present);
    }

    fn failed(
        &mut self,
        sent: Sent,
        batch: &mut Batch<Self>,
        failure: Failure,
        effects: &mut Effects,
    ) -> Failed {
        self.settle_failure(sent, batch.extra.take(), &failure, effects)
    }

    fn valid_until(&self, sent: Sent) -> Duration {
        let is_of_master = self.upkeep.is_of_master(sent.link);
        self.upkeep.mastery.valid_until(sent.at, is_of_master)
    }

    fn renew(
        &mut self,
        connection: MultiplexedConnection,
        sent: Sent,
        locks: &[HeldLock],
    ) -> impl Future<Output = Result<Vec<Value>, Failure>> + Send + 'static {
        self.send_renewals(connection, sent, locks)
    }

    fn renewing(&mut self, is_renewed: impl Fn(usize) -> bool) {
        self.upkeep.nodes.renewing(is_renewed);
    }

    fn renewed(
        &mut self,
        sent: Sent,
        locks: &[HeldLock],
        answer: Result<Vec<Value>, Failure>,
        effects: &mut Effects,
    ) -> Vec<Renewal> {
        self.settle_renewals(sent, locks, answer, effects)
    }

    fn issue(
        &mut self,
        connection: MultiplexedConnection,
        sent: Sent,
        tokens: &[Token],
    ) -> impl Future<Output = Result<Vec<Value>, Failure>> + Send + 'static {
        self.send_tokens(connection, sent, tokens)
    }

    fn issued(
        &mut self,
        sent: Sent,
        tokens: &[Token],
        answer: Result<Vec<Value>, Failure>,
        effects: &mut Effects,
    ) -> Vec<Issued> {
        self.settle_tokens(sent, tokens, answer, effects)
    }

    fn ask_holders(
        &mut self,
        connection: MultiplexedConnection,
        _: Sent,
        questions: &[WhoHolds],
    ) -> impl Future<Output = Result<Vec<Value>, Failure>> + Send + 'static {
        self.send_questions(connection, questions)
    }

    fn told(
        &mut self,
        sent: Sent,
        questions: &[WhoHolds],
        answer: Result<Vec<Value>, Failure>,
        effects: &mut Effects,
    ) -> Vec<Told> {
        self.settle_holders(sent, questions, answer, effects)
    }

    fn has_extra(&self, lane: usize) -> bool {
        self.upkeep.has_extra(lane)
    }

    fn take_extra(&mut self, lane: usize) -> Option<Extra> {
        self.upkeep.take_extra(lane)
    }

    fn work(&mut self, wants: impl Fn(usize) -> bool, effects: &mut Effects) {
        self.upkeep.work(wants, effects);
    }

    fn next_work(&self, wants: impl Fn(usize) -> bool) -> Option<Instant> {
        self.upkeep.next_work(wants)
    }

    fn done(&mut self, done: Done, effects: &mut Effects) {
        self.upkeep.done(done, effects);
    }
}
