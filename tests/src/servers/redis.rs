//! Redis servers.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue};
use rustix::process::Signal;

use super::certificates::Certificates;
use super::daemon::{Daemon, Server};
use super::guardian::Guardian;
use super::options::ServerOptions;
use super::port::Port;
use crate::timing::eventually;

/// How long a look at the server may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Settings that every server has, unless it is started with others: nothing is kept.
const SETTINGS: [(&str, &str); 3] = [
    ("save", "\"\""),
    ("appendonly", "no"),
    // A replica is there immediately.
    ("repl-diskless-sync-delay", "0"),
];

/// A Redis server of one test: see [`Server`] for what can be done to it.
#[derive(Debug)]
pub struct RedisServer {
    daemon: Daemon,
    port: Port,
    certificates: Option<Certificates>,
    options: RedisOptions,
    /// Of the members of a cluster.
    bus: Option<Port>,
}

/// How a Redis server is started; settings are lines of `redis.conf`, the values as they stand there.
pub type RedisOptions = ServerOptions<OfRedis>;

/// What it has of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfRedis {
    is_member: bool,
    is_sentinel: bool,
}

impl RedisOptions {
    /// It is to be a member of a cluster, whose bus has a port of its own.
    #[must_use]
    pub fn cluster(mut self) -> Self {
        self.kind.is_member = true;
        self
    }

    /// It is a Sentinel, of the master at this address.
    #[must_use]
    pub fn sentinel_of(self, master: SocketAddr) -> Self {
        self.sentinel("shop", master, 1)
    }

    /// It is a Sentinel, which takes the master at this address for dead when so many say that it is.
    fn sentinel(mut self, name: &str, master: SocketAddr, quorum: usize) -> Self {
        self.kind.is_sentinel = true;
        let (host, port) = (master.ip(), master.port());
        let monitor = format!("monitor {name} {host} {port} {quorum}");
        self.setting("sentinel", &monitor)
    }

    /// Starts the server; returns when it answers.
    pub async fn start(self) -> RedisServer {
        let guardian = Guardian::start();
        let (port, bus) = (Port::reserve(), self.kind.is_member.then(Port::reserve));
        let directory = guardian.directory();
        let certificates = self.certificates(directory);
        let conf = directory.join("redis.conf");
        let mut lines = self.connections(directory, port.number(), certificates.as_ref());
        if let Some(bus) = &bus {
            let tls = if certificates.is_some() { "yes" } else { "no" };
            let bus = bus.number();
            writeln!(
                lines,
                "cluster-enabled yes\ncluster-port {bus}\ntls-cluster {tls}"
            )
            .unwrap();
        }
        for (name, value) in self.settings_after(&SETTINGS) {
            writeln!(lines, "{name} {value}").unwrap();
        }
        fs::write(&conf, lines).unwrap();
        if self.kind.is_sentinel {
            // It keeps there what it learns.
            fs::set_permissions(&conf, Permissions::from_mode(0o666)).unwrap();
        }
        let mut command = vec!["redis-server", conf.to_str().unwrap()];
        command.extend(self.kind.is_sentinel.then_some("--sentinel"));
        let command = command.into_iter().map(Into::into).collect();
        let daemon = self.daemon(guardian, command, Signal::TERM).await;
        let server = RedisServer {
            daemon,
            port,
            certificates,
            options: self,
            bus,
        };
        server.daemon.start();
        server.ready().await;
        server
    }

    fn connections(&self, directory: &Path, port: u16, tls: Option<&Certificates>) -> String {
        let ports = match tls {
            None => format!("port {port}"),
            Some(files) => format!(
                "port 0\ntls-port {port}\ntls-auth-clients {}\ntls-replication yes\n\
                 tls-ca-cert-file {}\ntls-cert-file {}\ntls-key-file {}",
                if self.wants_certificate() {
                    "yes"
                } else {
                    "no"
                },
                files.authority.display(),
                files.certificate.display(),
                files.key.display(),
            ),
        };
        let directory = directory.display();
        let address = self.address();
        format!(
            "bind {address}\n{ports}\nprotected-mode no\ndir {directory}\n\
             unixsocket {directory}/socket\nunixsocketperm 700\n"
        )
    }
}

impl RedisServer {
    /// A server that keeps nothing on disk.
    pub async fn start() -> Self {
        Self::options().start().await
    }

