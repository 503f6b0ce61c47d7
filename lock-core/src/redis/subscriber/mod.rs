//! The second connection of each node: messages of releases, and what replicas know.

mod calls;
mod events;
mod outages;
mod question;
#[cfg(all(test, not(lock_model)))]
mod tests;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::redis::PushInfo;
use ::redis::aio::MultiplexedConnection;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use self::calls::{Done, Via};
use self::outages::Outages;
pub(super) use self::question::Question;
use super::command::Command;
use super::key::Key;
use super::shared::Shared;
use super::steps::Steps;
use super::topology::Topology;
use super::waiting::Asked;
use crate::outage::{Outage, SoFar};
use crate::panics::{catch, catch_async};
use crate::server::link;

/// Between attempts to connect.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Before a server that refuses to subscribe is asked again.
const REFUSED: Duration = Duration::from_secs(1);

/// Before a channel is asked for again that its node refers to another.
const MOVED: Duration = Duration::from_millis(100);

/// No timer is set for longer.
const NO_TIMER: Duration = Duration::from_secs(3600);

type Call = Pin<Box<dyn Future<Output = Done> + Send>>;

pub(super) struct Subscriber {
    shared: Arc<Shared>,
    topology: watch::Receiver<Arc<Topology>>,
    /// What the connections are of.
    known: Arc<Topology>,
    nodes: Vec<Link>,
    /// By node, the server of its connection.
    run_ids: Vec<String>,
    /// Counts the connections.
    last_connection: u64,
    calls: FuturesUnordered<Call>,
    /// What was said over which connection.
    heard: mpsc::UnboundedReceiver<(Via, PushInfo)>,
    hearing: mpsc::UnboundedSender<(Via, PushInfo)>,
    /// Which servers the commands go to.
    servers: watch::Receiver<Vec<String>>,
    /// By node, what is asked over its connection.
    steps: Vec<Steps>,
    /// Channels that are to be asked for again.
    moved: VecDeque<(Instant, Asked)>,
    heartbeat: Instant,
    questions: mpsc::UnboundedReceiver<Question>,
    /// Not put yet: their connections are being made.
    open_questions: Vec<Question>,
    outages: Vec<Outages>,
    panics: Outage,
}

/// The connection to a node, there or being made.
type Link = link::Link<(MultiplexedConnection, Via), Via>;

impl Subscriber {
    pub(super) fn new(
        shared: Arc<Shared>,
        topology: watch::Receiver<Arc<Topology>>,
        questions: mpsc::UnboundedReceiver<Question>,
    ) -> Self {
        let (hearing, heard) = mpsc::unbounded_channel();
        let heartbeat = Instant::now() + shared.settings.heartbeat();
        let servers = shared.servers.changes();
        let known = Arc::clone(&topology.borrow());
        let mut this = Self {
            shared,
            known,
            topology,
            nodes: Vec::new(),
            run_ids: Vec::new(),
            last_connection: 0,
            calls: FuturesUnordered::new(),
            heard,
            hearing,
            servers,
            steps: Vec::new(),
            moved: VecDeque::new(),
            heartbeat,
            questions,
            open_questions: Vec::new(),
            outages: Vec::new(),
            panics: Outage::new(),
        };
        this.take_nodes();
        this
    }

    /// Until it is dropped. A panic costs its connections, and no lock.
    pub(super) async fn run(mut self) {
        loop {
            let Err(reason) = catch_async(self.serve()).await;
            // The wakers and the logger are the application's, and can panic as well.
            let _ = catch(|| {
                self.start_anew();
                self.panics.failed(|SoFar { failures, lasting }| {
                    tracing::error!(
                        reason,
                        failures,
                        lasting,
                        "the subscriber of Redis locks panicked, and connects again"
                    );
                });
            });
            sleep_until(Instant::now() + RETRY_DELAY).await;
        }
    }

    /// Nothing is connected, asked or subscribed to.
    fn start_anew(&mut self) {
        self.calls.clear();
        let retry_at = Instant::now() + RETRY_DELAY;
        self.nodes.fill_with(|| Link::Down { retry_at });
        self.steps.iter_mut().for_each(Steps::lost);
        self.moved.clear();
        // Where it was on the way, its answer is lost.
        self.open_questions.clear();
        self.shared.waiting.forget(|_, _| true);
    }

