//! A lock that stays closed for longer than its command ran: `--at-least`.
//!
//! A store with a clock for that, Redis or a lease table, keeps it by itself. For the others the process of the holder does,
//! so that `dlock` stays until the time is over; what ends it before leaves the lock free.

use std::io::{self, IsTerminal};

use lock_core::{LockGuard, LockName, LockPolicy, LockProvider};
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use super::signals::Signals;
use super::terminal::Terminal;
use crate::ending::Ending;
use crate::output::in_seconds;
use crate::telling::say;

/// A lock and until when it is kept, if it is.
#[derive(Debug)]
pub(super) struct Kept {
    name: LockName,
    until: Option<Instant>,
}

impl Kept {
    /// Of a lock that was acquired now. The library has begun to count before, and so ends before.
    pub(super) fn of(guard: &LockGuard, policy: LockPolicy) -> Self {
        let at_least = policy.at_least();
        Self {
            name: guard.name().clone(),
            until: at_least.and_then(|at_least| Instant::now().checked_add(at_least)),
        }
    }

    /// Returns when this process is not what keeps the lock, which was released. A signal ends it as it ends
    /// a command.
    pub(super) async fn stay(
        self,
        locks: &LockProvider,
        ending: Ending,
        signals: &mut Signals,
        terminal: &Terminal,
    ) -> Ending {
        let now = Instant::now();
        let Some(until) = self.until.filter(|until| *until > now) else {
            return ending;
        };
        let name = &self.name;
        // One that says when it opens opens by itself. Without an answer it may not: this stays.
        let holder = locks.holder(name).await.ok().flatten();
        if holder.is_some_and(|holder| holder.until().is_some()) {
            return ending;
        }
        let tell_free = || {
            say(&format!(
                "stopped: {name} is free, before --at-least was over"
            ));
        };
        // What has ended the command does not wait for this either.
        if signals.has_ending() || ending == Ending::Signal(Signal::HUP.as_raw()) {
            tell_free();
            return ending;
        }
        if io::stderr().is_terminal() && terminal.is_ours() {
            say(&format!(
                "{name} is kept closed for {} more",
                in_seconds(until - now)
            ));
        }
        tokio::select! {
            () = sleep_until(until) => ending,
            signal = signals.ending(terminal) => {
                tell_free();
                Ending::Signal(signal)
            }
        }
    }
}
