//! The processes below the command, also those which have left its process group.
//!
//! `timeout 1h job`, a shell with `set -m` and setsid(1) start groups and sessions of their own, which a signal to
//! the group of the command does not reach. `dlock` adopts what has lost its parent ([`Child`](super::child::Child)),
//! so that all of it stays below `dlock`.

use std::cell::RefCell;
use std::collections::HashSet;

use nix::unistd::{Pid as Number, getpgid};
use rustix::process::{Pid, Signal, getpid, kill_process, test_kill_process};

use super::proc::{children, is_ours, stat};

/// How often it is looked for what was started meanwhile, before the caller looks after its signals again.
const LOOKS_MAX: usize = 100;

/// What has come to be below `dlock` since this was made.
#[derive(Debug)]
pub(super) struct Descendants {
    /// Children from before, with all below them: the watchdog, and those of a program that has become `dlock`
    /// by an exec.
    spared: RefCell<Vec<Pid>>,
}

impl Descendants {
    pub(super) fn from_now_on() -> Self {
        Self {
            spared: RefCell::new(children(getpid())),
        }
    }

    /// This child was waited for: another process can have its number.
    pub(super) fn forget(&self, child: Pid) {
        self.spared.borrow_mut().retain(|spared| *spared != child);
    }

    /// Sends the signal to each that is in another group than this.
    pub(super) fn signal_outside(&self, group: Pid, signal: Signal) {
        let group = Number::from_raw(group.as_raw_nonzero().get());
        for pid in self.all() {
            let number = Number::from_raw(pid.as_raw_nonzero().get());
            if getpgid(Some(number)) != Ok(group) {
                // It may have ended, or have more rights.
                let _ = kill_process(pid, signal);
            }
        }
    }

    /// Kills each that can be killed, and what those have started meanwhile.
    pub(super) fn kill(&self) {
        let mut killed = HashSet::new();
        for _ in 0..LOOKS_MAX {
            let mut all = self.all();
            all.retain(|pid| killed.insert(*pid));
            if all.is_empty() {
                return;
            }
            for pid in all {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Whether one is left that has not ended, and that `dlock` may signal.
    pub(super) fn are_left(&self) -> bool {
        let runs = |pid: &Pid| {
            let stat = stat(pid.as_raw_nonzero().get());
            stat.is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
        };
        (self.all().iter()).any(|pid| runs(pid) && test_kill_process(*pid).is_ok())
    }

    fn all(&self) -> Vec<Pid> {
        if !is_ours() {
            return Vec::new();
        }
        let spared = self.spared.borrow();
        let mut found: Vec<Pid> = children(getpid());
        found.retain(|child| !spared.contains(child));
        let mut next = 0;
        while let Some(parent) = found.get(next) {
            found.extend(children(*parent));
            next += 1;
        }
        found
    }
}