    async fn serve(&mut self) -> Infallible {
        loop {
            let again = self.subscribe();
            self.ask_replicas();
            self.beat();
            let shared = Arc::clone(&self.shared);
            let is_up = self.nodes.iter().any(|link| link.up().is_some());
            let mut wake = again.unwrap_or_else(|| Instant::now() + NO_TIMER);
            if is_up {
                wake = wake.min(self.heartbeat);
            }
            tokio::select! {
                biased;
                Some((via, push)) = self.heard.recv() => {
                    self.hear(via, push);
                    while let Ok((via, push)) = self.heard.try_recv() {
                        self.hear(via, push);
                    }
                }
                Ok(()) = self.servers.changed() => self.follow(),
                Some(done) = self.calls.next(), if !self.calls.is_empty() => self.finish(done),
                Ok(()) = self.topology.changed() => self.take_nodes(),
                Some(question) = self.questions.recv() => self.open_questions.push(question),
                () = shared.waiting.changed.notified() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Connects to those that are new, so that the first who waits does not wait for that as well, and
    /// leaves those that are gone.
    fn take_nodes(&mut self) {
        let topology = Arc::clone(&self.topology.borrow_and_update());
        let before = std::mem::replace(&mut self.known, Arc::clone(&topology));
        for (at, info) in topology.nodes.iter().enumerate() {
            if at == self.nodes.len() {
                self.run_ids.push(String::new());
                self.outages.push(Outages::new(info));
                self.steps.push(Steps::default());
                self.nodes.push(Link::down());
            } else if topology.has(at) && before.nodes[at].addr() == info.addr() {
                continue;
            } else {
                self.nodes[at] = Link::down();
                self.steps[at].lost();
                self.outages[at] = Outages::new(info);
            }
            if topology.has(at) {
                self.connection(at);
            }
        }
        // What has moved is asked for where it is now.
        let address = |topology: &Topology, bucket| {
            let at = topology.of_bucket[usize::from(bucket)];
            topology.nodes[at].addr().clone()
        };
        let has_moved = |_: &_, bucket| address(&before, bucket) != address(&topology, bucket);
        self.shared.waiting.forget(has_moved);
    }

    fn is_cluster(&self) -> bool {
        self.topology.borrow().is_cluster
    }

    fn node_of(&self, bucket: u8) -> usize {
        self.topology.borrow().of_bucket[usize::from(bucket)]
    }

    /// Subscribes to what is waited for and leaves what is not; gives when to look again.
    fn subscribe(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while let Some((_, asked)) = self.moved.pop_front_if(|(at, _)| *at <= now) {
            self.shared.waiting.put_back(&asked);
        }
        let mut work = self.shared.waiting.work(now);
        (work.ask.iter()).for_each(|key| self.shared.waiting.wake_readers(&key.text));
        let ask = work.ask.drain(..).map(Command::AcquireForWaiting);
        self.shared.queues.requests.push_all(ask);
        for (key, connection) in work.give_back.drain(..) {
            self.shared.give_back_place(key, connection, None);
        }
        let mut missing = Vec::new();
        for node in 0..self.nodes.len() {
            let of_node = |key: &mut Key| self.node_of(key.bucket) == node;
            let mut subscribe: Vec<Key> = work.subscribe.extract_if(.., of_node).collect();
            let of_node = |key: &mut Key| self.node_of(key.bucket) == node;
            let leave: Vec<Key> = work.leave.extract_if(.., of_node).collect();
            if subscribe.is_empty() && leave.is_empty() {
                continue;
            }
            if self.connection(node).is_none() {
                // Leaving is done where there is no connection.
                missing.append(&mut subscribe);
                continue;
            }
            self.steps[node].leave(&leave);
            self.steps[node].subscribe(&subscribe, work.number);
            self.take_steps(node);
        }
        let again = work.again.into_iter();
        let again = again.chain(self.moved.front().map(|(at, _)| *at));
        if missing.is_empty() {
            return again.min();
        }
        self.shared.waiting.put_back(&Asked {
            keys: missing,
            number: work.number,
        });
        let retry = self.nodes.iter().filter_map(Link::retry_at);
        retry.chain(again).min()
    }

    /// Asks over the connection of this node what can be asked now.
    fn take_steps(&mut self, node: usize) {
        let Some((connection, via)) = self.nodes[node].up().cloned() else {
            return;
        };
        let within = self.shared.settings.answer_within();
        while let Some(step) = self.steps[node].next() {
            let (connection, is_cluster) = (connection.clone(), self.is_cluster());
            let asking = calls::ask(connection, via, step, is_cluster, within);
            self.calls.push(Box::pin(asking));
        }
    }

    fn connection(&mut self, at: usize) -> Option<(MultiplexedConnection, Via)> {
        let link = &self.nodes[at];
        if let Some(up) = link.up() {
            return Some(up.clone());
        }
        if !link.is_due() {
            return None;
        }
        self.last_connection += 1;
        let via = Via {
            node: at,
            number: self.last_connection,
        };
        self.nodes[at] = Link::Connecting(via);
        let info = self.topology.borrow().nodes[at].clone();
        let is_only = !self.is_cluster() && self.shared.sentinels.is_none();
        let (shared, hearing) = (Arc::clone(&self.shared), self.hearing.clone());
        let connecting = calls::connect(shared, info, via, hearing, is_only);
        self.calls.push(Box::pin(connecting));
        None
    }

    /// Puts the questions that can be put.
    fn ask_replicas(&mut self) {
        for question in std::mem::take(&mut self.open_questions) {
            let node = question.node;
            if node >= self.nodes.len() {
                // Known to who asks, and to us in a moment.
                self.open_questions.push(question);
            } else if let Some((connection, via)) = self.connection(node) {
                if !self.shared.servers.is(node, &question.server) {
                    // Commands go to another server by now.
                    continue;
                }
                let shared = Arc::clone(&self.shared);
                let asking = question.ask(shared, connection, via);
                self.calls.push(Box::pin(asking));
            } else if matches!(self.nodes[node], Link::Connecting(_)) {
                self.open_questions.push(question);
            }
        }
    }

    /// A connection that is dead says nothing: it is asked.
    fn beat(&mut self) {
        let now = Instant::now();
        if self.heartbeat > now {
            return;
        }
        let heartbeat = self.shared.settings.heartbeat();
        self.heartbeat = now + heartbeat;
        for link in &self.nodes {
            if let Some((connection, via)) = link.up().cloned() {
                let beating = calls::beat(Arc::clone(&self.shared), connection, via);
                self.calls.push(Box::pin(beating));
            }
        }
    }
}
