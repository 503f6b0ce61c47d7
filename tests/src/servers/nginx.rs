//! nginx in front of a server of HTTP.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::process::Signal;

use super::daemon::{Daemon, Server, daemon_command};
use super::guardian::Guardian;
use super::port::Port;

/// A reverse proxy: see [`Server`] for what can be done to it. It takes bodies of any size.
#[derive(Debug)]
pub struct Nginx {
    daemon: Daemon,
    port: Port,
}

impl Nginx {
    /// One that passes requests on to this address, with its own defaults.
    pub async fn before(upstream: SocketAddr) -> Self {
        Self::with(upstream, &[]).await
    }

    /// One with these directives in its `location`.
    pub async fn with(upstream: SocketAddr, directives: &[(&str, &str)]) -> Self {
        let (guardian, port) = (Guardian::start(), Port::reserve());
        let mut location = format!("proxy_pass http://{upstream};\n");
        for (name, value) in directives {
            writeln!(location, "{name} {value};").unwrap();
        }
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {kind};\n"))
            .concat();
        let configuration = format!(
            "daemon off;\npid nginx.pid;\nworker_processes 1;\nevents {{}}\nhttp {{\n\
             access_log off;\nclient_max_body_size 0;\n{temporary}\
             server {{\nlisten 127.0.0.1:{};\nlocation / {{\n{location}}}\n}}\n}}\n",
            port.number(),
        );
        let file = guardian.directory().join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let directory = guardian.directory().to_str().unwrap().to_owned();
        let file = file.to_str().unwrap().to_owned();
        let program = ["nginx", "-e", "stderr", "-p", &directory, "-c", &file];
        let command = daemon_command(program, None);
        let nginx = Self {
            daemon: Daemon::new(guardian, command, Signal::TERM),
            port,
        };
        nginx.daemon.start();
        nginx.ready().await;
        nginx
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }
}

impl Server for Nginx {
    fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    async fn ready(&self) {
        self.daemon.until_listening(self.address()).await;
    }
}
