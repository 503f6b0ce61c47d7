//! A process that locks what its standard input says, and ends when that does.
//!
//! One line is one command and has one line as its answer (`hammer`: several, then `done`):
//!
//! ```text
//! acquire NAME WAIT_MS        granted | contended | error KIND
//! token | valid | release     token N | valid BOOL | released | error KIND
//! name ENTITY OPERATION ID    name NAME
//! hammer ROUNDS NAME..        a hold a line, see `lock_tests::history`
//! spawn | fork                pid N, of a process that goes on after this one
//! files N                     limited, to N open files
//! exit                        ends at once and releases nothing
//! ```

#![allow(clippy::unwrap_used, reason = "a test fails when its child does")]

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::process::{self, Command, Stdio};
use std::time::Duration;

use fork::Fork;
use lock_core::file::FileBackend;
use lock_core::{LockError, LockGuard, LockName, LockProvider};
use lock_tests::history::Hold;
use lock_tests::{RedisStore, boottime};
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How many tasks hammer in one process.
const HAMMERS: usize = 3;

/// How long a process lives that was left behind, if nobody ends it.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    // Also when it is frozen, and cannot see the end of its input.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let address = std::env::args().nth(1).ok_or("usage: locker ADDRESS")?;
    let locks = open(&address).await?;
    let mut commands = commands();
    say("ready");
    let mut guard = None;
    while let Some(command) = commands.recv().await {
        let words: Vec<_> = command.split(' ').collect();
        match words.as_slice() {
            ["acquire", name, wait] => {
                let wait = Duration::from_millis(wait.parse()?);
                match locks.lock(*name)?.try_acquire(wait).await {
                    Ok(Some(granted)) => {
                        guard = Some(granted);
                        say("granted");
                    }
                    Ok(None) => say("contended"),
                    Err(error) => say(kind(&error)),
                }
            }
            ["token"] => match held(&guard).fencing_token().await {
                Ok(token) => say(format!("token {token}")),
                Err(error) => say(kind(&error)),
            },
            ["valid"] => say(format!("valid {}", held(&guard).is_valid())),
            ["release"] => match guard.take().ok_or("nothing is held")?.release().await {
                Ok(()) => say("released"),
                Err(error) => say(kind(&error)),
            },
            ["name", entity, operation, id @ ..] => {
                say(format!(
                    "name {}",
                    LockName::new(entity, operation, id.join(" "))?
                ));
            }
            ["hammer", rounds, names @ ..] => hammer(&locks, rounds.parse()?, names).await,
            ["spawn"] => say(format!("pid {}", spawn()?)),
            ["fork"] => say(format!("pid {}", go_on_without_exec()?)),
            ["files", limit] => {
                let maximum = getrlimit(Resource::Nofile).maximum;
                let current = Some(limit.parse()?);
                setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
                say("limited");
            }
            ["exit"] => process::exit(0),
            _ => return Err(format!("unknown command `{command}`").into()),
        }
    }
    Ok(())
}

async fn open(address: &str) -> Result<LockProvider, Box<dyn Error>> {
    match address.split_once(':') {
        Some(("file", directory)) => Ok(LockProvider::new(FileBackend::open(directory)?)),
        Some(("redis", url)) => Ok(LockProvider::new(RedisStore::connect(url).await?)),
        _ => Err(format!("unknown address `{address}`").into()),
    }
}

/// The lines of the standard input. Its end ends the process, whatever it waits for.
fn commands() -> mpsc::UnboundedReceiver<String> {
    let (sender, commands) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
        process::exit(0);
    });
    commands
}

fn say(line: impl AsRef<str>) {
    let mut output = io::stdout().lock();
    writeln!(output, "{}", line.as_ref())
        .and_then(|()| output.flush())
        .unwrap();
}

fn held(guard: &Option<LockGuard>) -> &LockGuard {
    guard.as_ref().expect("a lock is held")
}

fn kind(error: &LockError) -> String {
    format!("error {:?}", error.kind()).to_lowercase()
}

/// Several tasks take the locks in turns, in an order of chance.
async fn hammer(locks: &LockProvider, rounds: usize, names: &[&str]) {
    let mut hammers = JoinSet::new();
    for _ in 0..HAMMERS {
        let locks = locks.clone();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        hammers.spawn(async move {
            let mut holds = Vec::with_capacity(rounds);
            for _ in 0..rounds {
                let lock = fastrand::choice(&names).unwrap().clone();
                let asked = boottime();
                let acquiring = locks.lock(&lock).unwrap();
                let guard = acquiring.acquire(Duration::from_secs(60)).await.unwrap();
                let granted = boottime();
                let token = guard.fencing_token().await.unwrap().get();
                tokio::time::sleep(Duration::from_micros(fastrand::u64(..200))).await;
                let released = boottime();
                guard.release().await.unwrap();
                holds.push(Hold {
                    lock,
                    asked,
                    granted,
                    released,
                    token,
                });
            }
            holds
        });
    }
    for hold in hammers.join_all().await.into_iter().flatten() {
        say(hold.to_string());
    }
    say("done");
}

/// Starts another program, which outlives this one.
fn spawn() -> io::Result<u32> {
    let mut command = Command::new("sleep");
    let command = command.arg(LEFT_BEHIND.as_secs().to_string());
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(child.id())
}

/// Splits off a copy of this process with copies of all that it has open.
fn go_on_without_exec() -> io::Result<i32> {
    match fork::fork()? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => {
            // Of many threads this is the only one that was copied: nothing but waiting is safe.
            std::thread::sleep(LEFT_BEHIND);
            process::exit(0);
        }
    }
}
