//! The command, and the process group that it leads.

use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process_group, test_kill_process,
    test_kill_process_group, wait,
};

use super::descendants::Descendants;
use super::launcher;
use super::own_program::own_program;
use crate::ending::{Ending, of_signal};

/// The command. It is not waited for when this is dropped.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    has_ended: Cell<bool>,
    /// Whether no process of its group is left, and the number of the group can be another's.
    is_group_gone: Cell<bool>,
    descendants: Descendants,
}

/// What has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It has ended, by this signal if by one.
    Ended(Ending, Option<i32>),
    /// It was stopped by this signal, and is not gone.
    Stopped(i32),
}

impl Child {
    /// Starts the command in a process group of its own, with these variables, and without those that have no value. By
    /// this pipe it tells the watchdog which group that is.
    pub(super) fn start(
        command: &[OsString],
        environment: [(&str, Option<String>); 2],
        watchdog: RawFd,
    ) -> io::Result<Self> {
        adopt_orphans();
        let descendants = Descendants::from_now_on();
        let mut program = own_program();
        for (name, value) in environment {
            match value {
                Some(value) => program.env(name, value),
                None => program.env_remove(name),
            };
        }
        let child = program
            .arg(launcher::ASKED)
            .arg(getpid().to_string())
            .arg(watchdog.to_string())
            .args(command)
            .process_group(0)
            .spawn()?;
        // It is waited for by its number.
        Ok(Self {
            pid: Pid::from_child(&child),
            has_ended: Cell::new(false),
            is_group_gone: Cell::new(false),
            descendants,
        })
    }

    /// The command, which is its process group as well.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends the signal to all of the group. That there is none any more is no error.
    pub(super) fn signal(&self, signal: Signal) {
        if self.has_group() {
            let _ = kill_process_group(self.pid, signal);
        }
    }

    /// Sends the signal to all that the command has started, also outside of its group.
    pub(super) fn signal_all(&self, signal: Signal) {
        // Found before: what the command starts when it is asked to end is its own to end.
        let outside = self.descendants.outside(self.pid);
        self.signal(signal);
        self.descendants.signal(&outside, signal);
    }

    /// Sends SIGTERM to what was started outside of the group since that was sent to all, and has lost its parent.
    pub(super) fn terminate_orphans(&self) {
        self.descendants.terminate_orphans(self.pid);
    }

    /// Kills all that the command has started. What escapes by a fork at the same moment is killed by the next call.
    pub(super) fn kill_all(&self) {
        self.signal(Signal::KILL);
        self.descendants.kill();
    }

    /// Whether a process is left that the command has started, and that `dlock` may signal.
    pub(super) fn has_left_some(&self) -> bool {
        let group = self.has_group() && test_kill_process_group(self.pid).is_ok();
        group || self.descendants.are_left()
    }

    /// Whether a process is left that the command has started, and that `dlock` may not signal.
    pub(super) fn has_left_some_with_more_rights(&self) -> bool {
        let is_refused = || test_kill_process(self.pid) == Err(Errno::PERM);
        !self.has_ended.get() && is_refused() || self.descendants.have_more_rights()
    }

    /// Whether a process of its group is left. Its number is not given to another process while there is one.
    fn has_group(&self) -> bool {
        if self.has_ended.get() && test_kill_process_group(self.pid) == Err(Errno::SRCH) {
            self.is_group_gone.set(true);
        }
        !self.is_group_gone.get()
    }

    /// What has become of the command, if anything since the last call. Other children that have ended are
    /// forgotten: the watchdog, and, where this is the first process of a container, whatever was left to it.
    pub(super) fn change(&self) -> Option<Change> {
        loop {
            match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((pid, status))) if pid == self.pid => {
                    let Some(change) = change_of(status) else {
                        continue;
                    };
                    let has_ended = matches!(change, Change::Ended(..));
                    self.has_ended.set(has_ended);
                    return Some(change);
                }
                Ok(Some((other, status))) if status.stopping_signal().is_none() => {
                    self.descendants.forget(other);
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// Waits for all children that have ended, when there is no command to wait for any more. What the command has left
/// running is a child, too.
pub(super) fn reap() {
    // Each that was waited for is forgotten.
    while let Ok(Some(_)) | Err(Errno::INTR) = wait(WaitOptions::NOHANG) {}
}

/// Has what the command leaves behind stay below `dlock`, which finds it there and waits for it. Else the group seems to
/// live until the first process of the machine has waited for the last of it.
#[cfg(target_os = "linux")]
fn adopt_orphans() {
    // Each kernel that is in use has it. Without it a loss takes longer, up to the grace, and orphans outside of
    // the group are not found.
    let _ = rustix::process::set_child_subreaper(Some(getpid()));
}

#[cfg(not(target_os = "linux"))]
fn adopt_orphans() {}

fn change_of(status: WaitStatus) -> Option<Change> {
    if let Some(signal) = status.stopping_signal() {
        return Some(Change::Stopped(signal));
    }
    if let Some(signal) = status.terminating_signal() {
        return Some(Change::Ended(by_signal(signal), Some(signal)));
    }
    let status = status.exit_status()?;
    let status = u8::try_from(status).unwrap_or(u8::MAX);
    Some(Change::Ended(Ending::Status(status), None))
}

/// How `dlock` ends when a signal has ended the command: by the same, where that is how a user or a
/// supervisor ends programs, and not by what is a fault of the command, which would be a core dump of `dlock`.
fn by_signal(signal: i32) -> Ending {
    let told = [Signal::HUP, Signal::INT, Signal::TERM];
    match told.iter().any(|told| told.as_raw() == signal) {
        true => Ending::Signal(signal),
        false => Ending::Status(of_signal(signal)),
    }
}
