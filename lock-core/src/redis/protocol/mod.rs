//! How Redis is asked for locks: scripts, and what is known of the servers that run them.
//!
//! - [`Nodes`] are the servers: connections for commands, clocks, and which of them has what of a cluster.
//! - [`Moves`] tells slots that were moved from masters that lost their data.
//! - [`Mastery`] asks Sentinels whether the server is the master still.
//! - [`Replicas`] holds back what replicas are to know of before it is given out.
//! - [`Exchange`] and its like are the calls; [`Answers`] is what the scripts say.
//!
//! Each owns what it knows. What it has done by the [driver](crate::server::driver) is an effect.

mod answers;
mod calls;
mod foreign;
mod locate;
mod mastery;
mod moves;
mod nodes;
mod quarantine;
mod replicas;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionAddr, ConnectionInfo, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use self::answers::{
    ANOTHER, Answers, BAD_NOTE, FOREIGN, MOVED, UNBELIEVABLE, believable, number, pause,
};
use self::calls::Extra;
use self::foreign::Foreign;
use self::mastery::Mastery;
use self::moves::{Masters, Moves};
use self::nodes::Nodes;
use self::quarantine::Quarantine;
use self::replicas::{Replicas, Unconfirmed};
use super::KIND;
use super::clock::Jump;
use super::command::{Acquire, HeldLock, Release, Token};
use super::key::Key;
use super::opened::Opened;
use super::rights::Asked;
use super::scripts::{EXCHANGE, Failure, RENEW, TOKEN};
use super::shared::Shared;
use super::subscriber::Question;
use super::topology::Topology;
use super::waiting::Waiting;
use crate::server::PATIENCE;
use crate::server::leased::{Given, Owner};
use crate::server::link::LinkId;
use crate::server::protocol::{
    self, Acquired, Batch, Effect, Failed, Issued, Protocol, Refusal, Released, Renewal, Sent,
    Settling, Then,
};
use crate::{LockError, LossReason};

pub(super) use calls::{Content, Exchange};

/// Before a renewal that had no answer is sent over another connection.
const RENEW_SOON: Duration = Duration::from_millis(10);

/// Longer than masters mostly take to say what they are.
const SHORTLY: Duration = Duration::from_millis(20);

/// Between calls for keys of a slot that is being moved.
const REST: Duration = Duration::from_millis(100);

/// How long the end of such a move is waited for before it is reported.
const MOVING_FOR: Duration = Duration::from_millis(500);

const IS_MOVING: &str = "the slot of the lock is being moved from one node of the Redis cluster to another, \
    and the move does not come to its end: finish it, or take it back";

const NOT_DONE: &str = "the Redis server did not do it";

pub(super) type Effects = protocol::Effects<RedisProtocol>;

