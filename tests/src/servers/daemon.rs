//! What all servers have in common: processes that can be frozen, killed and started again.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use super::clock::WallClock;
use super::guardian::{Guardian, unprivileged};
use super::processes::{descendants, lives, stat};
use crate::timing::eventually;

/// A server's processes and its directory. They end with it.
#[derive(Debug)]
pub struct Daemon {
    guardian: Guardian,
    stop: Signal,
    command: Vec<String>,
    pid: Mutex<Option<Pid>>,
    /// Its own, where it was started with one.
    clock: Option<WallClock>,
}

impl Daemon {
    /// A server that is not running yet and that this signal ends in an orderly manner.
    pub(super) fn new(guardian: Guardian, command: Vec<String>, stop: Signal) -> Self {
        Self {
            guardian,
            stop,
            command,
            pid: Mutex::new(None),
            clock: None,
        }
    }

    /// The same with this clock, which its command preloads.
    pub(super) fn with_clock(self, clock: Option<WallClock>) -> Self {
        Self { clock, ..self }
    }

    /// Where the server keeps its files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.guardian.directory()
    }

    fn log(&self) -> PathBuf {
        self.directory().join("log")
    }

    /// The first of the processes, while the server runs.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        let pid = *self.pid.lock().unwrap_or_else(PoisonError::into_inner);
        pid.filter(|pid| lives(*pid))
    }

    fn all(&self) -> Vec<Pid> {
        let mut all = descendants(self.guardian.pid());
        all.retain(|pid| lives(*pid));
        all
    }

    pub(super) fn start(&self) {
        let pid = self.guardian.spawn(self.command.clone(), &self.log());
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner) = Some(pid);
    }

    /// Returns when `is_ready` says so; panics, with the log, when the server ends before.
    pub(super) async fn until_ready<F: Future<Output = bool>>(
        &self,
        mut is_ready: impl FnMut() -> F,
    ) {
        eventually("the server is ready", || {
            let ready = is_ready();
            async {
                if self.pid().is_none() {
                    let log = std::fs::read_to_string(self.log()).unwrap_or_default();
                    panic!("{:?} has ended: {log}", self.command);
                }
                ready.await
            }
        })
        .await;
    }

    /// Returns when connections to this address are taken.
    pub(super) async fn until_listening(&self, address: SocketAddr) {
        self.until_ready(|| async { TcpStream::connect(address).await.is_ok() })
            .await;
    }

    async fn signal_until(&self, signal: Signal, what: &str, is: impl Fn(char) -> bool) {
        eventually(what, || async {
            let mut all_are = true;
            // The oldest first: what is stopped makes no more children.
            for pid in self.all() {
                if stat(pid).is_none_or(|stat| is(stat.state)) {
                    continue;
                }
                all_are = false;
                // It may have ended since.
                let _ = kill_process(pid, signal);
            }
            all_are
        })
        .await;
    }
}

/// A server that runs in processes of its own. Dropping it kills it and removes its directory.
pub trait Server: Sync {
    /// Its processes.
    fn daemon(&self) -> &Daemon;

    /// Returns when it answers, after it was started.
    fn ready(&self) -> impl Future<Output = ()> + Send;

    /// What it has logged.
    fn log(&self) -> String {
        std::fs::read_to_string(self.daemon().log()).unwrap_or_default()
    }

    /// All of its processes that run or are frozen.
    fn processes(&self) -> Vec<Pid> {
        self.daemon().all()
    }

    /// Kills all of its processes and waits for their end. What it has on disk stays.
    fn kill(&self) -> impl Future<Output = ()> + Send {
        self.daemon().guardian.kill()
    }

    /// Ends it in an orderly manner, without waiting for its clients; returns when it has ended.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {
            let daemon = self.daemon();
            if let Some(pid) = daemon.pid() {
                kill_process(pid, daemon.stop).unwrap();
                eventually("the server ends", || async { daemon.pid().is_none() }).await;
            }
            // What it has left behind, if anything.
            daemon.guardian.kill().await;
        }
    }

    /// Starts it again with the same port and data, after a kill if it runs; returns when it answers.
    fn restart(&self) -> impl Future<Output = ()> + Send {
        async {
            self.kill().await;
            self.daemon().start();
            self.ready().await;
        }
    }

    /// Stops all of its processes where they are; returns when they stand still.
    fn freeze(&self) -> impl Future<Output = ()> + Send {
        let daemon = self.daemon();
        daemon.signal_until(Signal::STOP, "frozen", |state| matches!(state, 'T' | 'Z'))
    }

    /// Puts its wall clock so many seconds ahead of the real one, or behind it.
    ///
    /// # Panics
    ///
    /// When it was started without a [clock of its own](super::ServerOptions::own_clock).
    fn put_clock(&self, seconds: i64) {
        let clock = self.daemon().clock.as_ref();
        clock.expect("it has a clock of its own").put(seconds);
    }

    /// Lets a frozen server go on.
    fn thaw(&self) -> impl Future<Output = ()> + Send {
        let daemon = self.daemon();
        daemon.signal_until(Signal::CONT, "thawed", |state| state != 'T')
    }
}

/// A server's command line: unprivileged, in a network namespace if it is to be in one.
pub(super) fn daemon_command<S: Into<String>>(
    command: impl IntoIterator<Item = S>,
    namespace: Option<&str>,
) -> Vec<String> {
    let command = unprivileged(command);
    let Some(namespace) = namespace else {
        return command;
    };
    let inside = ["ip", "netns", "exec", namespace];
    inside.into_iter().map(Into::into).chain(command).collect()
}
