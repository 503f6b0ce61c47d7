//! The terminal, which one process group at a time reads from.
//!
//! The command is in a group of its own, and not in the one that the shell has put into the foreground. It is
//! lent the terminal only when it wants to read from it or to set it, at which the kernel stops it (SIGTTIN,
//! SIGTTOU): so the other programs of a pipeline keep it otherwise. What is typed to stop or interrupt
//! goes to whichever group has it, and `dlock` passes on what it receives.
//!
//! Where `dlock` is in a PID namespace that its shell is not in (a container, unshare(1)), its own group and session can
//! have no number there: the kernel says 0, for which the types of `rustix` have no room, and those of `nix` do. Such a
//! group cannot be given the terminal back; its shell takes it back by itself.

use std::cell::Cell;
use std::fs::{self, File};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal as Blocked, killpg};
use nix::unistd::{Pid as Number, getpgid, getpgrp, getppid, getsid, tcgetpgrp, tcsetpgrp};
use rustix::process::{Pid, Signal, getpid, kill_current_process_group, kill_process};

use super::proc::stat;

/// The terminal that controls this process, if there is one.
#[derive(Debug)]
pub(super) struct Terminal {
    tty: Option<File>,
    /// Whether it was lent to the command, and not taken back.
    is_lent: Cell<bool>,
}

impl Terminal {
    pub(super) fn open() -> Self {
        let tty = File::options().read(true).write(true).open("/dev/tty").ok();
        if tty.is_some() {
            // Else the kernel stops `dlock` when it takes the terminal back.
            let _ = wants_terminal().thread_block();
        }
        Self {
            tty,
            is_lent: Cell::new(false),
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.tty.is_some()
    }

    /// Whether there is a shell that continues this process when it was stopped.
    pub(super) fn has_job_control(&self) -> bool {
        self.tty.is_some() && is_continued(false)
    }

    /// Whether there is one, or a `dlock` that runs this one, which lends the terminal to what was stopped for it.
    pub(super) fn has_lender(&self) -> bool {
        self.tty.is_some() && is_continued(true)
    }

    /// Whether what this process writes to it is for the person who looks at it. A terminal that does not control
    /// this process has no groups.
    pub(super) fn is_ours(&self) -> bool {
        self.tty.is_none() || self.is_lent_to(getpgrp())
    }

    /// Whether this group has the terminal.
    pub(super) fn has(&self, group: Pid) -> bool {
        self.is_lent_to(number(group))
    }

    fn is_lent_to(&self, group: Number) -> bool {
        (self.tty.as_ref()).is_some_and(|tty| tcgetpgrp(tty) == Ok(group))
    }

    /// Gives the terminal to this group, if it is ours to give.
    pub(super) fn lend(&self, group: Pid) -> bool {
        let is_lent = self.hand_over(getpgrp(), number(group));
        if is_lent {
            self.is_lent.set(true);
        }
        is_lent
    }

    /// Takes the terminal back from this group, if it has it.
    pub(super) fn take_back(&self, group: Pid) -> bool {
        let is_back = self.hand_over(number(group), getpgrp());
        if is_back {
            self.is_lent.set(false);
        }
        is_back
    }

    /// Takes it back from a group that has no process any more: a job to which the command has passed it on, as a shell
    /// does. What is lent to no command is the shell's to give.
    pub(super) fn take_back_from_none(&self) {
        let in_front = self.tty.as_ref().and_then(|tty| tcgetpgrp(tty).ok());
        let is_none = |group: &Number| killpg(*group, None) == Err(Errno::ESRCH);
        // A group of another namespace has no number.
        let in_front = in_front.filter(|group| group.as_raw() > 0);
        if self.is_lent.get()
            && let Some(none) = in_front.filter(is_none)
        {
            self.hand_over(none, getpgrp());
            self.is_lent.set(false);
        }
    }

    fn hand_over(&self, from: Number, to: Number) -> bool {
        let Some(tty) = &self.tty else {
            return false;
        };
        tcgetpgrp(tty) == Ok(from) && tcsetpgrp(tty, to).is_ok()
    }
}

/// Whether a process above this one, in the same session and in another group, continues a group that was stopped: a
/// shell with job control, or, if it counts, another run. Without one the kernel calls the group an orphan, and no key
/// stops it.
fn is_continued(by_a_run: bool) -> bool {
    let (own, session) = (Number::this(), getsid(None));
    // The first process of a session or of a container has none above it.
    if own.as_raw() == 1 || session == Ok(own) {
        return false;
    }
    let (mut group, mut above) = (getpgrp(), getppid());
    loop {
        // What is above the first process of a namespace has no number: a shell, if the session came from there.
        if above.as_raw() == 0 {
            return session == Ok(above);
        }
        if getsid(Some(above)) != session {
            return false;
        }
        let Ok(its_group) = getpgid(Some(above)) else {
            return false;
        };
        if its_group != group {
            // A run stops with the one that it runs, and is continued only by a shell.
            if by_a_run || !is_dlock(above) {
                return true;
            }
            group = its_group;
        }
        // Without `/proc`, what has started this is taken for the shell.
        let Some(stat) = stat(above.as_raw()) else {
            return true;
        };
        above = Number::from_raw(stat.parent);
    }
}

fn is_dlock(process: Number) -> bool {
    let program = |process: Number| fs::read_link(format!("/proc/{process}/exe")).ok();
    let own = program(Number::this());
    own.is_some() && own == program(process)
}

/// Stops this process, as a program does that does not handle SIGTSTP; returns when it is continued.
pub(super) fn suspend() {
    let _ = kill_process(getpid(), Signal::STOP);
}

/// Stops the others in the group of this process as well: a script waits for `dlock`, and the shell for the script. This
/// process receives its SIGTSTP, too, to be ignored when it is continued.
pub(super) fn suspend_group() {
    let _ = kill_current_process_group(Signal::TSTP);
    suspend();
}

/// Stops the group as the kernel stops one that reads from a terminal which it does not have. Where no shell would
/// continue it, it does nothing.
pub(super) fn suspend_group_for_terminal() {
    let _ = kill_current_process_group(Signal::TTIN);
}

/// Sends a signal that was typed for the group of the command to the group of this process.
pub(super) fn interrupt_group(signal: Signal) {
    let _ = kill_current_process_group(signal);
}

/// Undoes for the command what was blocked here.
pub(super) fn unblock() {
    let _ = wants_terminal().thread_unblock();
}

fn number(group: Pid) -> Number {
    Number::from_raw(group.as_raw_nonzero().get())
}

fn wants_terminal() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Blocked::SIGTTOU);
    set
}
