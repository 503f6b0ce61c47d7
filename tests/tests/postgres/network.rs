//! Networks that lose connections as no [`Proxy`](lock_tests::servers::Proxy) does.

use std::net::SocketAddr;
use std::time::Instant;

use lock_tests::servers::PostgresServer;
use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How a network loses connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loses {
    /// That of the client when the test says so; the server keeps its own.
    ClientsWhenTold,
    /// From the first loss on, each session as soon as it is open: when the second connection, which the
    /// library needs until then, is closed.
    Sessions,
}

/// A network between the library and a server. It ends with all of its connections when it is dropped.
pub(crate) struct Network {
    server: SocketAddr,
    address: SocketAddr,
    losses: watch::Sender<Vec<Instant>>,
    _connections: JoinSet<()>,
}

impl Network {
    /// One in which clients can lose their connections while the server keeps them.
    pub(crate) async fn half_open(server: &PostgresServer) -> Self {
        Self::new(server, Loses::ClientsWhenTold).await
    }

    /// One that resets every session as soon as it is open, once it has [lost](Self::lose) one.
    pub(crate) async fn without_rest(server: &PostgresServer) -> Self {
        Self::new(server, Loses::Sessions).await
    }

    async fn new(server: &PostgresServer, loses: Loses) -> Self {
        let server = server.address();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let losses = watch::Sender::default();
        let mut running = JoinSet::new();
        let lose = losses.clone();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.unwrap();
                connections.spawn(connection(client, server, loses, lose.clone()));
            }
        });
        Self {
            server,
            address,
            losses,
            _connections: running,
        }
    }

    /// The server's connection string, changed so that it leads through here.
    pub(crate) fn url(&self, url: &str) -> String {
        url.replacen(&self.server.to_string(), &self.address.to_string(), 1)
    }

    /// All connections are lost now.
    pub(crate) fn lose(&self) {
        lose(&self.losses);
    }

    /// When connections were lost, once that was so often.
    pub(crate) async fn losses(&self, count: usize) -> Vec<Instant> {
        let mut losses = self.losses.subscribe();
        let losses = losses.wait_for(|losses| losses.len() >= count).await;
        losses.unwrap().clone()
    }
}

fn lose(losses: &watch::Sender<Vec<Instant>>) {
    losses.send_modify(|losses| losses.push(Instant::now()));
}

async fn connection(
    mut client: TcpStream,
    mut server: TcpStream,
    loses: Loses,
    losses: watch::Sender<Vec<Instant>>,
) {
    let mut lost = losses.subscribe();
    // A connection that was open before the first loss is part of that one, however late it is closed.
    let is_of_another_session = !losses.borrow().is_empty();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    // Either end can be the first to be seen closed.
    let closed = async {
        tokio::select! {
            _ = copy(&mut from_client, &mut to_server) => {}
            _ = copy(&mut from_server, &mut to_client) => {}
        }
    };
    tokio::select! {
        biased;
        _ = lost.changed() => match loses {
            Loses::ClientsWhenTold => {
                drop(client);
                // The server sees nothing of that.
                std::future::pending::<()>().await;
            }
            Loses::Sessions => {
                let _ = (client.set_zero_linger(), server.set_zero_linger());
            }
        },
        () = closed => {
            if loses == Loses::Sessions && is_of_another_session {
                lose(&losses);
            }
        }
    }
}
