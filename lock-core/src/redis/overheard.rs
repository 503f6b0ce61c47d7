//! What a server says to a connection before it is asked anything.
//!
//! That it has too many clients, or refuses other machines, it says as soon as it takes a connection, and then
//! ends that. A client that has written meanwhile is sent a reset, which costs it the words. So who wants to know
//! them connects once more, and listens.

use std::time::Duration;

use ::redis::{ConnectionAddr, ConnectionInfo};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long it has for that: it does not wait for anything.
const WITHIN: Duration = Duration::from_millis(250);

/// The longest line that is read.
const LONGEST: usize = 512;

/// Its first line, if it says one. In TLS there is none before the handshake.
pub(super) async fn overheard(info: &ConnectionInfo) -> Option<String> {
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return None;
    };
    let listening = async {
        let server = TcpStream::connect((host.as_str(), *port)).await.ok()?;
        server.readable().await.ok()?;
        let mut line = [0; LONGEST];
        // It is written in one piece.
        let length = server.try_read(&mut line).ok()?;
        Some(String::from_utf8_lossy(&line[..length]).into_owned())
    };
    timeout(WITHIN, listening).await.ok()?
}
