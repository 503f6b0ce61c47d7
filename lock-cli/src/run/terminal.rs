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

use std::fs::File;

use nix::sys::signal::{SigSet, Signal as Blocked};
use nix::unistd::{Pid as Number, getpgrp, getppid, getsid, tcgetpgrp, tcsetpgrp};
use rustix::process::{Pid, Signal, getpid, kill_process};

/// The terminal that controls this process, if there is one.
#[derive(Debug)]
pub(super) struct Terminal(Option<File>);

impl Terminal {
    pub(super) fn open() -> Self {
        let tty = File::options().read(true).write(true).open("/dev/tty").ok();
        if tty.is_some() {
            // Else the kernel stops `dlock` when it takes the terminal back.
            let _ = wants_terminal().thread_block();
        }
        Self(tty)
    }

    /// Whether there is a shell that stops and continues this process.
    pub(super) fn has_job_control(&self) -> bool {
        self.0.is_some() && getsid(Some(getppid())).is_ok_and(|session| getsid(None) == Ok(session))
    }

    /// Gives the terminal to this group, if it is ours to give.
    pub(super) fn lend(&self, group: Pid) -> bool {
        self.hand_over(getpgrp(), number(group))
    }

    /// Takes the terminal back from this group, if it has it.
    pub(super) fn take_back(&self, group: Pid) -> bool {
        self.hand_over(number(group), getpgrp())
    }

    fn hand_over(&self, from: Number, to: Number) -> bool {
        let Some(tty) = &self.0 else {
            return false;
        };
        tcgetpgrp(tty) == Ok(from) && tcsetpgrp(tty, to).is_ok()
    }
}

/// Stops this process, as a program does that does not handle SIGTSTP; returns when it is continued.
pub(super) fn suspend() {
    let _ = kill_process(getpid(), Signal::STOP);
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
