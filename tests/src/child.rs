//! Processes of the programs `locker` and `stresser`, from the side of the test.

use std::ffi::OsStr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::timing::eventually;

/// No answer of a child takes longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that locks what the test says. It is killed when this is dropped, and ends by itself
/// when its standard input does.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// How many bytes of memory a process has.
#[must_use]
pub fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes.unwrap().parse::<u64>().unwrap() * 1024
}

impl Child {
    /// Starts the program over the locks at this address; returns when it has opened them.
    pub async fn start(locker: &str, address: &str) -> Self {
        Self::run(locker, &[address]).await
    }

    /// The same with a command that starts the program elsewhere, as in a network namespace.
    pub async fn start_by(mut command: Command, address: &str) -> Self {
        command.arg(address);
        Self::spawn(command).await
    }

    /// Starts a program of this crate; returns when it says that it is ready.
    pub async fn run(program: &str, arguments: &[impl AsRef<OsStr>]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn(command).await
    }

    async fn spawn(mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut child = Self {
            process,
            input,
            output,
        };
        assert_eq!(child.answer().await, "ready");
        child
    }

    /// The id of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// Gives a command without waiting for the answer.
    pub async fn tell(&mut self, command: &str) {
        self.input
            .write_all(format!("{command}\n").as_bytes())
            .await
            .unwrap();
    }

    /// The answer to the oldest command that has none yet.
    pub async fn answer(&mut self) -> String {
        let line = timeout(PATIENCE, self.output.next_line())
            .await
            .expect("the child answers");
        line.unwrap().expect("the child has not ended")
    }

    /// Gives a command and waits for its answer.
    pub async fn ask(&mut self, command: &str) -> String {
        self.tell(command).await;
        self.answer().await
    }

    /// Has the child start a process that goes on after it.
    pub async fn start_another(&mut self, command: &str) -> LeftBehind {
        let started = self.ask(command).await;
        let pid = started
            .strip_prefix("pid ")
            .and_then(|pid| pid.parse().ok());
        LeftBehind(Pid::from_raw(pid.expect("the child says its id")).unwrap())
    }

    /// Has the child take a lock that is free.
    pub async fn hold(&mut self, name: &impl std::fmt::Display) {
        assert_eq!(self.ask(&format!("acquire {name} 0")).await, "granted");
    }

    /// Has the child release what it holds.
    pub async fn release(&mut self) {
        assert_eq!(self.ask("release").await, "released");
    }

    /// Kills the child and waits for its end.
    pub async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Waits for the end of the child.
    pub async fn ended(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.process.wait())
            .await
            .expect("the child ends")
            .unwrap()
    }

    /// Stops the child where it is; returns when it stands still.
    pub async fn freeze(&mut self) {
        self.signal(Signal::STOP);
        self.until_state("frozen", |state| state == 'T').await;
    }

    /// Lets a frozen child go on.
    pub async fn thaw(&mut self) {
        self.signal(Signal::CONT);
        self.until_state("thawed", |state| state != 'T').await;
    }

    /// How many bytes of memory it has.
    #[must_use]
    pub fn resident(&self) -> u64 {
        resident(self.process.id().expect("the child was not waited for"))
    }

    fn pid(&self) -> Pid {
        let pid = self.process.id().expect("the child was not waited for");
        Pid::from_raw(pid.cast_signed()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    async fn until_state(&self, what: &str, is: impl Fn(char) -> bool) {
        let stat = format!("/proc/{}/stat", self.pid());
        eventually(what, || async {
            // The state follows the name of the program, which is in parentheses.
            let stat = std::fs::read_to_string(&stat).unwrap();
            let state = stat
                .rsplit_once(") ")
                .and_then(|(_, rest)| rest.chars().next());
            is(state.unwrap())
        })
        .await;
    }
}

/// A process that a child has started and that outlives it; killed when this is dropped.
#[derive(Debug)]
pub struct LeftBehind(Pid);

impl LeftBehind {
    /// Whether it runs.
    #[must_use]
    pub fn lives(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }
}

impl Drop for LeftBehind {
    fn drop(&mut self) {
        // It may have ended.
        let _ = kill_process(self.0, Signal::KILL);
    }
}
