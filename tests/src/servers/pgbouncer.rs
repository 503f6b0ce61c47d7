//! PgBouncer in front of a PostgreSQL server.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::process::{Signal, kill_process};

use super::daemon::{Daemon, Server, daemon_command};
use super::guardian::Guardian;
use super::port::Port;
use super::postgres::PostgresServer;
use crate::timing::eventually;

/// A pooler of connections: see [`Server`] for what can be done to it. It lets in `postgres` and
/// `app` without a password. As everywhere in front of sqlx, it ignores the `extra_float_digits` that
/// the driver starts a session with.
#[derive(Debug)]
pub struct PgBouncer {
    daemon: Daemon,
    port: Port,
}

impl PgBouncer {
    /// One that gives a client a session for a transaction at a time.
    pub async fn transaction(server: &PostgresServer) -> Self {
        Self::with(server, &[("pool_mode", "transaction")]).await
    }

    /// One that gives a client a session for as long as it stays.
    pub async fn session(server: &PostgresServer) -> Self {
        Self::with(server, &[("pool_mode", "session")]).await
    }

    /// One with these settings, as `pgbouncer.ini` has them.
    pub async fn with(server: &PostgresServer, settings: &[(&str, &str)]) -> Self {
        let (guardian, port) = (Guardian::start(), Port::reserve());
        let users = guardian.directory().join("users");
        fs::write(&users, "\"postgres\" \"\"\n\"app\" \"\"\n").unwrap();
        let mut ini = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n\
             server_tls_sslmode = prefer\nignore_startup_parameters = extra_float_digits\n",
            server.address().ip(),
            server.port(),
            port.number(),
            users.display(),
        );
        for (name, value) in settings {
            writeln!(ini, "{name} = {value}").unwrap();
        }
        let file = guardian.directory().join("pgbouncer.ini");
        fs::write(&file, ini).unwrap();
        let command = daemon_command(["pgbouncer", file.to_str().unwrap()], None);
        let bouncer = Self {
            daemon: Daemon::new(guardian, command, Signal::TERM),
            port,
        };
        bouncer.daemon.start();
        bouncer.ready().await;
        bouncer
    }

    /// Changes a setting while it runs; returns when it counts.
    pub async fn set(&self, name: &str, value: &str) {
        let file = self.daemon.directory().join("pgbouncer.ini");
        let mut ini = fs::read_to_string(&file).unwrap();
        // Of several lines the last counts.
        writeln!(ini, "{name} = {value}").unwrap();
        fs::write(&file, ini).unwrap();
        let reloads = || self.log().matches("re-reading config").count();
        let before = reloads();
        kill_process(self.daemon.pid().expect("it runs"), Signal::HUP).unwrap();
        eventually("the pooler has read its file", || async {
            reloads() > before
        })
        .await;
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// A connection string for the superuser of the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.address())
    }
}

impl Server for PgBouncer {
    fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    async fn ready(&self) {
        self.daemon.until_listening(self.address()).await;
    }
}
