//! A network that misbehaves on demand, in front of a server.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::port::Port;

/// How many pieces are under way in one direction before the sender has to wait.
const UNDER_WAY: usize = 1024;

/// One of the two directions of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// A TCP proxy with switches. It runs on a thread of its own, so that a busy test does not slow it
/// down, and ends, with all of its connections, when it is dropped.
///
/// It acknowledges what it holds or swallows, as no dead network does: use a [`Lan`](super::Lan)
/// where a kernel is to notice.
#[derive(Debug)]
pub struct Proxy {
    /// Where the first connections led.
    target: SocketAddr,
    port: Port,
    switches: Arc<Switches>,
    listen: mpsc::UnboundedSender<(bool, oneshot::Sender<()>)>,
}

/// What a direction does with what arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flow {
    #[default]
    Passes,
    Waits,
    IsLost,
}

#[derive(Clone, Copy, Debug, Default)]
struct Way {
    delay: Duration,
    flow: Flow,
    /// What changes each piece that passes.
    corrupt: Option<fn(&mut Vec<u8>)>,
}

/// Whether a piece of a stream is the one that is meant.
type IsIt = fn(&[u8]) -> bool;

#[derive(Debug)]
struct Switches {
    to_server: watch::Sender<Way>,
    to_client: watch::Sender<Way>,
    /// Where new connections lead, in turn.
    targets: Mutex<VecDeque<SocketAddr>>,
    /// Which reply is to be lost.
    drop_next_reply: Mutex<Option<IsIt>>,
    /// Counts the resets.
    reset: watch::Sender<u64>,
    /// What clients are sent that no server said, and how often.
    injected: watch::Sender<(u64, Vec<u8>)>,
    /// Counts the pieces that clients have sent.
    asked: AtomicUsize,
}

impl Switches {
    fn way(&self, direction: Direction) -> &watch::Sender<Way> {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

impl Proxy {
    /// A proxy for connections to this address.
    pub async fn to(target: SocketAddr) -> Self {
        let port = Port::reserve();
        let switches = Arc::new(Switches {
            to_server: watch::Sender::default(),
            to_client: watch::Sender::default(),
            targets: Mutex::new([target].into()),
            drop_next_reply: Mutex::default(),
            reset: watch::Sender::new(0),
            injected: watch::Sender::default(),
            asked: AtomicUsize::new(0),
        });
        let (listen, listening) = mpsc::unbounded_channel();
        let proxy = Self {
            target,
            port,
            switches: Arc::clone(&switches),
            listen,
        };
        let address = proxy.address();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(run(address, switches, listening));
        });
        proxy.listen(true).await;
        proxy
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// The server's connection string, changed so that it leads through here.
    ///
    /// # Panics
    ///
    /// When it does not contain the address of the server.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        let target = self.target.to_string();
        assert!(url.contains(&target), "{url} does not lead to {target}");
        url.replacen(&target, &self.address().to_string(), 1)
    }

    /// New connections lead to another server; those that exist stay where they are. As an address that
    /// follows a fail-over.
    pub fn lead_to(&self, target: SocketAddr) {
        self.balance([target]);
    }

    /// New connections lead to these servers in turn, the next to the first of them; those that exist stay
    /// where they are. As a balancer of connections.
    ///
    /// # Panics
    ///
    /// Without a server.
    pub fn balance(&self, targets: impl Into<VecDeque<SocketAddr>>) {
        let targets = targets.into();
        assert!(!targets.is_empty(), "connections lead somewhere");
        *self.switches.targets.lock().unwrap() = targets;
    }

    /// What arrives from now on is passed on this much later, in either direction.
    pub fn delay(&self, delay: Duration) {
        for way in [&self.switches.to_server, &self.switches.to_client] {
            way.send_modify(|way| way.delay = delay);
        }
    }

    /// What arrives from now on waits, and is passed on when this is [healed](Self::heal): a
    /// network that comes back.
    pub fn hold(&self, direction: Direction) {
        self.switches
            .way(direction)
            .send_modify(|way| way.flow = Flow::Waits);
    }

    /// What arrives from now on, ends of connections included, is lost. A stream with a hole is no
    /// fault that TCP knows: connections that have lost something are reset when this is healed.
    pub fn swallow(&self, direction: Direction) {
        self.switches
            .way(direction)
            .send_modify(|way| way.flow = Flow::IsLost);
    }

    /// What arrives from now on is changed by this before it is passed on, a piece of the stream at a
    /// time: a broken or hostile server. What has become empty is lost.
    pub fn corrupt(&self, direction: Direction, change: fn(&mut Vec<u8>)) {
        self.switches
            .way(direction)
            .send_modify(|way| way.corrupt = Some(change));
    }

    /// The next that a server sends is lost, and that connection is reset: the command was carried
    /// out, and its client cannot know.
    pub fn drop_next_reply(&self) {
        self.drop_next_reply_that(|_| true);
    }

    /// The same of the next that is such a one: a client can have other connections through here.
    pub fn drop_next_reply_that(&self, is_it: IsIt) {
        *self.switches.drop_next_reply.lock().unwrap() = Some(is_it);
    }

    /// Sends these bytes to all clients, as if their server had.
    pub fn inject(&self, bytes: &[u8]) {
        self.switches
            .injected
            .send_modify(|(times, injected)| (*times, *injected) = (*times + 1, bytes.to_vec()));
    }

