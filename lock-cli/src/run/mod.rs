//! `dlock run`: a command, while a lock is held.
//!
//! # Which processes there are
//!
//! ```text
//! dlock ── holds the lock, waits for the command, passes signals on
//!  ├─ COMMAND ── a process group of its own; begins as `dlock`, which prepares it: see `launcher`
//!  └─ dlock ── kills that group when `dlock` itself is gone: see `watchdog`
//! ```
//!
//! # Why nothing runs on without the lock
//!
//! - The lock is lost, or `--max-hold` is over: all that the command has started has SIGTERM, and SIGKILL after the
//!   grace, also outside of its group and also a daemon: see [`descendants`]. `dlock` ends with [`LOST`], whatever
//!   the command said: what it did last may not have been alone. No message delays that: see [`telling`].
//! - `dlock` is killed: the kernel kills the command, and the watchdog the rest of the group. Both before the
//!   lock can be another's where the store waits for the end of a lease, as Redis; with PostgreSQL and files
//!   the lock is free at the same moment, and the fencing token protects what is written in the milliseconds between.
//! - `dlock` is frozen (SIGSTOP) for longer than its lease: the command runs on meanwhile, and is stopped when
//!   `dlock` goes on. The fencing token protects what is written until then.
//! - The command has ended: only then the lock is released. That release says whether it was ours to the end. What the
//!   command has left running is not touched. With `--at-least` the lock stays closed after that: see [`keeping`].

mod child;
mod descendants;
mod keeping;
mod launcher;
mod own_program;
mod proc;
mod progress;
mod signals;
mod stopping;
mod supervise;
mod terminal;
mod watchdog;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use lock_core::{LockGuard, LockPolicy, LockProvider};
use tokio::time::Instant;

use self::child::Child;
use self::keeping::Kept;
use self::progress::{Progress, Reaching};
use self::signals::Signals;
use self::supervise::{Ended, supervise, tell_loss};
use self::terminal::Terminal;
use self::watchdog::Watchdog;
use crate::cli::{Run, Store};
use crate::connect::{close, connect_within};
use crate::ending::{Ending, HELD, LOST, UNAVAILABLE, USAGE, with_causes};
use crate::events::{self, granting_nothing};
use crate::store::{UNCHOSEN, is_chosen};
use crate::telling::{self, say, warn};

/// The processes that `dlock` starts for itself, by their first argument.
pub(crate) fn helper(arguments: &[OsString]) -> Option<ExitCode> {
    let (first, rest) = arguments.split_first()?;
    match first.to_str()? {
        launcher::ASKED => Some(launcher::enter(rest)),
        watchdog::ASKED => Some(watchdog::watch()),
        _ => None,
    }
}

pub(crate) async fn run(store: &Store, arguments: &Run) -> Ending {
    let policy = policy(arguments);
    if let Err(error) = policy.check() {
        say(&with_causes(&error));
        return Ending::Status(USAGE);
    }
    let terminal = Terminal::open();
    telling::start();
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return Ending::system("listen to signals", &error),
    };
    // Until the command runs, a signal ends the wait, and what was asked for is given back.
    let begun = Instant::now();
    let reaching = Reaching::new(&terminal);
    let connected = tokio::select! {
        connected = connect_within(store, arguments.wait, |why| reaching.note(why)) => connected,
        signal = signals.ending(&terminal) => return Ending::Signal(signal),
        never = reaching.show() => match never {},
    };
    drop(reaching);
    let locks = match connected {
        Ok(locks) => locks,
        Err(error) => return Ending::failed(&error),
    };
    if !is_chosen(store) {
        warn(UNCHOSEN);
    }
    let policy = match arguments.wait {
        // Reaching the store is a part of it.
        Some(wait) => policy.with_wait(wait.saturating_sub(begun.elapsed())),
        None => policy,
    };
    let acquired = tokio::select! {
        acquired = acquire(&locks, arguments, policy, &terminal) => acquired,
        signal = signals.ending(&terminal) => Err(Ending::Signal(signal)),
    };
    let ending = match acquired {
        Ok(guard) => {
            let kept = Kept::of(&guard, policy);
            match with_lock(guard, arguments, &mut signals, &terminal).await {
                Ok(ending) => kept.stay(&locks, ending, &mut signals, &terminal).await,
                Err(ending) => ending,
            }
        }
        Err(ending) => ending,
    };
    close(&locks).await;
    ending
}

