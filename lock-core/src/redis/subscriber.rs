//! The second connection of each node: messages of releases, and what replicas know.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{PushInfo, PushKind, RedisError, Value, cmd, pipe};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::command::Command;
use super::connect::open;
use super::key::{Key, millis};
use super::shared::Shared;
use super::topology::Topology;
use super::waiting::Asked;
use crate::LockError;
use crate::outage::{Outage, SoFar};
use crate::panics::{catch, catch_async};

/// How many channels are asked for at a time.
const MAX_CHANNELS: usize = 512;

/// Between attempts to connect or to subscribe.
const AGAIN: Duration = Duration::from_millis(200);

/// No timer is set for longer.
const FAR: Duration = Duration::from_secs(3600);

/// The scripts' own: a server key is kept for 30 days.
const KEPT: u64 = 30 * 24 * 3600 * 1000;

type Call = Pin<Box<dyn Future<Output = Done> + Send>>;

pub(super) struct Subscriber {
    shared: Arc<Shared>,
    topology: watch::Receiver<Arc<Topology>>,
    nodes: Vec<Link>,
    /// Counts the connections.
    last_connection: u64,
    calls: FuturesUnordered<Call>,
    heard: mpsc::UnboundedReceiver<PushInfo>,
    hearing: mpsc::UnboundedSender<PushInfo>,
    heartbeat: Instant,
    questions: mpsc::UnboundedReceiver<Question>,
    /// Not put yet: their connections are being made.
    open_questions: Vec<Question>,
    troubles: Vec<Troubles>,
    panics: Outage,
}

/// Whether as many replicas as are wanted know what this node has written so far. Dropped: no.
pub(super) struct Question {
    pub(super) node: usize,
    /// What can be written to there: a server key.
    pub(super) key: String,
    pub(super) reply: oneshot::Sender<bool>,
}

/// What the log says of one node.
struct Troubles {
    server: String,
    /// There is no connection.
    away: Outage,
    /// There is one, and the server does not subscribe.
    refused: Outage,
    /// It does not say what its replicas know.
    silent: Outage,
}

enum Link {
    Down { retry_at: Instant },
    Connecting,
    Up(MultiplexedConnection, Via),
}

/// Which connection something was asked over: the node may have another by now.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Via {
    node: usize,
    number: u64,
}

enum Done {
    Connected(usize, Result<MultiplexedConnection, LockError>),
    Subscribed(Via, Asked, Result<(), Trouble>),
    Left(Via, Result<(), Trouble>),
    Lives(Via, Result<(), Trouble>),
    Replicated(Via, Result<(), Trouble>),
}

/// Why channels are not subscribed to.
enum Trouble {
    /// The server refuses.
    Refused(RedisError),
    /// The connection is dead, or may be.
    Gone,
}

impl Subscriber {
    pub(super) fn new(
        shared: Arc<Shared>,
        topology: watch::Receiver<Arc<Topology>>,
        questions: mpsc::UnboundedReceiver<Question>,
    ) -> Self {
        let (hearing, heard) = mpsc::unbounded_channel();
        let heartbeat = Instant::now() + shared.settings.heartbeat();
        let mut this = Self {
            shared,
            topology,
            nodes: Vec::new(),
            last_connection: 0,
            calls: FuturesUnordered::new(),
            heard,
            hearing,
            heartbeat,
            questions,
            open_questions: Vec::new(),
            troubles: Vec::new(),
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
            sleep_until(Instant::now() + AGAIN).await;
        }
    }