    /// In each piece that arrives from now on a few bits are wrong.
    pub fn garble(&self, direction: Direction) {
        self.switches
            .way(direction)
            .send_modify(|way| way.corrupt = Some(garble));
    }

    /// How many pieces clients have sent: as many as round trips, of a client that waits for each answer.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.switches.asked.load(Ordering::Relaxed)
    }

    /// Resets all connections, at both ends. New ones are taken as before.
    pub fn reset(&self) {
        self.switches.reset.send_modify(|resets| *resets += 1);
    }

    /// New connections are refused; those that exist stay.
    pub async fn refuse(&self) {
        self.listen(false).await;
    }

    /// Everything passes, at once.
    pub async fn heal(&self) {
        *self.switches.drop_next_reply.lock().unwrap() = None;
        for way in [&self.switches.to_server, &self.switches.to_client] {
            way.send_replace(Way::default());
        }
        self.listen(true).await;
    }

    async fn listen(&self, listen: bool) {
        let (done, is_done) = oneshot::channel();
        self.listen.send((listen, done)).expect("the proxy runs");
        is_done.await.expect("the proxy runs");
    }
}

/// Takes connections until the proxy is dropped.
async fn run(
    address: SocketAddr,
    switches: Arc<Switches>,
    mut listening: mpsc::UnboundedReceiver<(bool, oneshot::Sender<()>)>,
) {
    let mut listener = None;
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            match &listener {
                Some(listener) => TcpListener::accept(listener).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = listening.recv() => {
                let Some((listen, done)) = order else { return };
                if !listen {
                    listener = None;
                } else if listener.is_none() {
                    listener = Some(TcpListener::bind(address).await.expect("the port is reserved"));
                }
                let _ = done.send(());
            }
            client = accept => {
                if let Ok((client, _)) = client {
                    let resets = switches.reset.subscribe();
                    let target = {
                        let mut targets = switches.targets.lock().unwrap();
                        targets.rotate_left(1);
                        targets[targets.len() - 1]
                    };
                    connections.spawn(connection(client, target, resets, Arc::clone(&switches)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    mut client: TcpStream,
    target: SocketAddr,
    mut resets: watch::Receiver<u64>,
    switches: Arc<Switches>,
) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        // The nearest to a refusal for one that was accepted.
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let both = async {
        tokio::try_join!(
            pump(from_client, to_server, Direction::ToServer, &switches),
            pump(from_server, to_client, Direction::ToClient, &switches),
        )
    };
    let orderly = tokio::select! {
        _ = resets.changed() => false,
        ended = both => ended.is_ok(),
    };
    if !orderly {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// What was read, and when it is to be passed on; nothing read is the end of the stream.
type Piece = (Instant, Vec<u8>);

/// Passes on one direction until its end; an error is a connection that is to be reset.
async fn pump(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    direction: Direction,
    switches: &Switches,
) -> io::Result<()> {
    let (pieces, arrived) = mpsc::channel(UNDER_WAY);
    tokio::try_join!(
        read(from, pieces, direction, switches),
        write(to, arrived, switches.way(direction).subscribe()),
    )?;
    Ok(())
}

async fn read(
    mut from: ReadHalf<'_>,
    pieces: mpsc::Sender<Piece>,
    direction: Direction,
    switches: &Switches,
) -> io::Result<()> {
    let mut way = switches.way(direction).subscribe();
    let mut injected = switches.injected.subscribe();
    let mut lost = false;
    loop {
        let mut piece = Vec::with_capacity(16 * 1024);
        let length = tokio::select! {
            length = from.read_buf(&mut piece) => Some(length?),
            Ok(()) = injected.changed(), if direction == Direction::ToClient => None,
            _ = way.wait_for(|way| lost && way.flow != Flow::IsLost) => return Err(reset()),
        };
        let Some(length) = length else {
            let (_, bytes) = injected.borrow_and_update().clone();
            if pieces.send((Instant::now(), bytes)).await.is_err() {
                return Ok(());
            }
            continue;
        };
        if length > 0 && direction == Direction::ToServer {
            switches.asked.fetch_add(1, Ordering::Relaxed);
        }
        let now = *way.borrow_and_update();
        if now.flow == Flow::IsLost {
            lost = true;
            if length == 0 {
                let _ = way.wait_for(|way| way.flow != Flow::IsLost).await;
                return Err(reset());
            }
            continue;
        }
        if length > 0 && direction == Direction::ToClient {
            let mut next = switches.drop_next_reply.lock().unwrap();
            if next.take_if(|is_it| is_it(&piece)).is_some() {
                return Err(reset());
            }
        }
        if let Some(change) = now.corrupt.filter(|_| length > 0) {
            change(&mut piece);
            if piece.is_empty() {
                continue;
            }
        }
        let due = Instant::now() + now.delay;
        if pieces.send((due, piece)).await.is_err() || length == 0 {
            return Ok(());
        }
    }
}

async fn write(
    mut to: WriteHalf<'_>,
    mut arrived: mpsc::Receiver<Piece>,
    mut way: watch::Receiver<Way>,
) -> io::Result<()> {
    while let Some((due, piece)) = arrived.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        let _ = way.wait_for(|way| way.flow != Flow::Waits).await;
        if piece.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&piece).await?;
    }
    Ok(())
}

/// Flips a low bit here and there: a high one of a length would have its reader wait for gigabytes.
fn garble(piece: &mut Vec<u8>) {
    for byte in piece {
        if fastrand::u8(..) < 4 {
            *byte ^= 1 << fastrand::u8(..3);
        }
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
