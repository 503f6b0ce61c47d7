//! A process that locks what its standard input says, and ends when that does.
//!
//! One line is one command and has one line as its answer (`hammer`: several, then `done`):
//!
//! ```text
//! acquire NAME WAIT_MS        granted | contended | error KIND; behind it may follow
//!     permits=N               one of so many
//!     at_least=MS             kept so long
//!     shared                  together with other readers
//! when NAME WAIT_MS           granted AT, in nanoseconds of CLOCK_BOOTTIME
//! token | valid | release     token N | valid BOOL | released | error KIND
//! write URL GUARDED BALANCE    written | refused, see `lock_tests::row`
//! name ENTITY OPERATION ID    name NAME
//! hammer ROUNDS NAME..        an event a line, see `lock_tests::checker`
//! spawn | fork                pid N, of a process that goes on after this one
//! files N                     limited, to N open files
//! exit                        ends immediately and releases nothing
//! ```

#![allow(clippy::unwrap_used, reason = "a test fails when its child does")]

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::process::{self, Command, Stdio};
use std::time::Duration;

use fork::Fork;
use lock_core::{LockError, LockGuard, LockName, LockPolicy, LockProvider};
use lock_tests::address;
use lock_tests::checker::{Action, Journal, Stage};
use lock_tests::{boottime, row};
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How many tasks hammer in one process.
const HAMMERS: usize = 3;

/// The wait of a hammer: longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a process lives that was left behind, unless it is ended.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // Also when it is frozen, and cannot see the end of its input.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let address = std::env::args().nth(1).ok_or("usage: locker ADDRESS")?;
    let locks = address::open(&address).await?.locks;
    let mut commands = commands();
    say("ready");
    let mut guard = None;
    // As it was issued, also when the lock is lost since.
    let mut token = None;
    while let Some(command) = commands.recv().await {
        let words: Vec<_> = command.split(' ').collect();
        match words.as_slice() {
            ["acquire", name, wait, options @ ..] => {
                let mut policy = LockPolicy::from(Duration::from_millis(wait.parse()?));
                let mut lock = locks.lock(*name)?;
                for option in options {
                    match option.split_once('=') {
                        Some(("permits", number)) => lock = lock.permits(number.parse()?),
                        Some(("at_least", millis)) => {
                            policy = policy.with_at_least(Duration::from_millis(millis.parse()?));
                        }
                        None if *option == "shared" => lock = lock.shared(),
                        _ => return Err(format!("unknown option `{option}`").into()),
                    }
                }
                match lock.try_acquire(policy).await {
                    Ok(Some(granted)) => {
                        guard = Some(granted);
                        say("granted");
                    }
                    Ok(None) => say("contended"),
                    Err(error) => say(kind(&error)),
                }
            }
            ["when", name, wait] => {
                let wait = Duration::from_millis(wait.parse()?);
                guard = Some(locks.lock(*name)?.acquire(wait).await?);
                say(format!("granted {}", boottime()));
            }
            ["token"] => match held(&guard).fencing_token().await {
                Ok(issued) => {
                    token = Some(issued);
                    say(format!("token {issued}"));
                }
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
            ["write", url, guarded, balance] => {
                let (name, token) = (held(&guard).name(), token.ok_or("no token was asked for")?);
                let (balance, guarded) = (balance.parse()?, guarded.parse()?);
                let is_written = row::write(url, name, token, balance, guarded).await?;
                say(if is_written { "written" } else { "refused" });
            }
            ["exit"] => process::exit(0),
            _ => return Err(format!("unknown command `{command}`").into()),
        }
    }
    Ok(())
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
    let journal = Journal::in_memory(&process::id().to_string());
    let mut hammers = JoinSet::new();
    for _ in 0..HAMMERS {
        let (locks, journal) = (locks.clone(), journal.clone());
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        hammers.spawn(async move {
            for _ in 0..rounds {
                let name = fastrand::choice(&names).unwrap();
                let (lock, operation) = (locks.lock(name).unwrap(), journal.operation(name));
                operation.ask(PATIENCE);
                let guard = lock.acquire(PATIENCE).await.unwrap();
                operation.note(Action::Acquire, Stage::Ok);
                let token = guard.fencing_token().await.unwrap().get();
                tokio::time::sleep(Duration::from_micros(fastrand::u64(..200))).await;
                operation.note_token(Action::Release, Stage::Invoke, Some(token));
                guard.release().await.unwrap();
                operation.note(Action::Release, Stage::Ok);
            }
        });
    }
    hammers.join_all().await;
    for event in journal.take() {
        say(serde_json::to_string(&event).unwrap());
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
