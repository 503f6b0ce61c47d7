//! The terminal, which one process group at a time reads from.
//!
//! The command is in a group of its own, and not in the one that the shell has put into the foreground. It is
//! lent the terminal only when it wants to read from it or to set it, at which the kernel stops it (SIGTTIN,
//! SIGTTOU): so the other programs of a pipeline keep it otherwise. What is typed to stop or interrupt
//! goes to whichever group has it, and `dlock` passes on what it receives.

use std::fs::File;

use nix::sys::signal::{SigSet, Signal as Blocked};
use rustix::process::{Pid, Signal, getpgrp, getpid, getppid, getsid, kill_process};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

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
        let sessions = (getsid(getppid()), getsid(None));
        self.0.is_some() && matches!(sessions, (Ok(of_parent), Ok(own)) if of_parent == own)
    }

    /// Gives the terminal to this group, if it is ours to give.
    pub(super) fn lend(&self, group: Pid) -> bool {
        self.hand_over(getpgrp(), group)
    }

    /// Takes the terminal back from this group, if it has it.
    pub(super) fn take_back(&self, group: Pid) -> bool {
        self.hand_over(group, getpgrp())
    }

    fn hand_over(&self, from: Pid, to: Pid) -> bool {
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

fn wants_terminal() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Blocked::SIGTTOU);
    set
}