    /// Nothing is connected, asked or subscribed to.
    fn start_anew(&mut self) {
        self.calls.clear();
        let retry_at = Instant::now() + AGAIN;
        self.nodes.fill_with(|| Link::Down { retry_at });
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
            let is_up = self.nodes.iter().any(|link| matches!(link, Link::Up(..)));
            let mut wake = again.unwrap_or_else(|| Instant::now() + FAR);
            if is_up {
                wake = wake.min(self.heartbeat);
            }
            tokio::select! {
                biased;
                Some(push) = self.heard.recv() => {
                    self.hear(push);
                    while let Ok(push) = self.heard.try_recv() {
                        self.hear(push);
                    }
                }
                Some(done) = self.calls.next(), if !self.calls.is_empty() => self.finish(done),
                Ok(()) = self.topology.changed() => {
                    self.take_nodes();
                    // What has moved is asked for where it is now; the rest once more.
                    shared.waiting.forget(|_, _| true);
                }
                Some(question) = self.questions.recv() => self.open_questions.push(question),
                () = shared.waiting.changed.notified() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Connects to those that are new, so that the first who waits does not wait for that as well.
    fn take_nodes(&mut self) {
        let count = self.topology.borrow_and_update().nodes.len();
        for at in self.nodes.len()..count {
            self.nodes.push(Link::Down {
                retry_at: Instant::now(),
            });
            self.troubles.push(Troubles {
                server: self.topology.borrow().nodes[at].addr().to_string(),
                away: Outage::new(),
                refused: Outage::new(),
                silent: Outage::new(),
            });
            self.connection(at);
        }
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
        let mut work = self.shared.waiting.work(now);
        let mut missing = Vec::new();
        for node in 0..self.nodes.len() {
            let of_node = |key: &mut Key| self.node_of(key.bucket) == node;
            let mut subscribe: Vec<Key> = work.subscribe.extract_if(.., of_node).collect();
            let of_node = |key: &mut Key| self.node_of(key.bucket) == node;
            let mut leave: Vec<Key> = work.leave.extract_if(.., of_node).collect();
            if subscribe.is_empty() && leave.is_empty() {
                continue;
            }
            let Some((connection, via)) = self.connection(node) else {
                // Leaving is done where there is no connection.
                missing.append(&mut subscribe);
                continue;
            };
            while !leave.is_empty() {
                let rest = leave.split_off(leave.len().min(MAX_CHANNELS));
                let some = std::mem::replace(&mut leave, rest);
                self.ask(connection.clone(), "UNSUBSCRIBE", some, move |_, result| {
                    Done::Left(via, result)
                });
            }
            while !subscribe.is_empty() {
                let rest = subscribe.split_off(subscribe.len().min(MAX_CHANNELS));
                let some = std::mem::replace(&mut subscribe, rest);
                let number = work.number;
                self.ask(
                    connection.clone(),
                    "SUBSCRIBE",
                    some,
                    move |keys, result| Done::Subscribed(via, Asked { keys, number }, result),
                );
            }
        }
        if missing.is_empty() {
            return work.again;
        }
        self.shared.waiting.put_back(&missing);
        let retry = self.nodes.iter().filter_map(|node| match node {
            Link::Down { retry_at } => Some(*retry_at),
            _ => None,
        });
        retry.chain(work.again).min()
    }

    fn connection(&mut self, at: usize) -> Option<(MultiplexedConnection, Via)> {
        match &self.nodes[at] {
            Link::Up(connection, via) => return Some((connection.clone(), *via)),
            Link::Connecting => return None,
            Link::Down { retry_at } if *retry_at > Instant::now() => return None,
            Link::Down { .. } => {}
        }
        self.nodes[at] = Link::Connecting;
        let info = self.topology.borrow().nodes[at].clone();
        let (shared, hearing) = (Arc::clone(&self.shared), self.hearing.clone());
        self.calls.push(Box::pin(async move {
            Done::Connected(at, open(&info, &shared.settings, Some(hearing)).await)
        }));
        None
    }

    /// One command for each channel: the driver counts one answer for each.
    fn ask(
        &self,
        mut connection: MultiplexedConnection,
        command: &'static str,
        keys: Vec<Key>,
        done: impl FnOnce(Vec<Key>, Result<(), Trouble>) -> Done + Send + 'static,
    ) {
        let sharded = self.is_cluster();
        let mut commands = pipe();
        for key in &keys {
            let name = if sharded {
                format!("S{command}")
            } else {
                command.to_owned()
            };
            commands.cmd(&name).arg(&*key.text);
        }
        let within = self.shared.settings.answer_within();
        let count = keys.len();
        self.calls.push(Box::pin(async move {
            let answers = connection.send_packed_commands(&commands, 0, count);
            let result = match timeout(within, answers).await {
                Ok(Ok(answers)) => answers
                    .into_iter()
                    .try_for_each(|answer| answer.extract_error().map(drop))
                    .map_err(Trouble::Refused),
                Ok(Err(_)) | Err(_) => Err(Trouble::Gone),
            };
            done(keys, result)
        }));
    }

    /// Puts the questions that can be put.
    fn ask_replicas(&mut self) {
        for question in std::mem::take(&mut self.open_questions) {
            let node = question.node;
            if node >= self.nodes.len() {
                // Known to who asks, and to us in a moment.
                self.open_questions.push(question);
            } else if let Some((connection, via)) = self.connection(node) {
                let (replicas, within) = (
                    self.shared.settings.replicas,
                    self.shared.settings.answer_within(),
                );
                let wait = self.shared.settings.replicas_within();
                self.calls.push(Box::pin(async move {
                    let asking = question.put(connection, replicas, wait);
                    let result = timeout(within, asking).await;
                    Done::Replicated(via, result.unwrap_or(Err(Trouble::Gone)))
                }));
            } else if matches!(self.nodes[node], Link::Connecting) {
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
        let within = self.shared.settings.answer_within();
        for link in &self.nodes {
            let Link::Up(connection, via) = link else {
                continue;
            };
            let (mut connection, via) = (connection.clone(), *via);
            self.calls.push(Box::pin(async move {
                // Which every user of locks may ask.
                let time = cmd("TIME");
                let answer = timeout(within, connection.send_packed_command(&time)).await;
                let lives = matches!(answer, Ok(Ok(_)));
                Done::Lives(via, if lives { Ok(()) } else { Err(Trouble::Gone) })
            }));
        }
    }

    fn hear(&mut self, push: PushInfo) {
        match push.kind {
            PushKind::Message | PushKind::SMessage => {
                if let Some(Value::BulkString(channel)) = push.data.first()
                    && let Ok(channel) = std::str::from_utf8(channel)
                {
                    let waited = self.shared.waiting.waited_at(channel);
                    let acquire = waited.map(Command::AcquireForWaiting);
                    self.shared.inbox.push_all(acquire);
                }
            }
            // It does not say of which connection: they are asked.
            PushKind::Disconnection => self.heartbeat = Instant::now(),
            _ => {}
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Connected(node, Ok(connection)) => {
                self.last_connection += 1;
                let number = self.last_connection;
                self.nodes[node] = Link::Up(connection, Via { node, number });
                self.troubles[node].is_back();
            }
            Done::Connected(at, Err(error)) => {
                self.nodes[at] = Link::Down {
                    retry_at: Instant::now() + AGAIN,
                };
                self.troubles[at].is_away(&error);
            }
            Done::Subscribed(via, asked, Ok(())) => {
                self.troubles[via.node].is_taken();
                self.shared.waiting.confirmed(&asked);
            }
            Done::Subscribed(via, _, Err(Trouble::Refused(error))) => {
                self.down(via);
                self.troubles[via.node].is_refused(&error);
            }
            Done::Subscribed(via, _, Err(Trouble::Gone))
            | Done::Left(via, Err(_))
            | Done::Lives(via, Err(_))
            | Done::Replicated(via, Err(Trouble::Gone)) => self.down(via),
            Done::Replicated(via, Err(Trouble::Refused(error))) => {
                self.troubles[via.node].is_silent(&error);
            }
            Done::Replicated(via, Ok(())) => self.troubles[via.node].speaks(),
            Done::Left(_, Ok(())) | Done::Lives(_, Ok(())) => {}
        }
    }

    /// Nothing is subscribed to over a connection that is gone.
    fn down(&mut self, via: Via) {
        let at = via.node;
        // One before that ends late says nothing about the one that there is.
        if !matches!(self.nodes[at], Link::Up(_, present) if present == via) {
            return;
        }
        self.nodes[at] = Link::Down {
            retry_at: Instant::now() + AGAIN,
        };
        let topology = Arc::clone(&self.topology.borrow());
        self.shared
            .waiting
            .forget(|_, bucket| topology.of_bucket[usize::from(bucket)] == at);
    }
}

impl Troubles {
    fn is_away(&mut self, error: &dyn Error) {
        self.away.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                server = %self.server, %error, failures, lasting,
                "releases in Redis are not heard: waiters ask for their locks from time to time"
            );
        });
    }

    fn is_back(&mut self) {
        self.away.over(|lasted| {
            tracing::info!(server = %self.server, ?lasted, "releases in Redis can be heard again");
        });
    }

    fn is_refused(&mut self, error: &dyn Error) {
        self.refused.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                server = %self.server, %error, failures, lasting,
                "the Redis server refuses a subscription: waiters ask for their locks from time to time"
            );
        });
    }

    fn is_taken(&mut self) {
        self.refused.over(|lasted| {
            tracing::info!(server = %self.server, ?lasted, "the Redis server takes subscriptions again");
        });
    }

    fn is_silent(&mut self, error: &dyn Error) {
        self.silent.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                server = %self.server, %error, failures, lasting,
                "the Redis server does not tell what its replicas know: no lock is granted"
            );
        });
    }

    fn speaks(&mut self) {
        self.silent.over(|lasted| {
            tracing::info!(server = %self.server, ?lasted, "the Redis server tells again what its replicas know");
        });
    }
}

