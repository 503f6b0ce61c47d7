//! Other processes: this test binary again, in a role.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{self, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use lock_core::backend::{Attempt, Backend, Grant};
use lock_core::file::{FileBackend, FileGrant};
use lock_core::{LockErrorKind, LockProvider};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::support::{Detector, at_once, block_on, read, request, take};

const ROLE: &str = "LOCK_TEST_ROLE";
const BASE: &str = "LOCK_TEST_BASE";
const ARGUMENT: &str = "LOCK_TEST_ARGUMENT";

/// Ends what a child reports, among what the test harness prints.
const MARK: &str = "@ ";

/// How long a child may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process in a role. Dropping it kills it.
pub(crate) struct Child {
    process: process::Child,
    stdin: Option<ChildStdin>,
    reports: Receiver<String>,
}

/// The command that runs this binary in a role.
pub(crate) fn command(role: &str, base: &Path, argument: &str) -> Command {
    in_role(
        Command::new(env::current_exe().unwrap()),
        role,
        base,
        argument,
    )
}

/// The same through a shell, after a script.
pub(crate) fn command_after(script: &str, role: &str, base: &Path, argument: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg(format!("{script} && exec \"$0\" \"$@\""));
    command.arg(env::current_exe().unwrap());
    in_role(command, role, base, argument)
}

fn in_role(mut command: Command, role: &str, base: &Path, argument: &str) -> Command {
    command.args(["child::role", "--exact", "--nocapture", "--test-threads=1"]);
    command
        .env(ROLE, role)
        .env(BASE, base)
        .env(ARGUMENT, argument);
    command
}

