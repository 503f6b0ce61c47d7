//! The processes below the command, also those which have left its process group.
//!
//! `timeout 1h job`, a shell with `set -m` and setsid(1) start groups and sessions of their own, which a signal to
//! the group of the command does not reach. `dlock` adopts what has lost its parent ([`Child`](super::child::Child)),
//! so that all of it stays below `dlock`.
//!
//! A program that has become `dlock` by an exec may have children, which are spared. What such a child leaves behind when it
//! ends is adopted, too: nothing tells it from what the command has left behind, and a loss ends it with the command.

use std::cell::RefCell;
use std::collections::HashSet;

use nix::unistd::{Pid as Number, getpgid};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, kill_process, test_kill_process};

use super::proc::{Children, is_ours, stat};

/// How often it is looked for what was started meanwhile, before the caller looks after its signals again.
const LOOKS_MAX: usize = 100;

/// What has come to be below `dlock` since this was made.
#[derive(Debug)]
pub(super) struct Descendants {
    /// Children from before, with all below them: the watchdog, and those of a program that has become `dlock`
    /// by an exec.
    spared: RefCell<Vec<Pid>>,
    /// Those outside of the group of the command that were sent SIGTERM.
    terminated: RefCell<HashSet<Pid>>,
}

impl Descendants {
    pub(super) fn from_now_on() -> Self {
        Self {
            spared: RefCell::new(own_children()),
            terminated: RefCell::default(),
        }
    }

    /// This child was waited for: another process can have its number.
    pub(super) fn forget(&self, child: Pid) {
        self.spared.borrow_mut().retain(|spared| *spared != child);
        self.terminated.borrow_mut().remove(&child);
    }

    /// Each that is in another group than this.
    pub(super) fn outside(&self, group: Pid) -> Vec<Pid> {
        let mut outside = self.all();
        outside.retain(|pid| !is_in(group, *pid));
        outside
    }

    pub(super) fn signal(&self, processes: &[Pid], signal: Signal) {
        for pid in processes {
            // It may have ended, or have more rights.
            let _ = kill_process(*pid, signal);
        }
        if signal == Signal::TERM {
            self.terminated.borrow_mut().extend(processes);
        }
    }

    /// Sends SIGTERM to each outside of this group that was not sent it, and whose parent has ended. Below a parent that
    /// lives it may be what cleans up, as `timeout 5 rollback` in a trap for SIGTERM.
    pub(super) fn terminate_orphans(&self, group: Pid) {
        let mut orphans = self.adopted(&Children::now());
        orphans.retain(|pid| !is_in(group, *pid) && !self.terminated.borrow().contains(pid));
        self.signal(&orphans, Signal::TERM);
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
        let is_left = || {
            let all = self.all();
            (all.iter()).any(|pid| runs(*pid) && test_kill_process(*pid).is_ok())
        };
        is_ours() && is_one_left(own_children, is_left)
    }

    /// Whether one is left that has not ended, and that `dlock` may not signal.
    pub(super) fn have_more_rights(&self) -> bool {
        let all = self.all();
        (all.iter()).any(|pid| test_kill_process(*pid) == Err(Errno::PERM) && runs(*pid))
    }

    /// The children of `dlock` that are not spared: the command, and what has lost its parent.
    fn adopted(&self, children: &Children) -> Vec<Pid> {
        if !is_ours() {
            return Vec::new();
        }
        let spared = self.spared.borrow();
        let mut adopted = children.of(getpid());
        adopted.retain(|child| !spared.contains(child));
        adopted
    }

    fn all(&self) -> Vec<Pid> {
        let children = Children::now();
        let mut found = self.adopted(&children);
        let mut next = 0;
        while let Some(parent) = found.get(next) {
            found.extend(children.of(*parent));
            next += 1;
        }
        found
    }
}

fn own_children() -> Vec<Pid> {
    Children::now().of(getpid())
}

fn is_in(group: Pid, pid: Pid) -> bool {
    let number = |pid: Pid| Number::from_raw(pid.as_raw_nonzero().get());
    getpgid(Some(number(pid))) == Ok(number(group))
}

fn runs(pid: Pid) -> bool {
    let stat = stat(pid.as_raw_nonzero().get());
    stat.is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Whether one is left. A process that starts another and ends during a look hides that one, which is then a new child
/// of `dlock`: that none is left counts when these are the same before and after.
fn is_one_left(mut children: impl FnMut() -> Vec<Pid>, mut is_left: impl FnMut() -> bool) -> bool {
    loop {
        let before = children();
        if is_left() {
            return true;
        }
        if children() == before {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_handed_over_during_a_look_is_left() {
        let [one, other] = [1, 2].map(|number| Pid::from_raw(number).unwrap());
        let was_looked_at = Cell::new(false);
        let children = || match was_looked_at.get() {
            true => vec![one, other],
            false => vec![one],
        };
        // The first look is too early for the other.
        assert!(is_one_left(children, || was_looked_at.replace(true)));
        assert!(!is_one_left(children, || false));
    }
}
