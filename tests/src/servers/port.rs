//! Ports that stay free for a server while it is down.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Ports that the kernel never gives to a client: one that tries to connect to a server that is down
/// could otherwise get the server's own port, and with it a connection to itself.
const PORTS: std::ops::Range<u16> = 10_240..32_768;

/// A port of 127.0.0.1 that no other test uses as long as this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// A socket in the abstract namespace: no two processes can bind the same, no file remains, and
    /// the end of this process frees it.
    _reservation: UnixListener,
}

impl Port {
    /// Reserves a port.
    #[must_use]
    pub fn reserve() -> Self {
        loop {
            let number = fastrand::u16(PORTS);
            let name = SocketAddr::from_abstract_name(format!("lock-tests-port-{number}")).unwrap();
            let Ok(_reservation) = UnixListener::bind_addr(&name) else {
                continue;
            };
            // A server of another process.
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self {
                    number,
                    _reservation,
                };
            }
        }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}
