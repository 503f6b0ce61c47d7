//! PostgreSQL servers.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Decode, PgConnection, PgPool, Postgres, Type,
};

use super::certificates::Kind;
use super::daemon::{Daemon, Server, daemon_command};
use super::guardian::{Guardian, unprivileged};
use super::options::ServerOptions;
use super::port::Port;
use super::template::{DATA, copy_template, postgres_program};
use crate::timing::eventually;

/// Settings that every server has, unless it is started with others.
const SETTINGS: [(&str, &str); 4] = [
    // What is killed is the server, not the machine: nothing is lost.
    ("fsync", "off"),
    // Part of the directory, so that a killed server leaves nothing in /dev/shm.
    ("dynamic_shared_memory_type", "mmap"),
    ("shared_buffers", "16MB"),
    ("log_line_prefix", "%m [%p] %a "),
];

/// Members of `by_password` are asked for it, all others are trusted.
const HBA: &str = "\
local all,replication all trust
host all +by_password all scram-sha-256
host all,replication all all trust
";

/// What comes first on a server with TLS.
const HBA_TLS: &str = "hostnossl all,replication all all reject\n";

/// A PostgreSQL server of one test: see [`Server`] for what can be done to it.
///
/// Roles: `postgres`, the superuser; `app`, without rights; `secretive`, with the password `secret`.
/// Only the last is asked for it.
#[derive(Debug)]
pub struct PostgresServer {
    daemon: Daemon,
    port: Port,
    options: PostgresOptions,
    authority: Option<PathBuf>,
}

/// How a PostgreSQL server is started; settings are lines of `postgresql.conf`. `fsync` is off unless
/// it is set.
pub type PostgresOptions = ServerOptions<OfPostgres>;

/// It has nothing of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfPostgres;

impl PostgresOptions {
    /// Starts the server; returns when it answers.
    pub async fn start(self) -> PostgresServer {
        let guardian = Guardian::start();
        copy_template(&guardian).await;
        PostgresServer::over(guardian, self).await
    }

    fn file(&self, directory: &Path, port: u16) -> String {
        let mut file = format!(
            "listen_addresses = '{}'\nport = {port}\nunix_socket_directories = '{}'\nhba_file = '{}'\n",
            self.address(),
            directory.display(),
            directory.join("pg_hba.conf").display(),
        );
        for (name, value) in self.settings_after(&SETTINGS) {
            writeln!(file, "{name} = {}", quoted(value)).unwrap();
        }
        file
    }
}

impl PostgresServer {
    /// A server with the settings of a fresh installation, but that nothing waits for the disk.
    pub async fn start() -> Self {
        Self::options().start().await
    }

