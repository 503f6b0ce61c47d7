//! The thread's work: commands in, calls out, one loop.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionInfo, Value, cmd, from_redis_value};
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::backend::PATIENCE;
use super::clock::ServerClock;
use super::command::{Acquire, Command, Probe, Release};
use super::connect::{ask, check, open};
use super::exchange::{Batch, HAND_OVER};
use super::key::Key;
use super::renewal::Renewals;
use super::scripts::{EXCHANGE, Failure};
use super::shared::{HeldLock, Shared};
use super::topology::Topology;
use crate::LockError;
use crate::name::key::redis_server_key;

/// How many locks one call releases or acquires.
const MAX_BATCH: usize = 128;

/// How many calls are on their way: few, so that batches grow with the load.
const MAX_CALLS: usize = 4;

/// Between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// How long releases are still tried for after the last user has left.
const FAREWELL: Duration = Duration::from_secs(2);

/// Between questions to a cluster which node has what.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// No timer is set for longer.
const FAR: Duration = Duration::from_secs(3600);

type Call = Pin<Box<dyn Future<Output = Done> + Send>>;

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) lanes: Vec<Lane>,
    pub(super) nodes: Vec<Node>,
    pub(super) calls: FuturesUnordered<Call>,
    pub(super) renewals: Renewals,
    /// The newest token that we know of.
    pub(super) newest: u64,
    topology: watch::Sender<Arc<Topology>>,
    /// By when they are due, and counted.
    parked: BTreeMap<(Instant, u64), Command>,
    parked_ever: u64,
    handed_over: HashMap<Key, Instant>,
    /// The same, the first to end first.
    handed_over_until: VecDeque<(Instant, Key)>,
    looked: Option<Instant>,
    quarantine_until: Option<Instant>,
}

/// Keys that can share a call: all of a server, or a bucket of a cluster.
pub(super) struct Lane {
    pub(super) server_key: String,
    pub(super) node: usize,
    pub(super) releases: VecDeque<Release>,
    pub(super) acquires: VecDeque<Acquire>,
    pub(super) probes: Vec<Probe>,
    /// The server is to be told that its clock jumped.
    pub(super) jumped: bool,
    in_flight: usize,
}

impl Lane {
    fn is_idle(&self) -> bool {
        self.releases.is_empty()
            && self.acquires.is_empty()
            && self.probes.is_empty()
            && !self.jumped
            && self.in_flight == 0
    }
}

/// One server.
pub(super) struct Node {
    info: ConnectionInfo,
    link: Link,
    /// Counts the connections.
    generation: u64,
    backoff: Duration,
    pub(super) clock: ServerClock,
}

enum Link {
    Down { retry_at: Instant },
    Connecting,
    Up(MultiplexedConnection),
}

/// What a call led to.
pub(super) enum Done {
    Connected {
        node: usize,
        result: Result<Opened, LockError>,
    },
    Exchanged {
        lane: usize,
        generation: u64,
        sent: Duration,
        batch: Batch,
        answer: Result<Vec<Value>, Failure>,
    },
    Renewed {
        lane: usize,
        generation: u64,
        sent: Duration,
        locks: Vec<HeldLock>,
        answer: Result<Vec<Value>, Failure>,
    },
    Looked(Result<Topology, LockError>),
}

/// A connection to a server that can keep locks, and when which time was read there.
pub(super) struct Opened {
    pub(super) connection: MultiplexedConnection,
    pub(super) is_cluster: bool,
    sent: Duration,
    received: Duration,
    time: u64,
}

/// Connects and checks.
pub(super) async fn connect(info: &ConnectionInfo, shared: &Shared) -> Result<Opened, LockError> {
    let settings = &shared.settings;
    let mut connection = open(info, settings, None).await?;
    let about = check(&mut connection, settings).await?;
    let sent = shared.clock.now();
    let time = ask(&mut connection, &cmd("TIME"), settings.connect_timeout()).await?;
    let received = shared.clock.now();
    let (seconds, micros): (u64, u64) = from_redis_value(time).map_err(|error| {
        LockError::unavailable("the Redis server has no time").with_source(error)
    })?;
    Ok(Opened {
        connection,
        is_cluster: about.is_cluster,
        sent,
        received,
        time: seconds * 1_000_000 + micros,
    })
}