impl Child {
    pub(crate) fn start(role: &str, base: &Path, argument: &str) -> Self {
        Self::spawn(command(role, base, argument))
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (tell, reports) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The harness may have begun the line.
                if let Some((_, report)) = line.split_once(MARK) {
                    let _ = tell.send(report.to_owned());
                }
            }
        });
        let stdin = process.stdin.take();
        Self {
            process,
            stdin,
            reports,
        }
    }

    pub(crate) fn report(&self) -> String {
        self.reports
            .recv_timeout(PATIENCE)
            .expect("a report of the child")
    }

    /// Everything it reports until it ends.
    pub(crate) fn reports(mut self) -> Vec<String> {
        drop(self.stdin.take());
        let reports = self.reports.iter().collect();
        assert!(self.process.wait().unwrap().success(), "the child failed");
        reports
    }

    pub(crate) fn expect(&self, report: &str) {
        assert_eq!(self.report(), report);
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[allow(clippy::print_stdout, reason = "how a child talks to its parent")]
pub(crate) fn report(what: &str) {
    println!("{MARK}{what}");
}

/// Nanoseconds on a clock that all processes share.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Not a test: what a child does.
#[test]
fn role() {
    let Ok(role) = env::var(ROLE) else { return };
    let base = env::var(BASE).unwrap();
    let base = Path::new(&base);
    let locks = base.join("locks");
    let argument = env::var(ARGUMENT).unwrap();
    match &*role {
        "hold" => hold(&FileBackend::open(locks).unwrap(), &argument, take),
        "read" => hold(&FileBackend::open(locks).unwrap(), &argument, read),
        "wait" => wait(&FileBackend::open(locks).unwrap(), &argument),
        "read-and-write" => crate::readers::read_and_write(base, &argument),
        "hold-with-a-child" => hold_with_a_child(&FileBackend::open(locks).unwrap(), &argument),
        "hammer" => hammer(base, &argument),
        "tokens" => tokens(base, &argument),
        "few-descriptors" => few_descriptors(&FileBackend::open(locks).unwrap()),
        "fill" => fill(&FileBackend::open(locks).unwrap()),
        "open" => report(&match FileBackend::open(locks) {
            Ok(_) => "opened".to_owned(),
            Err(error) => format!("{:?} {error}", error.kind()),
        }),
        "acquire" => acquire(&FileBackend::open(locks).unwrap(), &argument),
        "ping-pong" => ping_pong(&FileBackend::open(locks).unwrap(), &argument),
        "greedy" => crate::fairness::greedy(&FileBackend::open(locks).unwrap(), base),
        other => panic!("no role {other}"),
    }
}

fn wait_for_a_line() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Holds a lock until it is ordered to release it, and lives until it is ordered to end.
fn hold(backend: &FileBackend, lock: &str, take: fn(&FileBackend, &str) -> Option<FileGrant>) {
    let grant = take(backend, lock).expect("a free lock");
    report("held");
    wait_for_a_line();
    drop(grant);
    report("released");
    wait_for_a_line();
}

/// Waits for a lock as a writer whom readers are in the way, and does nothing else.
fn wait(backend: &FileBackend, lock: &str) {
    let _registered = Box::pin(backend.changed(&request(lock)));
    assert!(take(backend, lock).is_none());
    report("waits");
    wait_for_a_line();
}

/// Holds a lock and starts a program meanwhile, which goes on when we are killed.
fn hold_with_a_child(backend: &FileBackend, lock: &str) {
    let _grant = take(backend, lock).expect("a free lock");
    let mut program = Command::new("sh");
    program
        .args(["-c", "echo && exec sleep 60"])
        .stdout(Stdio::piped());
    let mut program = program.spawn().unwrap();
    // It runs: `spawn` can return a moment before the kernel has closed what `exec` closes.
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    report(&program.id().to_string());
    wait_for_a_line();
    program.kill().unwrap();
    program.wait().unwrap();
}

/// Takes a few locks in four threads as often as it can for some milliseconds; reports how often.
fn hammer(base: &Path, milliseconds: &str) {
    let until = Instant::now() + Duration::from_millis(milliseconds.parse().unwrap());
    let backend = FileBackend::open(base.join("locks")).unwrap();
    let turns: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| hammer_until(base, &backend, until)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    report(&turns.to_string());
}

pub(crate) const HAMMERED: [&str; 2] = ["order:process:1", "order:process:2"];

pub(crate) fn hammer_until(base: &Path, backend: &FileBackend, until: Instant) -> u64 {
    let mut turns = 0;
    let detectors = HAMMERED.map(|lock| (lock, Detector::new(base, lock)));
    while Instant::now() < until {
        for (lock, detector) in &detectors {
            if let Some(grant) = take(backend, lock) {
                detector.visit();
                turns += 1;
                drop(grant);
            }
        }
    }
    turns
}

/// Takes a lock so many times and appends a token each time.
fn tokens(base: &Path, count: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let locks = LockProvider::new(FileBackend::open(base.join("locks")).unwrap());
    let mut log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(base.join("log"))
        .unwrap();
    runtime.block_on(async {
        for _ in 0..count.parse().unwrap() {
            let lock = locks.lock("order:process:1").unwrap();
            let guard = lock.acquire(PATIENCE).await.unwrap();
            let token = guard.fencing_token().await.unwrap();
            writeln!(log, "{token}").unwrap();
            guard.release().await.unwrap();
        }
    });
}

/// Takes locks until there are no descriptors left.
fn few_descriptors(backend: &FileBackend) {
    let limit = Rlimit {
        current: Some(64),
        maximum: Some(64),
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    report(&take_until_refused(backend));
}

/// Takes locks until the file system is full.
fn fill(backend: &FileBackend) {
    report(&take_until_refused(backend));
}

fn take_until_refused(backend: &FileBackend) -> String {
    let mut grants = Vec::new();
    let error = loop {
        match at_once(backend.try_acquire(&request(&format!("order:process:{}", grants.len())))) {
            Ok(Attempt::Granted(grant)) => grants.push(grant),
            Ok(Attempt::Held { .. }) => panic!("nobody holds it"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), LockErrorKind::Unavailable);
    assert_eq!(
        block_on(backend.health()).unwrap_err().kind(),
        LockErrorKind::Unavailable
    );
    // Waiting goes on without inotify.
    drop(backend.changed(&request("order:process:0")));
    assert!(grants.iter().all(|grant| grant.lease().is_valid()));
    let released = grants.pop().expect("at least one grant");
    drop(released);
    assert!(
        take(backend, "order:process:other").is_some(),
        "one more after one was released"
    );
    error.to_string()
}

/// Waits for a lock; reports when it has it.
fn acquire(backend: &FileBackend, lock: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let locks = LockProvider::new(backend.clone());
    report("waiting");
    runtime.block_on(async {
        let guard = locks.lock(lock).unwrap().acquire(PATIENCE).await.unwrap();
        report(&now().to_string());
        guard.release().await.unwrap();
    });
}

/// Takes a lock again and again, holds it for a moment, and reports when it got and released it.
fn ping_pong(backend: &FileBackend, rounds: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let locks = LockProvider::new(backend.clone());
    report("ready");
    wait_for_a_line();
    let mut times = Vec::new();
    runtime.block_on(async {
        for _ in 0..rounds.parse().unwrap() {
            let guard = locks
                .lock("order:process:1")
                .unwrap()
                .acquire(PATIENCE)
                .await
                .unwrap();
            let got = now();
            tokio::time::sleep(Duration::from_millis(1)).await;
            let released = now();
            guard.release().await.unwrap();
            times.push((got, released));
        }
    });
    times
        .iter()
        .for_each(|(got, released)| report(&format!("{got} {released}")));
}

#[test]
fn a_child_reports() {
    let base = crate::support::Base::new();
    let child = Child::start("open", base.path(), "");
    assert_eq!(child.reports(), ["opened"]);
}
