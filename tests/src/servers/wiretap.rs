//! A place between client and server where what the client says can be read.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What PostgreSQL's clients ask for TLS with.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Listens at 127.0.0.2, which no certificate of a test has for a name, and keeps what each client
/// sends. It ends with the runtime of the test.
#[derive(Debug)]
pub struct Wiretap {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Wiretap {
    /// On the way to a server.
    ///
    /// # Panics
    ///
    /// When nothing can listen there.
    pub async fn to(server: SocketAddr) -> Self {
        Self::new(Some(server)).await
    }

    /// In the place of a server of PostgreSQL: it says that it has no TLS, and goes on reading.
    ///
    /// # Panics
    ///
    /// When nothing can listen there.
    pub async fn downgrading() -> Self {
        Self::new(None).await
    }

    async fn new(server: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).await;
        let listener = listener.expect("127.0.0.2 is of this machine");
        let address = listener.local_addr().expect("it listens");
        let heard = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let kept = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = {
                    let mut heard = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.push(Vec::new());
                    heard.len() - 1
                };
                tokio::spawn(carry(client, server, Arc::clone(&kept), number));
            }
        });
        Self { address, heard }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was sent to it, without requests for TLS.
    #[must_use]
    pub fn heard(&self) -> Vec<u8> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = heard
            .iter()
            .map(|sent| sent.strip_prefix(&SSL_REQUEST).unwrap_or(sent));
        sent.flatten().copied().collect()
    }

    /// How many bytes of data clients have sent under TLS; one that breaks the handshake off says so in
    /// some 20.
    #[must_use]
    pub fn encrypted(&self) -> usize {
        let heard = self.heard();
        let (mut rest, mut bytes) = (&heard[..], 0);
        while let [kind, _, _, high, low, after @ ..] = rest {
            let len = usize::from(*high) << 8 | usize::from(*low);
            if *kind == 23 {
                bytes += len;
            }
            rest = after.get(len..).unwrap_or_default();
        }
        bytes
    }
}

async fn carry(
    mut client: TcpStream,
    server: Option<SocketAddr>,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    number: usize,
) -> std::io::Result<()> {
    let mut server = match server {
        Some(address) => Some(TcpStream::connect(address).await?),
        None => None,
    };
    let (mut asked, mut answered) = ([0; 4096], [0; 4096]);
    loop {
        let answer = async {
            match &mut server {
                Some(server) => server.read(&mut answered).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            sent = client.read(&mut asked) => {
                let sent = &asked[..sent?];
                if sent.is_empty() {
                    return Ok(());
                }
                heard.lock().unwrap_or_else(PoisonError::into_inner)[number].extend_from_slice(sent);
                match &mut server {
                    Some(server) => server.write_all(sent).await?,
                    None if sent == SSL_REQUEST => client.write_all(b"N").await?,
                    None => {}
                }
            }
            answer = answer => {
                let answer = answer?;
                if answer == 0 {
                    return Ok(());
                }
                client.write_all(&answered[..answer]).await?;
            }
        }
    }
}