impl Driver {
    /// Over the connection that was made first, to this node.
    pub(super) fn new(
        shared: Arc<Shared>,
        topology: watch::Sender<Arc<Topology>>,
        first: &ConnectionInfo,
        opened: Opened,
    ) -> Self {
        let layout = Arc::clone(&topology.borrow());
        let namespace = &shared.settings.namespace;
        let lanes = if layout.is_cluster {
            layout.of_bucket.len()
        } else {
            1
        };
        let lane = |bucket: usize| Lane {
            server_key: redis_server_key(namespace, u8::try_from(bucket).unwrap_or_default()),
            node: layout.of_bucket[bucket],
            releases: VecDeque::new(),
            acquires: VecDeque::new(),
            probes: Vec::new(),
            jumped: false,
            in_flight: 0,
        };
        let mut driver = Self {
            lanes: (0..lanes).map(lane).collect(),
            nodes: layout.nodes.iter().cloned().map(Node::new).collect(),
            calls: FuturesUnordered::new(),
            renewals: Renewals::new(shared.settings.heartbeat()),
            newest: 0,
            topology,
            parked: BTreeMap::new(),
            parked_ever: 0,
            handed_over: HashMap::new(),
            handed_over_until: VecDeque::new(),
            looked: None,
            quarantine_until: None,
            shared,
        };
        let node = driver
            .nodes
            .iter()
            .position(|node| node.info.addr() == first.addr());
        if let Some(node) = node {
            driver.connected(node, Ok(opened));
        }
        driver
    }

