//! The guardian from the side of the test.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, getuid};

use super::keep::{Answer, NOBODY, Order};

/// How long it takes from one look at what cannot be awaited to the next.
const LOOK: Duration = Duration::from_millis(1);

/// A process that is the parent of others. Dropping it ends them, and removes the directory.
#[derive(Debug)]
pub(super) struct Guardian {
    process: Child,
    /// `None` only when it is being dropped.
    wire: Option<Mutex<Wire>>,
    directory: PathBuf,
}

#[derive(Debug)]
struct Wire {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Wire {
    fn read(&mut self) -> Answer {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the guardian has ended");
        serde_json::from_str(&line).unwrap()
    }
}

impl Guardian {
    pub(super) fn start() -> Self {
        let mut process = Command::new(program())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut wire = Wire {
            orders: process.stdin.take().unwrap(),
            answers: BufReader::new(process.stdout.take().unwrap()),
        };
        let Answer::Directory(directory) = wire.read() else {
            panic!("the guardian does not say where its directory is");
        };
        Self {
            process,
            wire: Some(Mutex::new(wire)),
            directory,
        }
    }

    /// A directory that exists as long as the guardian, and belongs to the user that servers run as.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed()).unwrap()
    }

    fn order(&self, order: &Order) -> Answer {
        let wire = self.wire.as_ref().expect("it was not dropped");
        let mut wire = wire.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = serde_json::to_vec(order).unwrap();
        line.push(b'\n');
        wire.orders.write_all(&line).unwrap();
        match wire.read() {
            Answer::Failed(why) => panic!("{order:?}: {why}"),
            answer => answer,
        }
    }

    /// Starts a program that is to go on.
    pub(super) fn spawn(&self, command: Vec<String>, log: &Path) -> Pid {
        let log = log.to_owned();
        match self.order(&Order::Start { command, log }) {
            Answer::Started(pid) => Pid::from_raw(pid).unwrap(),
            answer => panic!("{answer:?}"),
        }
    }

    /// Runs a program to its end.
    ///
    /// # Panics
    ///
    /// With what it has printed, when it fails.
    pub(super) async fn run(&self, command: Vec<String>) {
        let log = self.directory.join("run.log");
        let pid = self.spawn(command.clone(), &log).as_raw_nonzero().get();
        let status = loop {
            match self.order(&Order::Ended(pid)) {
                Answer::Ended(status) => break status,
                _ => tokio::time::sleep(LOOK).await,
            }
        };
        if status != Some(0) {
            let printed = std::fs::read_to_string(log).unwrap_or_default();
            panic!("{command:?} ended with {status:?}: {printed}");
        }
    }

    /// Kills everything that was started and waits for the end of it.
    pub(super) async fn kill(&self) {
        while matches!(self.order(&Order::Kill), Answer::Running) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Has a program run at the very end.
    pub(super) fn finally(&self, command: Vec<String>) {
        self.order(&Order::Finally(command));
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // This is the end of its standard input.
        self.wire = None;
        // What it has started must not outlive the test that looks.
        let _ = self.process.wait();
    }
}

/// The command line as one that runs with no rights to speak of, and ends with the guardian.
pub(super) fn unprivileged<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Vec<String> {
    let mut line: Vec<String> = vec!["setpriv".into(), "--pdeathsig=KILL".into()];
    if getuid().is_root() {
        line.push(format!("--reuid={NOBODY}"));
        line.push(format!("--regid={NOBODY}"));
        line.push("--clear-groups".into());
    }
    line.push("--".into());
    line.extend(command.into_iter().map(Into::into));
    line
}

/// Where this build has the programs of the package.
pub(super) fn programs() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    // A program is beside them, a test or a bench in `deps`, an example in `examples`.
    let directory = exe.ancestors().skip(1).take(2);
    let mut with_guardian = directory.filter(|directory| directory.join("guardian").is_file());
    let found = with_guardian.next().map(Path::to_owned);
    found.expect("the program `guardian` is built: cargo build -p lock-tests --bin guardian")
}

fn program() -> PathBuf {
    programs().join("guardian")
}