    /// One with other settings.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        Self::options().settings(settings).start().await
    }

    /// More to choose.
    #[must_use]
    pub fn options() -> PostgresOptions {
        PostgresOptions::default()
    }

    /// A server over the data that the guardian has in its directory.
    async fn over(guardian: Guardian, options: PostgresOptions) -> Self {
        let port = Port::reserve();
        let directory = guardian.directory();
        let (data, conf) = (directory.join(DATA), directory.join("postgresql.conf"));
        let mut lines = options.file(directory, port.number());
        let mut hba = HBA.to_owned();
        let certificates = options.certificates(directory);
        if let Some(files) = &certificates {
            hba.insert_str(0, HBA_TLS);
            let (certificate, key) = (files.certificate.display(), files.key.display());
            lines +=
                &format!("ssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\n");
        }
        fs::write(&conf, lines).unwrap();
        fs::write(directory.join("pg_hba.conf"), hba).unwrap();
        guardian.finally(remove_shared_memory(&data));
        let command = [
            postgres_program("postgres"),
            "-D".into(),
            data.to_str().unwrap().into(),
            format!("--config-file={}", conf.display()),
        ];
        let daemon = options.daemon(guardian, command.into(), Signal::INT).await;
        let server = Self {
            daemon,
            port,
            options,
            authority: certificates.map(|files| files.authority),
        };
        server.daemon.start();
        server.ready().await;
        server
    }

    /// A connection string for the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_for("postgres", "postgres")
    }

    /// A connection string for a role (or `role:password`) and a database. With TLS it names the
    /// authority and demands the right name.
    #[must_use]
    pub fn url_for(&self, role: &str, database: &str) -> String {
        let url = format!("postgres://{role}@{}/{database}", self.address());
        match &self.authority {
            None => url,
            Some(file) => format!("{url}?sslmode=verify-full&sslrootcert={}", file.display()),
        }
    }

    /// What a client of a server with TLS has to trust, in PEM.
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// The certificate and the key of a client, from the authority of a server with TLS.
    ///
    /// # Panics
    ///
    /// When it has no TLS.
    #[must_use]
    pub fn client_certificate(&self, role: &str) -> (PathBuf, PathBuf) {
        let authority = self.options.authority().expect("it has TLS");
        authority.introduce(self.daemon.directory(), role)
    }

    /// Has a certificate that is valid in these years; returns when new connections are shown it.
    ///
    /// # Panics
    ///
    /// When it has no TLS.
    pub async fn certify(&self, years: Range<i32>) {
        let authority = self.options.authority().expect("it has TLS");
        let of = Kind::InYears(years.start, years.end);
        authority.vouch(self.daemon.directory(), self.options.address(), of);
        self.reload().await;
    }

    /// Replaces the lines of `pg_hba.conf`; returns when they count.
    pub async fn admit(&self, lines: &str) {
        fs::write(self.daemon.directory().join("pg_hba.conf"), lines).unwrap();
        self.reload().await;
    }

    /// Returns when new sessions have what its files say.
    async fn reload(&self) {
        self.set("log_min_messages", "warning").await.unwrap();
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (self.options.address(), self.port()).into()
    }

    /// The port, which is also that of its socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The directory of its Unix socket.
    #[must_use]
    pub fn socket_directory(&self) -> &Path {
        self.daemon.directory()
    }

    /// The directory of its data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.daemon.directory().join(DATA)
    }

    /// Connections to look at it as its superuser, over its Unix socket: not part of any network.
    pub async fn pool(&self) -> PgPool {
        let pool = PgPoolOptions::new().max_connections(4);
        pool.connect_with(self.looking()).await.unwrap()
    }

    fn looking(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.socket_directory())
            .port(self.port())
            .username("postgres")
            .database("postgres")
            .application_name("looking")
            .disable_statement_logging()
    }

    async fn connection(&self) -> PgConnection {
        PgConnection::connect_with(&self.looking()).await.unwrap()
    }

    /// Changes a setting while it runs; returns when new sessions have it. One that needs a restart
    /// gets it with that.
    ///
    /// # Errors
    ///
    /// When the server does not take the value.
    pub async fn set(&self, name: &str, value: &str) -> sqlx::Result<()> {
        let mut connection = self.connection().await;
        let set = format!("ALTER SYSTEM SET {name} = {}", quoted(value));
        sqlx::query(AssertSqlSafe(set))
            .execute(&mut connection)
            .await?;
        let before = self.settings_loaded().await;
        sqlx::query("SELECT pg_reload_conf()")
            .execute(&mut connection)
            .await
            .unwrap();
        eventually("the setting is loaded", || async {
            self.settings_loaded().await > before
        })
        .await;
        // Whether commits wait for a standby is what the checkpointer has last read; it reads before
        // a checkpoint, but may have been past that when it was asked to.
        for _ in 0..2 {
            sqlx::query("CHECKPOINT")
                .execute(&mut connection)
                .await
                .unwrap();
        }
        Ok(())
    }

    async fn settings_loaded(&self) -> f64 {
        // A new session has the settings of the postmaster.
        self.look("SELECT extract(epoch FROM pg_conf_load_time())::float8")
            .await
    }

    /// The one value of a query, in a session of its own.
    async fn look<T>(&self, query: &str) -> T
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin,
    {
        let query = sqlx::query_scalar(AssertSqlSafe(query));
        let value = query.fetch_one(&mut self.connection().await).await;
        value.unwrap()
    }

    /// Ends the sessions of that application name, alone or before an instance; returns how many there were, when
    /// they are gone: on a busy machine one lives on for a while after its client was notified.
    pub async fn terminate_backends(&self, application_name: &str) -> usize {
        let all = sqlx::query_as::<_, (i32, bool)>(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = $1 OR starts_with(application_name, $1 || ' ')",
        );
        let gone = sqlx::query("SELECT pg_terminate_backend(pid, 10000) FROM unnest($1) AS pid");
        let mut connection = self.connection().await;
        let ended = all.bind(application_name).fetch_all(&mut connection).await;
        let ended = ended.unwrap().into_iter().filter(|(_, ended)| *ended);
        let ended: Vec<_> = ended.map(|(pid, _)| pid).collect();
        gone.bind(&ended).execute(&mut connection).await.unwrap();
        ended.len()
    }

    /// A standby of it with the same settings, in the same network, that streams as the application
    /// `standby`; returns when it does. What was [`set`](Self::set) here before is set there as well.
    pub async fn standby(&self) -> Self {
        let guardian = Guardian::start();
        let backup = [
            postgres_program("pg_basebackup"),
            format!(
                "--dbname=host={} port={} user=postgres application_name=standby",
                self.options.address(),
                self.port()
            ),
            format!("--pgdata={}", guardian.directory().join(DATA).display()),
            "--write-recovery-conf".into(),
            "--wal-method=stream".into(),
            "--checkpoint=fast".into(),
            "--no-sync".into(),
        ];
        let backup = daemon_command(backup, self.options.namespace_name());
        guardian.run(backup).await;
        let standby = Self::over(guardian, self.options.clone()).await;
        eventually("the standby streams", || async {
            let streams =
                "SELECT count(*) > 0 FROM pg_stat_wal_receiver WHERE status = 'streaming'";
            standby.look(streams).await
        })
        .await;
        standby
    }

    /// Returns when a standby has replayed all that its primary had written when this was called.
    pub async fn catch_up_with(&self, primary: &Self) {
        let written: String = primary.look("SELECT pg_current_wal_lsn()::text").await;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn");
        eventually("the standby has caught up", || self.look(&replayed)).await;
    }

    /// Makes a standby a server of its own; returns when it takes writes.
    pub async fn promote(&self) {
        let promoted: bool = self.look("SELECT pg_promote()").await;
        assert!(promoted, "the standby was promoted: {}", self.log());
    }
}

impl Server for PostgresServer {
    fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    async fn ready(&self) {
        let file = self.data().join("postmaster.pid");
        self.daemon
            .until_ready(|| async {
                // The first line is the pid, since one of an earlier start may still be there.
                let file = fs::read_to_string(&file).unwrap_or_default();
                let mut lines = file.lines();
                let pid = lines.next().and_then(|pid| pid.parse().ok());
                let ours = self.daemon.pid().map(|pid| pid.as_raw_nonzero().get());
                pid == ours
                    && lines
                        .next_back()
                        .is_some_and(|state| state.trim() == "ready")
            })
            .await;
    }
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// Every server has a tiny segment of System V shared memory, which a killed one leaves behind.
fn remove_shared_memory(data: &Path) -> Vec<String> {
    let script = r#"sed -n 7p "$0" | while read -r key id; do ipcrm -m "$id"; done"#;
    let file = data.join("postmaster.pid");
    let command = ["sh", "-c", script, file.to_str().unwrap()];
    unprivileged(command)
}
