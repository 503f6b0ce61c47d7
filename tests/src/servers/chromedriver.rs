//! A browser that tests drive.

use std::net::{Ipv4Addr, SocketAddr};

use rustix::process::Signal;

use super::daemon::{Daemon, Server, daemon_command};
use super::guardian::Guardian;
use super::port::Port;

/// What starts browsers, and what they keep: see [`Server`]. They end with it.
#[derive(Debug)]
pub struct Chromedriver {
    daemon: Daemon,
    port: Port,
}

impl Chromedriver {
    /// One without a browser.
    pub async fn start() -> Self {
        let (guardian, port) = (Guardian::start(), Port::reserve());
        let directory = guardian.directory().display().to_string();
        let of = |variable: &str| format!("{variable}={directory}");
        let program = [
            "env".to_owned(),
            of("HOME"),
            of("TMPDIR"),
            of("XDG_CONFIG_HOME"),
            of("XDG_CACHE_HOME"),
            "chromedriver".to_owned(),
            format!("--port={}", port.number()),
        ];
        let driver = Self {
            daemon: Daemon::new(guardian, daemon_command(program, None), Signal::TERM),
            port,
        };
        driver.daemon.start();
        driver.ready().await;
        driver
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }
}

impl Server for Chromedriver {
    fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    async fn ready(&self) {
        self.daemon.until_listening(self.address()).await;
    }
}
