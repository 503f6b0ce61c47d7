//! The thread's work: commands in, calls out, one loop.

mod answers;
mod exchange;
mod foreign;
mod lane;
mod later;
mod locate;
mod moves;
mod nodes;
mod renewal;
mod replicas;
mod sentinels;
mod tokens;
mod unconfirmed;

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use ::redis::{ConnectionAddr, ConnectionInfo, Value};
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::command::{Acquire, Claim, Command, Reply};
use super::command::{Client, HeldLock, Release, Token};
use super::key::{Key, server_key};
use super::opened::Opened;
use super::scripts::Failure;
use super::shared::Shared;
use super::subscriber::Question;
use super::topology::Topology;
use crate::LockError;
use crate::backend::Attempt;
use crate::hand_over::HandOver;
use crate::outage::Outage;
use crate::server::leased::HoldCommand;
use crate::server::{AdaptiveSpin, PATIENCE};
use answers::Answers;
use foreign::Foreign;
use lane::Lane;
use later::Parked;
use moves::{Masters, Reigns};
use nodes::{Link, Node, Via};
use renewal::Renewals;
use sentinels::Mastery;
use unconfirmed::Unconfirmed;

pub(super) use lane::Batch;

/// How long releases are still tried for after the last user has left: longer than the server may take
/// an acquire that was not answered, which is given back once more after that.
const DRAIN_TIMEOUT: Duration = PATIENCE.saturating_add(Duration::from_secs(1));

/// No timer is set for longer.
const NO_TIMER: Duration = Duration::from_secs(3600);

type Call = Pin<Box<dyn Future<Output = Done> + Send>>;

pub(super) struct Driver {
    shared: Arc<Shared>,
    client: Weak<Client>,
    lanes: Vec<Lane>,
    nodes: Vec<Node>,
    calls: FuturesUnordered<Call>,
    renewals: Renewals,
    /// The newest token that we know of.
    newest: u64,
    /// Counts the servers that were met.
    last_server: u64,
    topology: watch::Sender<Arc<Topology>>,
    /// To who has the second connections.
    questions: mpsc::UnboundedSender<Question>,
    parked: Parked,
    /// Tokens to be asked for.
    tokens: Vec<Token>,
    /// Locks that are left to other processes for a moment.
    handed_over: HandOver<Key>,
    foreign: Foreign,
    looked: Option<Instant>,
    /// How many times the cluster is being asked.
    looking: usize,
    reigns: Reigns,
    mastery: Mastery,
    /// The cluster does not say which node has what.
    unlocated: Outage,
    quarantine_until: Option<Instant>,
    /// With callers, while nothing is under way.
    with_callers: AdaptiveSpin,
    with_servers: AdaptiveSpin,
    /// Whether the last call was for one lock, with no other on its way.
    was_alone: bool,
}