    /// Until the last user has left.
    pub(super) async fn run(mut self) {
        let mut commands = Vec::new();
        let mut farewell = None;
        loop {
            let more = self.shared.inbox.take(&mut commands);
            commands.drain(..).for_each(|command| self.receive(command));
            self.unpark();
            self.renew();
            self.dispatch();
            if !more {
                let end = *farewell.get_or_insert_with(|| Instant::now() + FAREWELL);
                let is_idle = self.parked.is_empty() && self.lanes.iter().all(Lane::is_idle);
                if is_idle || end <= Instant::now() {
                    return;
                }
            }
            let wake = self
                .next_look()
                .min(farewell.unwrap_or_else(|| Instant::now() + FAR));
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                biased;
                Some(done) = self.calls.next(), if !self.calls.is_empty() => {
                    self.finish(done);
                    while let Some(Some(done)) = self.calls.next().now_or_never() {
                        self.finish(done);
                    }
                }
                () = shared.inbox.filled.notified() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    pub(super) fn lane_of(&self, bucket: u8) -> usize {
        usize::from(bucket) % self.lanes.len()
    }

    fn receive(&mut self, command: Command) {
        match command {
            Command::Acquire(acquire) => match self.handed_over.get(&acquire.key) {
                Some(&until) if until > Instant::now() => {
                    self.park(until, Command::Acquire(acquire));
                }
                _ => {
                    let lane = self.lane_of(acquire.key.bucket);
                    self.lanes[lane].acquires.push_back(acquire);
                }
            },
            Command::Release(release) => {
                let lane = self.lane_of(release.key.bucket);
                self.lanes[lane].releases.push_back(release);
            }
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

    pub(super) fn park(&mut self, until: Instant, command: Command) {
        self.parked_ever += 1;
        self.parked.insert((until, self.parked_ever), command);
    }

    fn unpark(&mut self) {
        let now = Instant::now();
        while let Some(first) = self.parked.first_entry()
            && first.key().0 <= now
        {
            let command = first.remove();
            self.receive(command);
        }
    }

    /// Others wait for what was released: they go first.
    pub(super) fn hand_over(&mut self, release: &Release) {
        let now = Instant::now();
        while let Some((until, key)) = self
            .handed_over_until
            .pop_front_if(|(until, _)| *until <= now)
        {
            // Not if it was handed over once more.
            if self.handed_over.get(&key) == Some(&until) {
                self.handed_over.remove(&key);
            }
        }
        let until = now + HAND_OVER;
        self.handed_over.insert(release.key.clone(), until);
        self.handed_over_until
            .push_back((until, release.key.clone()));
    }

    pub(super) fn in_quarantine(&mut self, left: Duration) {
        let now = Instant::now();
        if self.quarantine_until.is_none_or(|until| until <= now) {
            tracing::warn!(
                ?left,
                "the Redis server has lost its memory, or its clock was put: no lock is granted \
                 until those that it has forgotten have ended"
            );
            self.quarantine_until = Some(now + left);
        }
    }

    /// When there is something to do without being told.
    fn next_look(&self) -> Instant {
        let now = Instant::now();
        let mut next = now + FAR;
        if !self.shared.held.is_empty() {
            next = next.min(self.renewals.next);
        }
        for at in self
            .renewals
            .again
            .into_iter()
            .chain(self.parked.first_key_value().map(|((at, _), _)| *at))
        {
            next = next.min(at);
        }
        let boot = self.shared.clock.now();
        for lane in &self.lanes {
            if lane.is_idle() {
                continue;
            }
            if let Link::Down { retry_at } = self.nodes[lane.node].link {
                next = next.min(retry_at);
            }
            if let Some(acquire) = lane.acquires.front() {
                next = next.min(now + acquire.until.saturating_sub(boot));
            }
        }
        next
    }

    /// Sends what can be sent.
    fn dispatch(&mut self) {
        let now = self.shared.clock.now();
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].is_idle() {
                continue;
            }
            self.expire(lane, now);
            while self.lanes[lane].in_flight < MAX_CALLS {
                let waits = &self.lanes[lane];
                if waits.releases.is_empty()
                    && waits.acquires.is_empty()
                    && waits.probes.is_empty()
                    && !waits.jumped
                {
                    break;
                }
                let Some((connection, generation)) = self.connection(lane) else {
                    break;
                };
                let batch = self.take(lane);
                if batch.is_empty() {
                    break;
                }
                self.send(lane, connection, generation, batch);
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
                self.give_up(lane, acquire, LockError::unanswered());
            }
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

    fn take(&mut self, lane: usize) -> Batch {
        let lane = &mut self.lanes[lane];
        let releases = lane.releases.len().min(MAX_BATCH);
        let mut batch = Batch {
            releases: lane.releases.drain(..releases).collect(),
            acquires: Vec::new(),
            probes: std::mem::take(&mut lane.probes),
            jumped: std::mem::take(&mut lane.jumped),
        };
        while batch.releases.len() + batch.acquires.len() < MAX_BATCH {
            match lane.acquires.pop_front() {
                // Nobody waits for it, and nothing was sent.
                Some(acquire) if acquire.reply.is_closed() && acquire.ghost.is_none() => {}
                Some(acquire) => batch.acquires.push(acquire),
                None => break,
            }
        }
        batch
    }

    fn send(
        &mut self,
        lane: usize,
        mut connection: MultiplexedConnection,
        generation: u64,
        batch: Batch,
    ) {
        let is_cluster = self.lanes.len() > 1;
        let settings = &self.shared.settings;
        let within = settings.answer_within();
        let sent = self.shared.clock.now();
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
        self.calls.push(Box::pin(async move {
            let answer = EXCHANGE.invoke(&mut connection, &call, within).await;
            Done::Exchanged {
                lane,
                generation,
                sent,
                batch,
                answer,
            }
        }));
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Connected { node, result } => self.connected(node, result),
            Done::Exchanged {
                lane,
                generation,
                sent,
                batch,
                answer,
            } => {
                self.lanes[lane].in_flight -= 1;
                match answer {
                    Ok(values) => self.answered(lane, sent, batch, values),
                    Err(failure) => {
                        self.drop_link(lane, generation, &failure);
                        self.failed(lane, batch, failure);
                    }
                }
            }
            Done::Renewed {
                lane,
                generation,
                sent,
                locks,
                answer,
            } => {
                if let Err(failure) = &answer {
                    self.drop_link(lane, generation, failure);
                }
                self.renewed(lane, sent, locks, answer);
            }
            Done::Looked(result) => self.looked(result),
        }
    }

    /// The connection of a lane; where there is none, one is asked for.
    pub(super) fn connection(&mut self, lane: usize) -> Option<(MultiplexedConnection, u64)> {
        let at = self.lanes[lane].node;
        let node = &mut self.nodes[at];
        match &node.link {
            Link::Up(connection) => return Some((connection.clone(), node.generation)),
            Link::Connecting => return None,
            Link::Down { retry_at } if *retry_at > Instant::now() => return None,
            Link::Down { .. } => {}
        }
        node.link = Link::Connecting;
        let (info, shared) = (node.info.clone(), Arc::clone(&self.shared));
        self.calls.push(Box::pin(async move {
            let result = connect(&info, &shared).await;
            Done::Connected { node: at, result }
        }));
        None
    }

    fn connected(&mut self, node: usize, result: Result<Opened, LockError>) {
        let this = &mut self.nodes[node];
        match result {
            Ok(opened) => {
                this.link = Link::Up(opened.connection);
                this.generation += 1;
                this.backoff = BACKOFF.0;
                let margin = self.shared.settings.margin();
                let jump = this
                    .clock
                    .observe(opened.sent, opened.received, opened.time, margin);
                if jump == Some(super::clock::Jump::Forward) {
                    self.jumped(node);
                }
            }
            Err(error) => {
                this.link = Link::Down {
                    retry_at: Instant::now() + this.backoff,
                };
                this.backoff = (this.backoff * 2).min(BACKOFF.1);
                let reason = format!("{error}");
                tracing::warn!(%reason, "a Redis server cannot be connected to");
                self.without(node, &reason);
            }
        }
    }

    /// What waited for this node is told that it is not there; releases wait on.
    fn without(&mut self, node: usize, reason: &str) {
        let error = || {
            LockError::unavailable("the Redis server cannot be connected to")
                .with_source(reason.to_owned())
        };
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].node != node {
                continue;
            }
            for acquire in std::mem::take(&mut self.lanes[lane].acquires) {
                self.give_up(lane, acquire, error());
            }
            for probe in std::mem::take(&mut self.lanes[lane].probes) {
                let _ = probe.send(Err(error()));
            }
        }
        if self.lanes.len() > 1 {
            self.look();
        }
    }

    /// Nothing more goes over a connection that may be dead, or whose server is no master.
    fn drop_link(&mut self, lane: usize, generation: u64, failure: &Failure) {
        let node = &mut self.nodes[self.lanes[lane].node];
        let is_dead = matches!(failure, Failure::Unknown(_));
        let is_single = self.lanes.len() == 1;
        if node.generation == generation
            && matches!(node.link, Link::Up(_))
            && (is_dead || (is_single && failure.is_elsewhere()))
        {
            node.link = Link::Down {
                retry_at: Instant::now(),
            };
        }
    }

    /// The keys of a lane are elsewhere.
    pub(super) fn look_for_nodes(&mut self, lane: usize) {
        if self.lanes.len() > 1 {
            tracing::debug!(lane, "a bucket is on another node of the Redis cluster");
            self.look();
        }
    }

    /// Asks the cluster which node has what.
    fn look(&mut self) {
        let now = Instant::now();
        if self.looked.is_some_and(|looked| looked + LOOK_AGAIN > now) {
            return;
        }
        self.looked = Some(now);
        let shared = Arc::clone(&self.shared);
        let mut candidates: Vec<_> = self
            .nodes
            .iter()
            .map(|node| match &node.link {
                Link::Up(connection) => (node.info.clone(), Some(connection.clone())),
                _ => (node.info.clone(), None),
            })
            .collect();
        let seeds = shared.settings.target.seeds.iter();
        candidates.extend(seeds.map(|seed| (seed.clone(), None)));
        // Those that are connected first.
        candidates.sort_by_key(|(_, connection)| connection.is_none());
        self.calls.push(Box::pin(async move {
            let mut last = LockError::unavailable("the Redis cluster has no node");
            for (info, connection) in candidates {
                let connection = match connection {
                    Some(connection) => Ok(connection),
                    None => open(&info, &shared.settings, None).await,
                };
                let topology = match connection {
                    Ok(mut connection) => {
                        Topology::of_cluster(&mut connection, &info, &shared.settings).await
                    }
                    Err(error) => Err(error),
                };
                match topology {
                    Ok(topology) => return Done::Looked(Ok(topology)),
                    Err(error) => last = error,
                }
            }
            Done::Looked(Err(last))
        }));
    }

    fn looked(&mut self, result: Result<Topology, LockError>) {
        let found = match result {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the Redis cluster does not say which node has what");
                return;
            }
        };
        // Nodes keep their places: calls on their way know them by these.
        let places: Vec<usize> = found
            .nodes
            .into_iter()
            .map(|info| {
                let known = self
                    .nodes
                    .iter()
                    .position(|node| node.info.addr() == info.addr());
                known.unwrap_or_else(|| {
                    self.nodes.push(Node::new(info));
                    self.nodes.len() - 1
                })
            })
            .collect();
        for (lane, place) in self.lanes.iter_mut().zip(&found.of_bucket) {
            lane.node = places[*place];
        }
        self.topology.send_replace(Arc::new(Topology {
            is_cluster: true,
            nodes: self.nodes.iter().map(|node| node.info.clone()).collect(),
            of_bucket: self.lanes.iter().map(|lane| lane.node).collect(),
        }));
    }
}

impl Node {
    fn new(info: ConnectionInfo) -> Self {
        Self {
            info,
            link: Link::Down {
                retry_at: Instant::now(),
            },
            generation: 0,
            backoff: BACKOFF.0,
            clock: ServerClock::default(),
        }
    }
}
