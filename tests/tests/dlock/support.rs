//! `dlock` over stores of the test.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use lock_tests::servers::{PostgresServer, RedisServer, lives};
use lock_tests::{eventually, examples};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Nothing here takes longer on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| examples::program_of("lock-cli", "dlock"));

/// What would have `dlock` look elsewhere.
const SETTINGS: [&str; 13] = [
    "DATABASE_URL",
    "REDIS_URL",
    "LOCK_PROVIDER",
    "LOCK_NAMESPACE",
    "LOCK_INSTANCE",
    "LOCK_DIR",
    "LOCK_LEASE",
    "LOCK_TABLE",
    "LOCK_NAME_SECRET",
    "LOCK_SWITCH",
    "LOCK_MARKER",
    "LOCK_NAME",
    "LOCK_FENCING_TOKEN",
];

/// A store, as the environment names it.
pub(crate) struct Place {
    pub(crate) environment: Vec<(&'static str, String)>,
    /// For files that a test writes, too.
    pub(crate) directory: TempDir,
    pub(crate) postgres: Option<PostgresServer>,
    pub(crate) redis: Option<RedisServer>,
}

impl Place {
    fn at(variable: &'static str, value: impl FnOnce(&Path) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let value = value(directory.path());
        Self {
            environment: vec![(variable, value)],
            directory,
            postgres: None,
            redis: None,
        }
    }

    pub(crate) fn files() -> Self {
        Self::at("LOCK_DIR", |path| path.join("locks").display().to_string())
    }

    pub(crate) async fn postgres() -> Self {
        let server = PostgresServer::start().await;
        let mut place = Self::at("DATABASE_URL", |_| server.url());
        place.postgres = Some(server);
        place
    }

    /// A server that is new grants no lock for a lease.
    pub(crate) async fn redis() -> Self {
        let server = RedisServer::up_for_a_day().await;
        let mut place = Self::at("REDIS_URL", |_| server.url());
        place.redis = Some(server);
        place
    }

    /// Has the server end the sessions of `dlock`, and with them their locks.
    pub(crate) async fn end_sessions(&self) {
        let server = self.postgres.as_ref().unwrap();
        assert!(server.terminate_backends("distributed_lock").await > 0);
    }

    /// The same server, with the locks in a table.
    pub(crate) async fn table() -> Self {
        let mut place = Self::postgres().await;
        let provider = ("LOCK_PROVIDER", "postgres-table".to_owned());
        place.environment.push(provider);
        place
    }

    /// Whether the locks are rows.
    pub(crate) fn is_table(&self) -> bool {
        (self.environment.iter()).any(|(_, value)| value == "postgres-table")
    }

    pub(crate) async fn all() -> [Self; 4] {
        [
            Self::files(),
            Self::postgres().await,
            Self::table().await,
            Self::redis().await,
        ]
    }

    /// `dlock`, not started yet.
    pub(crate) fn dlock<W: AsRef<OsStr>>(&self, words: &[W]) -> Command {
        let mut command = Command::new(&*PROGRAM);
        for setting in SETTINGS {
            command.env_remove(setting);
        }
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(words)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Another program that runs it: its last arguments are those of `dlock`.
    pub(crate) fn through(&self, program: &str, arguments: &[&str], words: &[&str]) -> Command {
        let dlock = self.dlock(words);
        let dlock = dlock.as_std();
        let set = dlock.get_envs();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(dlock.get_program())
            .args(dlock.get_args())
            .envs(set.filter_map(|(name, value)| Some((name, value?))))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end.
    pub(crate) async fn output<W: AsRef<OsStr>>(&self, words: &[W]) -> Output {
        let output = self.dlock(words).output();
        timeout(PATIENCE, output).await.expect("it ends").unwrap()
    }

    /// Runs something under `job:one` to its end.
    pub(crate) async fn run(&self, words: &[&str]) -> Output {
        let words: Vec<_> = ["run", "job:one"].iter().chain(words).copied().collect();
        self.output(&words).await
    }

    /// Starts a script of the shell under `job:one`; its first line of output is waited for.
    pub(crate) async fn start(&self, options: &[&str], script: &str) -> Running {
        let words: Vec<_> = ["run", "job:one"]
            .iter()
            .chain(options)
            .chain(&["--", "sh", "-c", script])
            .copied()
            .collect();
        Running::spawn(self.dlock(&words)).await
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A `dlock run` whose command has said a first line.
pub(crate) struct Running {
    process: Child,
    pub(crate) input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    pub(crate) first: String,
}

impl Running {
    pub(crate) async fn spawn(mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut running = Self {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()).lines(),
            process,
            first: String::new(),
        };
        running.first = running.line().await.expect("the command says something");
        running
    }

    pub(crate) async fn line(&mut self) -> Option<String> {
        let line = timeout(PATIENCE, self.output.next_line()).await;
        line.expect("it says something or ends").unwrap()
    }

    pub(crate) async fn say(&mut self, line: &str) {
        self.input.write_all(line.as_bytes()).await.unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        let pid = self.process.id().expect("it was not waited for");
        Pid::from_raw(pid.cast_signed()).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end; gives what it has said on standard error, too.
    pub(crate) async fn ended(self) -> (ExitStatus, String) {
        let Self { process, input, .. } = self;
        drop(input);
        let output = timeout(PATIENCE, process.wait_with_output()).await;
        let output = output.expect("it ends").unwrap();
        (output.status, text(&output.stderr))
    }
}

/// The processes of these numbers, which a command has printed.
pub(crate) fn pids(line: &str) -> Vec<Pid> {
    let numbers = line
        .split_whitespace()
        .map(|number| number.parse().unwrap());
    numbers
        .map(|number| Pid::from_raw(number).unwrap())
        .collect()
}

/// Returns when none of them runs.
pub(crate) async fn until_gone(pids: &[Pid]) {
    eventually("the processes end", || async {
        !pids.iter().any(|pid| lives(*pid))
    })
    .await;
}
