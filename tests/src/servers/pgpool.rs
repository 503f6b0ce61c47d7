//! Pgpool-II in front of PostgreSQL servers.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::process::Signal;

use super::daemon::{Daemon, Server, daemon_command};
use super::guardian::Guardian;
use super::port::Port;
use super::postgres::PostgresServer;

/// A proxy that sends each statement to one of its servers: see [`Server`] for what can be done to it.
#[derive(Debug)]
pub struct Pgpool {
    daemon: Daemon,
    port: Port,
}

impl Pgpool {
    /// One over a primary and, where there are more, its standbys, to which it sends what only reads; with
    /// these settings, as `pgpool.conf` has them.
    pub async fn over(servers: &[&PostgresServer], settings: &[(&str, &str)]) -> Self {
        let guardian = Guardian::start();
        let (port, control) = (Port::reserve(), Port::reserve());
        let directory = guardian.directory().to_str().unwrap().to_owned();
        let mut conf = format!(
            "backend_clustering_mode = 'streaming_replication'\nlisten_addresses = '127.0.0.1'\n\
             port = {}\npcp_port = {}\nunix_socket_directories = '{directory}'\nsocket_dir = '{directory}'\n\
             pcp_socket_dir = '{directory}'\nwd_ipc_socket_dir = '{directory}'\n\
             pid_file_name = '{directory}/pgpool.pid'\nlogdir = '{directory}'\nwork_dir = '{directory}'\n\
             num_init_children = 8\nload_balance_mode = on\nsr_check_user = 'postgres'\n\
             sr_check_database = 'postgres'\nsr_check_period = 1\nmemory_cache_enabled = off\n",
            port.number(),
            control.number(),
        );
        for (n, server) in servers.iter().enumerate() {
            let (ip, port) = (server.address().ip(), server.address().port());
            write!(
                conf,
                "backend_hostname{n} = '{ip}'\nbackend_port{n} = {port}\nbackend_weight{n} = 1\n\
                 backend_flag{n} = 'DISALLOW_TO_FAILOVER'\n"
            )
            .unwrap();
        }
        for (name, value) in settings {
            // Of several lines the last counts.
            writeln!(conf, "{name} = '{value}'").unwrap();
        }
        let file = guardian.directory().join("pgpool.conf");
        let control = guardian.directory().join("pcp.conf");
        fs::write(&file, conf).unwrap();
        fs::write(&control, "").unwrap();
        let (file, control) = (file.to_str().unwrap(), control.to_str().unwrap());
        let command = daemon_command(["pgpool", "-n", "-f", file, "-F", control], None);
        let pgpool = Self {
            daemon: Daemon::new(guardian, command, Signal::INT),
            port,
        };
        pgpool.daemon.start();
        pgpool.ready().await;
        pgpool
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// A connection string for this role.
    #[must_use]
    pub fn url_for(&self, role: &str) -> String {
        format!("postgres://{role}@{}/postgres", self.address())
    }
}

impl Server for Pgpool {
    fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    async fn ready(&self) {
        self.daemon.until_listening(self.address()).await;
    }
}