/// The servers of a backend, as its driver asks them.
pub(super) struct RedisProtocol {
    shared: Arc<Shared>,
    nodes: Nodes,
    moves: Moves,
    mastery: Mastery,
    replicas: Replicas,
    quarantine: Quarantine,
    foreign: Foreign,
    /// The newest token that we know of.
    newest: u64,
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
        let nodes = Nodes::new(Arc::clone(&shared), topology);
        Self {
            moves: Moves::new(Arc::clone(&shared), nodes.lanes()),
            mastery: Mastery::new(Arc::clone(&shared)),
            replicas: Replicas::new(Arc::clone(&shared), questions),
            quarantine: Quarantine::default(),
            foreign: Foreign::default(),
            newest: 0,
            nodes,
            shared,
        }
    }

    /// Goes on over a connection to this node.
    pub(super) fn begin(&mut self, info: &ConnectionInfo, opened: Opened, effects: &mut Effects) {
        if let Some(node) = self.nodes.place_of(info) {
            self.connected(node, Ok(opened), effects);
        }
        // How long they are masters counts later.
        self.moves.ask_masters(&self.nodes, effects);
    }

    fn connected(&mut self, node: usize, result: Result<Opened, LockError>, effects: &mut Effects) {
        let at = match result.and_then(|opened| self.nodes.expected(opened)) {
            Ok(opened) => {
                self.mastery.is_master_as_of(opened.asked);
                self.nodes.follow(node, &opened.info);
                if let Some(reign) = &opened.reign {
                    self.moves.note(reign, opened.sent);
                }
                let came = self.nodes.up(node, opened);
                if came.is_another {
                    // What it lacks of what is held is known as soon as it can be.
                    effects.push(Effect::RenewAll);
                    self.replicas.refuse(node);
                }
                if came.jump == Some(Jump::Forward) {
                    self.jumped(node, effects);
                }
                Instant::now()
            }
            Err(error) => {
                let retry_at = self.nodes.down(node, &error);
                let lanes = self.nodes.lanes_of(node);
                // Who waits for this node is told why it is not there.
                effects.push(Effect::Refuse { lanes, error });
                self.nodes.look(None, effects);
                retry_at
            }
        };
        effects.push(Effect::RenewBy(at));
    }

    /// A server's clock was put forward: leases on it may have ended early.
    fn jumped(&mut self, node: usize, effects: &mut Effects) {
        tracing::error!("the clock of the Redis server was put forward: its locks are lost");
        let lanes = self.nodes.lanes_of(node);
        for lane in &lanes {
            self.nodes.lane_mut(*lane).jumped = true;
        }
        effects.push(Effect::Lose {
            lanes,
            reason: LossReason::Expired,
        });
    }

    /// Takes note of a server's time.
    fn saw_time(&mut self, sent: Sent, time: u64, effects: &mut Effects) -> Option<Jump> {
        let jump = self.nodes.saw_time(sent, time);
        if jump == Some(Jump::Forward) {
            self.jumped(sent.link.node, effects);
        }
        jump
    }

    fn looked(&mut self, result: Result<Topology, LockError>, effects: &mut Effects) {
        let Some(moved) = self.nodes.looked(result) else {
            return;
        };
        for node in moved.left {
            self.replicas.refuse(node);
        }
        for node in moved.replaced {
            self.replicas.replaced(node);
        }
        if moved.is_any {
            // To see the reign of a new master from its beginning.
            self.moves.ask_masters(&self.nodes, effects);
        }
    }

    /// Whether an answer over this connection is of the master as it is known now.
    fn is_of_master(&self, link: LinkId) -> bool {
        self.shared.sentinels.is_none() || self.nodes.is_present(link)
    }

    /// What the scripts ask for.
    fn asked(&self) -> Asked<'_> {
        Asked::by_scripts(&self.shared.settings, self.nodes.is_cluster())
    }

    /// Nothing can be granted, and no retry mends it.
    fn bad_note(&self, lane: usize) -> LockError {
        LockError::misconfigured(format!(
            "the Redis key `{}` was written by another program, or the server's clock was put back by \
             more than a day: it names a quarantine of more than 24 h, or a token that is more than a \
             day ahead of the server's time. No lock is granted until it is deleted; before that, make \
             sure that the clock is right and that no storage has seen such a token",
            self.nodes.lane(lane).server_key
        ))
    }

    /// What the script says of an acquire that is no number.
    fn refusal(&mut self, sent: Sent, key: &Key, said: String) -> Refusal {
        if let Some(lacking) = self.asked().lacking(&said) {
            // An administrator may be about to give it back: it is asked for again.
            return Refusal::Error(lacking.duplicate_as_unavailable().with_source(said));
        }
        if said == BAD_NOTE {
            return Refusal::Error(self.bad_note(sent.lane));
        }
        if said == FOREIGN {
            self.foreign.tell(key);
            return Refusal::Held {
                retry_in: Some(self.shared.settings.lease),
            };
        }
        let refused = format!("the Redis server refused to lock `{}`", key.text);
        Refusal::Error(LockError::unavailable(refused).with_source(said))
    }
}

impl Protocol for RedisProtocol {
    const KIND: &'static str = KIND;
    const IN_FLIGHT: usize = 3;
    const BATCH: usize = 128;
    const RENEWED: usize = 256;

    type Key = Key;
    type Waiters = Waiting;
    type Connection = MultiplexedConnection;
    type Extra = Extra;
    type Answers = Answers;
    type Renewed = Vec<Value>;
    type Issued = Vec<Value>;
    type Failure = Failure;
    type Done = Done;

    fn lanes(&self) -> usize {
        self.nodes.lanes()
    }

    fn lane_of(&self, key: &Key) -> usize {
        self.nodes.lane_of(key.bucket)
    }

    fn probed_lanes(&self) -> Vec<usize> {
        self.nodes.probed_lanes()
    }

    fn connection(
        &mut self,
        lane: usize,
        effects: &mut Effects,
    ) -> Option<(MultiplexedConnection, LinkId)> {
        let node = self.nodes.lane(lane).node;
        if self.mastery.is_old() && self.nodes.is_up(node) {
            // The Sentinels are being asked.
            return None;
        }
        self.nodes.connection(node, effects)
    }

    fn retry_at(&self, lane: usize) -> Option<Instant> {
        self.nodes.retry_at(self.nodes.lane(lane).node)
    }