impl Question {
    async fn put(
        self,
        mut connection: MultiplexedConnection,
        replicas: u8,
        wait: Duration,
    ) -> Result<(), Trouble> {
        let mut commands = pipe();
        commands.cmd("PEXPIRE").arg(&self.key).arg(KEPT);
        commands.cmd("WAIT").arg(replicas).arg(millis(wait));
        let answers = connection.send_packed_commands(&commands, 0, 2).await;
        let mut numbers = Vec::new();
        for answer in answers.map_err(|_| Trouble::Gone)? {
            match answer.extract_error().map_err(Trouble::Refused)? {
                Value::Int(number) => numbers.push(number),
                _ => return Err(Trouble::Gone),
            }
        }
        // Without a key there was no write, and the count is of an earlier one.
        let known = matches!(numbers[..], [1, know] if know >= i64::from(replicas));
        // Nobody may wait any more.
        let _ = self.reply.send(known);
        Ok(())
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use ::redis::RedisConnectionInfo;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::super::builder::RedisBuilder;
    use super::*;

    /// To a server that says yes twice, to what the driver tells of itself, and then nothing.
    async fn connection() -> MultiplexedConnection {
        let (ours, mut server) = duplex(1024);
        server.write_all(b"+OK\r\n+OK\r\n").await.unwrap();
        let info = RedisConnectionInfo::default();
        let made = MultiplexedConnection::new(&info, ours).await;
        made.unwrap().0
    }

    #[tokio::test]
    async fn the_late_end_of_an_earlier_connection_is_not_that_of_the_present_one() {
        let settings = RedisBuilder::parse("redis://127.0.0.1").settings().unwrap();
        let topology = Topology::single(settings.target.seeds[0].clone());
        let (_changes, topology) = watch::channel(Arc::new(topology));
        let (_ask, questions) = mpsc::unbounded_channel();
        let mut this = Subscriber::new(Arc::new(Shared::new(settings)), topology, questions);
        let present = |this: &Subscriber| match this.nodes[0] {
            Link::Up(_, via) => Some(via),
            _ => None,
        };
        this.finish(Done::Connected(0, Ok(connection().await)));
        let first = present(&this).unwrap();
        this.finish(Done::Left(first, Err(Trouble::Gone)));
        assert!(present(&this).is_none());
        this.finish(Done::Connected(0, Ok(connection().await)));
        // Asked while the first was there, and given up when the second was.
        this.finish(Done::Lives(first, Err(Trouble::Gone)));
        let second = present(&this).unwrap();
        this.finish(Done::Lives(second, Err(Trouble::Gone)));
        assert!(present(&this).is_none());
    }
}