/// What a call led to.
enum Done {
    Connected {
        node: usize,
        address: ConnectionAddr,
        /// Large, and rare.
        result: Box<Result<Opened, LockError>>,
    },
    Exchanged {
        lane: usize,
        via: Via,
        sent: Duration,
        batch: Batch,
        answer: Result<Answers, Failure>,
    },
    Renewed {
        lane: usize,
        via: Via,
        sent: Duration,
        locks: Vec<HeldLock>,
        answer: Result<Vec<Value>, Failure>,
    },
    Issued {
        lane: usize,
        via: Via,
        sent: Duration,
        tokens: Vec<Token>,
        answer: Result<Vec<Value>, Failure>,
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

impl Driver {
    /// For the servers that are known, without a connection yet.
    pub(super) fn new(
        shared: Arc<Shared>,
        client: Weak<Client>,
        topology: watch::Sender<Arc<Topology>>,
        questions: mpsc::UnboundedSender<Question>,
    ) -> Self {
        let layout = Arc::clone(&topology.borrow());
        let namespace = &shared.settings.namespace;
        let lanes = if layout.is_cluster {
            layout.of_bucket.len()
        } else {
            1
        };
        let lane = |bucket: usize| {
            let tag = u8::try_from(bucket).unwrap_or_default();
            Lane::new(server_key(namespace, tag), tag, layout.of_bucket[bucket])
        };
        Self {
            lanes: (0..lanes).map(lane).collect(),
            nodes: (layout.nodes.iter().cloned().enumerate())
                .map(|(place, info)| Node::new(place, info))
                .collect(),
            calls: FuturesUnordered::new(),
            renewals: Renewals::new(shared.settings.heartbeat()),
            newest: 0,
            last_server: 0,
            topology,
            questions,
            parked: Parked::default(),
            tokens: Vec::new(),
            handed_over: HandOver::default(),
            foreign: Foreign::default(),
            looked: None,
            looking: 0,
            reigns: Reigns::default(),
            mastery: Mastery::new(),
            unlocated: Outage::new(),
            quarantine_until: None,
            with_callers: AdaptiveSpin::new(),
            with_servers: AdaptiveSpin::new(),
            was_alone: false,
            shared,
            client,
        }
    }

    /// Goes on over a connection to this node.
    pub(super) fn connected_to(&mut self, info: &ConnectionInfo, opened: Opened) {
        let is_it = |node: &Node| node.info.addr() == info.addr();
        if let Some(node) = self.nodes.iter().position(is_it) {
            self.connected(node, Ok(opened));
        }
    }

    /// How many kinds of keys there are that cannot share a call.
    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Until the last user has left.
    pub(super) async fn run(mut self) {
        let (mut commands, mut of_grants) = (Vec::new(), Vec::new());
        let mut drain_until = None;
        // How long they are masters counts later.
        self.ask_masters();
        loop {
            let more = self.shared.queues.take(&mut commands, &mut of_grants);
            for command in of_grants.drain(..) {
                match command {
                    HoldCommand::Release(release) => self.receive_release(release),
                    HoldCommand::Token(token) => self.tokens.push(token),
                }
            }
            commands.drain(..).for_each(|command| self.receive(command));
            let now = Instant::now();
            while let Some(command) = self.parked.take(now) {
                self.receive(command);
            }
            self.renew();
            self.look_for_absent();
            self.settle_doubts();
            self.watch_mastery();
            self.dispatch();
            self.issue_tokens();
            self.confirm();
            if !more {
                let end = *drain_until.get_or_insert_with(|| Instant::now() + DRAIN_TIMEOUT);
                let is_idle = self.parked.is_empty() && self.lanes.iter().all(Lane::is_idle);
                if is_idle || end <= Instant::now() {
                    return;
                }
            }
            let wake = self
                .next_look()
                .min(drain_until.unwrap_or_else(|| Instant::now() + NO_TIMER));
            if let Some(done) = self.wait(wake).await {
                self.finish(done);
                while let Some(Some(done)) = self.calls.next().now_or_never() {
                    self.finish(done);
                }
            }
        }
    }

    /// Waits for an answer, which it gives, for a command, or until then.
    ///
    /// Awake for a moment where one task takes one lock after the other: its time is that of the wake-ups.
    /// Where many do, the processors are needed for them and the server, and a batch grows while the
    /// driver sleeps.
    async fn wait(&mut self, until: Instant) -> Option<Done> {
        if !self.was_alone {
            return self.wait_asleep(until).await;
        }
        let Self { shared, calls, .. } = self;
        let is_idle = calls.is_empty();
        let spin = if is_idle {
            &mut self.with_callers
        } else {
            &mut self.with_servers
        };
        let started = Instant::now();
        let at_once = spin.look(started, |cx| {
            if let Poll::Ready(Some(done)) = calls.poll_next_unpin(cx) {
                return Poll::Ready(Some(done));
            }
            if shared.queues.has_some() {
                return Poll::Ready(None);
            }
            Poll::Pending
        });
        let came = match at_once.await {
            Some(came) => came,
            None => self.wait_asleep(until).await,
        };
        let spin = if is_idle {
            &mut self.with_callers
        } else {
            &mut self.with_servers
        };
        spin.took(started);
        came
    }

    async fn wait_asleep(&mut self, until: Instant) -> Option<Done> {
        let Self { shared, calls, .. } = self;
        tokio::select! {
            biased;
            Some(done) = calls.next(), if !calls.is_empty() => Some(done),
            () = shared.queues.rung() => None,
            () = sleep_until(until) => None,
        }
    }

    fn lane_of(&self, bucket: u8) -> usize {
        usize::from(bucket) % self.lanes.len()
    }

    fn receive(&mut self, command: Command) {
        match command {
            Command::Acquire(acquire) => match self.handed_over_until(&acquire.key) {
                Some(until) => self.parked.put(until, Command::Acquire(acquire)),
                None => {
                    let lane = self.lane_of(acquire.key.bucket);
                    self.lanes[lane].acquires.push_back(acquire);
                }
            },
            Command::AcquireForWaiting(key) => {
                // Without a user left there is no waiter.
                if let Some(client) = self.client.upgrade() {
                    let reply = Reply::Waiting(Arc::clone(&self.shared.waiting), key.clone());
                    self.receive(Command::Acquire(Acquire::new(client, key, reply)));
                }
            }
            Command::Claim(claim) => self.receive_claim(claim),
            Command::Release(release) => self.receive_release(release),
            Command::Token(token) => self.tokens.push(token),
            Command::Probe(probe) => {
                for node in 0..self.nodes.len() {
                    // One lane of it stands for the node.
                    if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.node == node) {
                        lane.probes.push(probe.clone());
                    }
                }
            }
        }
    }

    /// The lock was released, and another process waits for it.
    fn hand_over(&mut self, key: &Key) {
        let now = Instant::now();
        self.handed_over.forget_ended(now);
        self.handed_over.begin(key.clone(), (), now);
    }

    /// Until when this one is left to others.
    fn handed_over_until(&self, key: &Key) -> Option<Instant> {
        let (until, ()) = self.handed_over.get(key)?;
        (until > Instant::now()).then_some(until)
    }

    fn receive_release(&mut self, release: Release) {
        let lane = self.lane_of(release.key.bucket);
        self.lanes[lane].releases.push_back(release);
    }

    fn receive_claim(&mut self, mut claim: Claim) {
        let handed_over = |acquire: &mut Acquire| self.handed_over_until(&acquire.key).is_some();
        for acquire in claim.acquires.extract_if(.., handed_over) {
            acquire.reply.send(Ok(Attempt::Held { retry_in: None }));
        }
        if let Some(first) = claim.acquires.first() {
            let lane = self.lane_of(first.key.bucket);
            self.lanes[lane].claims.push_back(claim);
        }
    }

    /// For what a server may have forgotten, or for what a slot may have lost that came to it.
    fn in_quarantine(&mut self, left: Duration, has_moved: bool) {
        let now = Instant::now();
        if self.quarantine_until.is_some_and(|until| until > now) {
            return;
        }
        self.quarantine_until = Some(now + left);
        if has_moved {
            tracing::warn!(
                ?left,
                "slots of the Redis cluster are new or have other masters than before, and not all masters \
                 say that they have been masters for a lease: no lock of these slots is granted until those \
                 that a master may have lost have ended"
            );
        } else {
            tracing::warn!(
                ?left,
                "the Redis server was started lately, another has taken its place, or its clock was put: no \
                 lock is granted until those that may have been forgotten have ended"
            );
        }
    }

    /// When there is something to do without being told.
    fn next_look(&self) -> Instant {
        let now = Instant::now();
        let mut next = now + NO_TIMER;
        if !self.shared.held.is_empty() {
            next = next.min(self.renewals.next);
        }
        for at in self.renewals.again.into_iter().chain(self.parked.next()) {
            next = next.min(at);
        }
        for at in self
            .next_doubt()
            .into_iter()
            .chain(self.next_look_for_absent())
            .chain(self.next_mastery())
        {
            next = next.min(at);
        }
        let boot = self.shared.clock.now();
        for lane in &self.lanes {
            if lane.is_idle() {
                continue;
            }
            next = next.min(lane.rests_until.unwrap_or(next));
            if let Link::Down { retry_at } = self.nodes[lane.node].link {
                next = next.min(retry_at);
            }
            let acquire = lane.acquires.front().map(|acquire| acquire.until);
            let claim = lane.claims.front().map(Claim::until);
            for until in acquire.into_iter().chain(claim) {
                next = next.min(now + until.saturating_sub(boot));
            }
        }
        next
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Connected {
                node,
                address,
                result,
            } => {
                // Its place can be that of another by now.
                if *self.nodes[node].info.addr() == address {
                    self.connected(node, *result);
                }
            }
            Done::Exchanged {
                lane,
                via,
                sent,
                batch,
                answer,
            } => {
                self.lanes[lane].in_flight -= 1;
                match answer {
                    Ok(answers) => {
                        self.is_well(via);
                        self.answered(lane, via, sent, batch, answers);
                    }
                    Err(failure) => {
                        self.drop_link(via, &failure);
                        self.failed(lane, via, batch, failure);
                    }
                }
            }
            Done::Renewed {
                lane,
                via,
                sent,
                locks,
                answer,
            } => {
                match &answer {
                    Ok(_) => self.is_well(via),
                    Err(failure) => self.drop_link(via, failure),
                }
                self.renewed(lane, via, sent, locks, answer);
            }
            Done::Issued {
                lane,
                via,
                sent,
                tokens,
                answer,
            } => {
                match &answer {
                    Ok(_) => self.is_well(via),
                    Err(failure) => self.drop_link(via, failure),
                }
                self.issued(lane, via, sent, tokens, answer);
            }
            Done::Looked(result) => self.looked(result),
            Done::Asked(result) => self.masters_answered(result),
            Done::Watched {
                asked,
                than,
                another,
            } => self.watched(asked, &than, another),
            Done::Confirmed {
                node,
                grants,
                known,
            } => self.confirmed(node, grants, known),
        }
    }
}