    fn new_owner(&mut self, link: LinkId) -> Owner {
        self.shared.new_owner(self.nodes.identity(link.node))
    }

    fn exchange(
        &mut self,
        mut connection: MultiplexedConnection,
        sent: Sent,
        batch: &Batch<Self>,
    ) -> impl Future<Output = Result<Answers, Failure>> + Send + 'static {
        let settings = &self.shared.settings;
        let within = settings.answer_within();
        let exchange = Exchange {
            settings,
            server_key: &self.nodes.lane(sent.lane).server_key,
            not_after: self.nodes.not_after(sent, PATIENCE),
            newest: self.newest,
            is_cluster: self.nodes.is_cluster(),
        };
        let call = exchange.call(&Content {
            releases: &batch.releases,
            acquires: &batch.acquires,
            limit: batch.limit,
            is_probe: !batch.probes.is_empty(),
            extra: batch.extra.as_ref(),
        });
        let locks = batch.locks();
        async move {
            let answer = EXCHANGE.invoke(&mut connection, call, within).await;
            answer.and_then(|values| Answers::read(values, locks).ok_or(Failure::Nonsense))
        }
    }

    fn answered(
        &mut self,
        sent: Sent,
        batch: &Batch<Self>,
        answers: &mut Answers,
        effects: &mut Effects,
    ) -> Settling {
        self.nodes.is_well(sent.link);
        let (lane, server) = (sent.lane, sent.link.server);
        let jump = self.saw_time(sent, answers.time, effects);
        answers.has_jumped = jump == Some(Jump::Forward);
        let mut settling = Settling::Each;
        if answers.left.as_ref().is_err_and(|error| error == MOVED) {
            // Once it is known what became of the master before, which takes a moment.
            self.moves.doubt(lane, server, true);
            settling = Settling::Later(SHORTLY);
            answers.left = Ok(0);
        }
        let Ok(left) = answers.left else {
            return settling;
        };
        if left != 0 {
            self.quarantine.tell(pause(left), left < 0);
            let is_asked = !batch.acquires.is_empty() || !batch.probes.is_empty();
            if left < 0 && is_asked {
                self.moves.doubt(lane, server, false);
            }
        } else if batch
            .extra
            .as_ref()
            .is_some_and(|extra| extra.proof.is_some())
        {
            // They were told to come back later.
            self.shared
                .waiting
                .wake_all_of(self.nodes.lane(lane).bucket);
        }
        settling
    }

    fn released(&self, release: &Release, place: usize, answers: &mut Answers) -> Released {
        match answers.of_release(place) {
            Ok(1) => Released::Free { is_awaited: false },
            Ok(heard @ 2..) => {
                let ours = i64::from(self.shared.waiting.is_subscribed(&release.key));
                Released::Free {
                    is_awaited: heard - 1 > ours,
                }
            }
            Ok(_) => Released::Missing,
            Err(_) => Released::Taken,
        }
    }

    fn acquired(
        &mut self,
        sent: Sent,
        acquire: &Acquire,
        place: usize,
        answers: &mut Answers,
    ) -> Acquired {
        if answers.has_jumped {
            // Whoever held it may think so still.
            let retry_in = Some(self.shared.settings.quarantine);
            return Acquired::Void(Refusal::Held { retry_in });
        }
        let answer = answers.of_acquire(place);
        match answer.and_then(|answer| believable(answer, answers.time)) {
            Ok(token @ 1..) => {
                let token = token.unsigned_abs();
                self.newest = self.newest.max(token);
                if self.mastery.may_grant() {
                    Acquired::Granted(token)
                } else {
                    Acquired::Void(Refusal::Error(LockError::unanswered()))
                }
            }
            // By the server's clock, which we know now.
            Ok(0) => Acquired::TooLate,
            Ok(wait) => Acquired::Refused(Refusal::Held {
                retry_in: Some(pause(wait)),
            }),
            Err(said) if said == UNBELIEVABLE => {
                Acquired::Void(self.refusal(sent, &acquire.key, said))
            }
            Err(said) => Acquired::Refused(self.refusal(sent, &acquire.key, said)),
        }
    }

    fn probed(&self, sent: Sent, answers: &Answers) -> Result<(), LockError> {
        match &answers.left {
            Ok(_) => Ok(()),
            Err(error) if error == BAD_NOTE => Err(self.bad_note(sent.lane)),
            Err(error) => Err(
                LockError::unavailable("the Redis server cannot grant locks")
                    .with_source(error.clone()),
            ),
        }
    }

    fn give(&mut self, sent: Sent, given: Given<Waiting>) {
        let is_present = self.nodes.is_present(sent.link);
        self.replicas.give(sent, given, is_present);
    }

    fn failed(
        &mut self,
        sent: Sent,
        extra: Option<Extra>,
        failure: Failure,
        effects: &mut Effects,
    ) -> Failed {
        self.nodes.drop_link(sent.link, &failure);
        let (is_moving, is_elsewhere) = (failure.is_moving(), failure.is_elsewhere());
        let then = match failure {
            _ if is_moving => Then::Rest {
                pause: REST,
                patience: MOVING_FOR,
            },
            _ if is_elsewhere => Then::Again,
            Failure::Refused(_) => Then::Refuse,
            Failure::Unknown(_) | Failure::Nonsense => Then::Undo,
        };
        if matches!(then, Then::Again) {
            self.nodes.look_for(sent.lane, &failure, effects);
        }
        if let Some(extra) = extra {
            if extra.proof.is_some() {
                self.moves.doubt(sent.lane, sent.link.server, true);
            }
            self.nodes.lane_mut(sent.lane).jumped |= extra.jumped;
        }
        let error = match failure.lacking(self.asked()) {
            Some(lacking) => lacking.duplicate_as_unavailable(),
            None => LockError::unavailable(if is_moving { IS_MOVING } else { NOT_DONE }),
        };
        Failed {
            then,
            error,
            reason: failure.to_string(),
        }
    }

    fn valid_until(&self, sent: Sent) -> Duration {
        let is_of_master = self.is_of_master(sent.link);
        self.mastery.valid_until(sent.at, is_of_master)
    }

    fn renew(
        &mut self,
        mut connection: MultiplexedConnection,
        sent: Sent,
        locks: &[HeldLock],
    ) -> impl Future<Output = Result<Vec<Value>, Failure>> + Send + 'static {
        let settings = &self.shared.settings;
        let within = settings.answer_within();
        let not_after = self.nodes.not_after(sent, within);
        let server_key = &self.nodes.lane(sent.lane).server_key;
        let call = calls::renew(server_key, not_after, settings.lease, locks);
        // The time alone: it came too late.
        let whole = [1, locks.len() + 1];
        async move {
            let answer = RENEW.invoke(&mut connection, call, within).await;
            answer.and_then(|values| match whole.contains(&values.len()) {
                true => Ok(values),
                false => Err(Failure::Nonsense),
            })
        }
    }

    fn renewing(&mut self, is_renewed: impl Fn(usize) -> bool) {
        self.nodes.renewing(is_renewed);
    }

    fn renewed(
        &mut self,
        sent: Sent,
        locks: &[HeldLock],
        answer: Result<Vec<Value>, Failure>,
        effects: &mut Effects,
    ) -> Vec<Renewal> {
        let link = sent.link;
        let values = match answer {
            Ok(values) => values,
            Err(failure) => {
                self.nodes.drop_link(link, &failure);
                self.nodes.not_renewed(link.node, locks.len(), &failure);
                if failure.is_elsewhere() {
                    self.nodes.look_for(sent.lane, &failure, effects);
                }
                if matches!(failure, Failure::Unknown(_)) {
                    // Its connection was left: this makes another.
                    effects.push(Effect::RenewBy(Instant::now() + RENEW_SOON));
                }
                return Vec::new();
            }
        };
        self.nodes.is_well(link);
        let mut values = values.into_iter();
        let Some(Value::Int(time)) = values.next() else {
            return Vec::new();
        };
        if self.saw_time(sent, time.unsigned_abs(), effects) == Some(Jump::Forward) {
            let lost = locks.iter().map(|_| Renewal::Lost(LossReason::Expired));
            return lost.collect();
        }
        let is_of_master = self.is_of_master(link);
        let renewed = locks.iter().map(|lock| match values.next() {
            // Of a master that was left: it means nothing.
            Some(Value::Int(0)) if !is_of_master => Renewal::Again,
            Some(Value::Int(1)) if !self.mastery.carries_over(lock, link.server) => {
                Renewal::Lost(LossReason::Expired)
            }
            Some(Value::Int(0)) => Renewal::Lost(LossReason::Revoked),
            Some(Value::Int(1)) => Renewal::Extended,
            // Too late by the server's clock, which we know now; or nothing that says that it was
            // renewed.
            _ => Renewal::Again,
        });
        let renewed: Vec<_> = renewed.collect();
        let is_extended = |renewal: &Renewal| matches!(renewal, Renewal::Extended);
        if renewed.iter().any(is_extended) {
            self.nodes.has_renewed(link.node);
        }
        renewed
    }

    fn issue(
        &mut self,
        mut connection: MultiplexedConnection,
        sent: Sent,
        tokens: &[Token],
    ) -> impl Future<Output = Result<Vec<Value>, Failure>> + Send + 'static {
        let within = self.shared.settings.answer_within();
        let server_key = &self.nodes.lane(sent.lane).server_key;
        let call = calls::issue(server_key, self.newest, tokens);
        let whole = tokens.len() + 1;
        async move {
            let answer = TOKEN.invoke(&mut connection, call, within).await;
            answer.and_then(|values| match values.len() == whole {
                true => Ok(values),
                false => Err(Failure::Nonsense),
            })
        }
    }

    fn issued(
        &mut self,
        sent: Sent,
        tokens: &[Token],
        answer: Result<Vec<Value>, Failure>,
        effects: &mut Effects,
    ) -> Vec<Issued> {
        let answer = match answer {
            Ok(values) => {
                self.nodes.is_well(sent.link);
                let mut values = values.into_iter();
                let time = number(values.next());
                time.map(|time| (time.unsigned_abs(), values))
                    .map_err(|_| Failure::Nonsense)
            }
            Err(failure) => {
                self.nodes.drop_link(sent.link, &failure);
                Err(failure)
            }
        };
        let (time, mut values) = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                // Elsewhere perhaps.
                if failure.is_elsewhere() && !failure.is_moving() {
                    self.nodes.look_for(sent.lane, &failure, effects);
                }
                let Some(lacking) = failure.lacking(self.asked()) else {
                    return Vec::new();
                };
                let failed = tokens.iter().map(|_| {
                    let lacking = lacking.duplicate_as_unavailable();
                    Issued::Failed(lacking.with_source(failure.to_string()))
                });
                return failed.collect();
            }
        };
        self.saw_time(sent, time, effects);
        let issued = tokens.iter().map(|_| {
            match number(values.next()).and_then(|number| believable(number, time)) {
                Ok(issued @ 1..) => {
                    self.newest = self.newest.max(issued.unsigned_abs());
                    Issued::Token(issued.unsigned_abs())
                }
                Ok(_) => Issued::Lost,
                Err(error) if error == ANOTHER => {
                    // A probe has the other script write the key.
                    effects.push(Effect::Probe(sent.lane));
                    Issued::Again
                }
                Err(error) if error == BAD_NOTE => Issued::Failed(self.bad_note(sent.lane)),
                Err(error) => Issued::Failed(
                    LockError::unavailable("the Redis server issued no fencing token")
                        .with_source(error),
                ),
            }
        });
        issued.collect()
    }

    fn has_extra(&self, lane: usize) -> bool {
        self.nodes.lane(lane).jumped || self.moves.has_proof(lane)
    }

    fn take_extra(&mut self, lane: usize) -> Option<Extra> {
        if !self.has_extra(lane) {
            return None;
        }
        let jumped = std::mem::take(&mut self.nodes.lane_mut(lane).jumped);
        let proof = self.moves.take_proof(lane);
        (jumped || proof.is_some()).then_some(Extra { jumped, proof })
    }

    fn work(&mut self, wants: impl Fn(usize) -> bool, effects: &mut Effects) {
        self.nodes.look_for_absent(wants, effects);
        self.moves.settle_doubts(&self.nodes, effects);
        self.mastery.watch(&mut self.nodes, effects);
        self.replicas.confirm(&self.nodes, effects);
    }

    fn next_work(&self, wants: impl Fn(usize) -> bool) -> Option<Instant> {
        let next = [
            self.nodes.next_look_for_absent(wants),
            self.moves.next(),
            self.mastery.next(),
        ];
        next.into_iter().flatten().min()
    }

    fn done(&mut self, done: Done, effects: &mut Effects) {
        match done {
            Done::Connected {
                node,
                address,
                result,
            } => {
                // Its place can be that of another by now.
                if *self.nodes.address(node) == address {
                    self.connected(node, *result, effects);
                }
            }
            Done::Looked(result) => self.looked(result, effects),
            Done::Asked(result) => self.moves.masters_answered(result, &self.nodes),
            Done::Watched {
                asked,
                than,
                another,
            } => {
                let nodes = &mut self.nodes;
                (self.mastery).watched(asked, &than, another, nodes, effects);
            }
            Done::Confirmed {
                node,
                grants,
                known,
            } => self.replicas.confirmed(node, grants, known, &self.nodes),
        }
    }
}