fn policy(arguments: &Run) -> LockPolicy {
    let once = arguments.skip.then_some(Duration::ZERO);
    let wait = arguments.wait.or(once).unwrap_or(Duration::MAX);
    let mut policy = LockPolicy::default().with_wait(wait);
    if let Some(max_hold) = arguments.max_hold {
        policy = policy.with_max_hold(max_hold);
    }
    if let Some(at_least) = arguments.at_least {
        policy = policy.with_at_least(at_least);
    }
    policy
}

/// Waits for the lock; on a terminal it tells what for.
async fn acquire(
    locks: &LockProvider,
    arguments: &Run,
    policy: LockPolicy,
    terminal: &Terminal,
) -> Result<LockGuard, Ending> {
    let lock = locks.lock(&arguments.name);
    let mut lock = lock.map_err(|error| Ending::failed(&error))?;
    if let Some(permits) = arguments.permits {
        lock = lock.permits(permits.into());
    }
    if arguments.shared {
        lock = lock.shared();
    }
    let progress = Progress::new(locks, terminal, arguments);
    let acquired = tokio::select! {
        acquired = lock.try_acquire(policy) => acquired,
        never = progress.show() => match never {},
    };
    drop(progress);
    match acquired {
        Ok(Some(guard)) => Ok(guard),
        Ok(None) => Err(held(locks, arguments).await),
        Err(error) => Err(Ending::failed(&error)),
    }
}

/// Another process holds the lock, or the store grants none.
async fn held(locks: &LockProvider, arguments: &Run) -> Ending {
    let name = &arguments.name;
    // It may be free by now, or the store may not tell.
    let holder = match arguments.permits {
        Some(_) => None,
        None => locks.holder(name).await.ok().flatten(),
    };
    if holder.is_none()
        && let Some(why) = granting_nothing()
    {
        say(&why);
        return Ending::Status(UNAVAILABLE);
    }
    let held = match arguments.permits {
        Some(permits) => format!("all {permits} permits of {name} are taken"),
        None => {
            let words = holder.map(|holder| crate::holder::in_the_way(&holder, arguments.shared));
            format!(
                "{name} is {}",
                words.as_deref().unwrap_or("held by another process")
            )
        }
    };
    if arguments.skip {
        say(&format!("skipped: {held}"));
        return Ending::SUCCESS;
    }
    let waited = match arguments.wait.unwrap_or_default() {
        Duration::ZERO => String::new(),
        wait => format!(", also after {}", humantime::format_duration(wait)),
    };
    say(&format!("{held}{waited}"));
    Ending::Status(HELD)
}

/// Runs the command and releases the lock; the ending of the command, if the lock was ours to its end.
async fn with_lock(
    guard: LockGuard,
    arguments: &Run,
    signals: &mut Signals,
    terminal: &Terminal,
) -> Result<Ending, Ending> {
    events::quiet();
    // A reader has none, and not that of a `dlock` around this one either.
    let token = match arguments.shared {
        true => None,
        false => match guard.fencing_token().await {
            Ok(token) => Some(token),
            // That is said below.
            Err(_) if !guard.is_valid() => None,
            Err(error) => return Err(Ending::failed(&error)),
        },
    };
    let environment = [
        // With permits that of the slot, whose tokens can be compared.
        ("LOCK_NAME", Some(guard.name().to_string())),
        ("LOCK_FENCING_TOKEN", token.map(|token| token.to_string())),
    ];
    let not_started = |error: io::Error| Ending::system("start a process", &error);
    // First: from its first moment on the command is under it.
    let mut watchdog = Watchdog::start().map_err(not_started)?;
    // The lock may be lost by now.
    if !guard.is_valid() {
        watchdog.dismiss();
        tell_loss(&guard, guard.lost().await, "is not started");
        return Err(Ending::Status(LOST));
    }
    let start = |pipe| Child::start(&arguments.command, environment, pipe);
    let child = watchdog.guard(start, Child::pid).map_err(not_started)?;
    let ended = supervise(&child, &guard, arguments.grace, signals, terminal).await;
    // From here on what is left of the group is none of ours.
    watchdog.dismiss();
    match ended {
        Ended::Lost => Err(Ending::Status(LOST)),
        Ended::By(ending) => released(guard, ending).await,
    }
}

async fn released(guard: LockGuard, ending: Ending) -> Result<Ending, Ending> {
    match guard.release().await {
        Ok(()) => Ok(ending),
        Err(error) if error.is_lost() => {
            say(&format!(
                "the lock was lost before the command ended: {error}"
            ));
            Err(Ending::Status(LOST))
        }
        Err(error) => {
            // Up to here it was ours; it ends with its lease.
            warn(&format!(
                "the lock could not be released, and is held until its lease ends: {}",
                with_causes(&error)
            ));
            Err(ending)
        }
    }
}