    /// One with other settings.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        Self::options().settings(settings).start().await
    }

    /// One that has been up for a day by its own clock: what a server may have forgotten that has just been started
    /// has expired, so that it grants locks immediately, with whatever lease.
    pub async fn up_for_a_day() -> Self {
        let server = Self::options().own_clock().start().await;
        server.put_clock(24 * 3_600);
        server
    }

    /// One that speaks TLS and nothing else.
    pub async fn tls() -> Self {
        Self::options().tls().start().await
    }

    /// More to choose.
    #[must_use]
    pub fn options() -> RedisOptions {
        RedisOptions::default()
    }

    /// A connection string.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme(), self.address())
    }

    /// A connection string with `user:password` or `:password`.
    #[must_use]
    pub fn url_for(&self, credentials: &str) -> String {
        format!("{}://{credentials}@{}", self.scheme(), self.address())
    }

    fn scheme(&self) -> &'static str {
        if self.options.has_tls() {
            "rediss"
        } else {
            "redis"
        }
    }

    /// What a client of a server with TLS has to trust, in PEM.
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        let certificates = self.certificates.as_ref()?;
        Some(&certificates.authority)
    }

    /// A certificate that its authority vouches for, and the key of that, in PEM.
    #[must_use]
    pub fn certificate(&self) -> Option<(&Path, &Path)> {
        let certificates = self.certificates.as_ref()?;
        Some((&certificates.certificate, &certificates.key))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (self.options.address(), self.port()).into()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The port by which the members of a cluster know each other.
    pub(super) fn bus(&self) -> Option<u16> {
        self.bus.as_ref().map(Port::number)
    }

    /// A connection to look at it, over its Unix socket: not part of any network. With the password
    /// that it was started with.
    pub async fn connection(&self) -> MultiplexedConnection {
        self.connect().await.unwrap()
    }

    async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let mut url = format!("unix://{}/socket", self.daemon.directory().display());
        if let Some(password) = self.password() {
            write!(url, "?pass={password}").unwrap();
        }
        let client = redis::Client::open(url)?;
        // The driver's own are half a second and one.
        let patient = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        client
            .get_multiplexed_async_connection_with_config(&patient)
            .await
    }

    /// Gives a command over a connection of its own, and waits for the answer.
    ///
    /// # Errors
    ///
    /// What the server answers, or that the answer is of another type.
    pub async fn ask<T: FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let mut request = redis::cmd(command[0]);
        for argument in &command[1..] {
            request.arg(argument);
        }
        request.query_async(&mut self.connect().await?).await
    }

    /// The password that it was started with.
    pub(super) fn password(&self) -> Option<&str> {
        let settings = &self.options.settings;
        let (_, password) = settings.iter().rfind(|(name, _)| name == "requirepass")?;
        Some(password)
    }

    /// A Sentinel of it, in the same network and with the same TLS, to be started.
    pub(super) fn sentinel(&self, quorum: usize, name: &str) -> RedisOptions {
        let mut options = self.options.clone();
        options.settings.clear();
        options.sentinel(name, self.address(), quorum)
    }

    /// A replica of it with the same settings, in the same network; returns when it is in step.
    pub async fn replica(&self) -> Self {
        let mut options = self.options.clone();
        if let Some(password) = self.password() {
            options = options.setting("masterauth", password);
        }
        let address = self.address();
        let of = format!("{} {}", address.ip(), address.port());
        let replica = options.setting("replicaof", &of).start().await;
        eventually("the replica is in step", || async {
            let info: String = replica.ask(&["INFO", "replication"]).await.unwrap();
            info.contains("master_link_status:up")
        })
        .await;
        self.until_replicas_follow().await;
        replica
    }

    /// Returns when all replicas have acknowledged what was written before: only after the first
    /// acknowledgement, which takes a second, a new one is sent anything.
    pub(super) async fn until_replicas_follow(&self) {
        let info: String = self.ask(&["INFO", "replication"]).await.unwrap();
        let count = info
            .lines()
            .find_map(|line| line.strip_prefix("connected_slaves:"));
        let count: u32 = count.unwrap().trim().parse().unwrap();
        eventually("the replicas follow", || async {
            // Sent to replicas as a write is, and changes nothing.
            let mut commands = redis::pipe();
            commands.cmd("PUBLISH").arg("lock-tests").arg("").ignore();
            commands.cmd("WAIT").arg(count).arg(100);
            let mut connection = self.connection().await;
            let (following,): (u32,) = commands.query_async(&mut connection).await.unwrap();
            following >= count
        })
        .await;
    }

    /// Makes a replica a server of its own, also after a restart.
    pub async fn promote(&self) {
        let () = self.ask(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
        let () = self.ask(&["CONFIG", "REWRITE"]).await.unwrap();
    }
}

impl Server for RedisServer {
    fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    async fn ready(&self) {
        // It refuses while it loads what it has on disk.
        self.daemon
            .until_ready(|| async { self.ask::<String>(&["PING"]).await.is_ok() })
            .await;
    }
}
