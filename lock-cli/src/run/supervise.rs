//! While the command runs: signals, job control, and the loss of the lock.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use lock_core::{LockGuard, LossReason};
use rustix::process::Signal;

use super::child::{Change, Child, reap};
use super::signals::Signals;
use super::terminal::{self, Terminal};
use crate::ending::Ending;
use crate::telling::say;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    By(Ending),
    /// It was stopped, since the lock was lost.
    Lost,
}

/// Waits for the end of the command, or of the lock and then of the command.
pub(super) async fn supervise(
    child: &Child,
    guard: &LockGuard,
    grace: Duration,
    signals: &mut Signals,
    terminal: &Terminal,
) -> Ended {
    let job = Job {
        child,
        guard,
        terminal,
        was_asked_to_stop: Cell::new(false),
        ignores_own_stop: Cell::new(false),
        was_hung_up: Cell::new(false),
    };
    let mut lost = pin!(guard.lost());
    loop {
        tokio::select! {
            // The loss first: what it stops is not continued any more.
            biased;
            reason = &mut lost => {
                tell_loss(guard, reason, "is stopped");
                job.stop(grace, signals).await;
                return Ended::Lost;
            }
            signal = signals.next() => {
                if let Some(ending) = job.signal(signal) {
                    return Ended::By(ending);
                }
            }
        }
    }
}

/// Says that the lock is lost, and what becomes of the command.
pub(super) fn tell_loss(guard: &LockGuard, reason: LossReason, follows: &str) {
    let name = guard.name();
    say(&match reason {
        LossReason::MaxHold => {
            format!("{name} was held for as long as --max-hold allows; the command {follows}")
        }
        reason => format!("{name} was lost ({reason}); the command {follows}"),
    });
}

/// The command, its lock and its terminal.
pub(super) struct Job<'a> {
    pub(super) child: &'a Child,
    guard: &'a LockGuard,
    pub(super) terminal: &'a Terminal,
    /// Whether SIGTSTP has come, which a key sends to all of the group of `dlock`.
    was_asked_to_stop: Cell<bool>,
    /// Whether the next SIGTSTP is the one that `dlock` has sent to its group.
    ignores_own_stop: Cell<bool>,
    /// Whether the command was sent SIGHUP for a terminal that it cannot have.
    was_hung_up: Cell<bool>,
}

impl Job<'_> {
    /// Does what a signal asks for. Gives how the command has ended, if it has.
    fn signal(&self, signal: Signal) -> Option<Ending> {
        match signal {
            Signal::CHILD => {
                while let Some(change) = self.child.change() {
                    match change {
                        Change::Ended(ending, by) => {
                            self.ended(by);
                            return Some(ending);
                        }
                        Change::Stopped(by) => self.stopped(by),
                    }
                }
            }
            Signal::TSTP if self.ignores_own_stop.take() => {}
            // Nothing would continue it.
            Signal::TSTP if !self.terminal.has_job_control() => {}
            Signal::TSTP => {
                self.was_asked_to_stop.set(true);
                self.child.signal(signal);
            }
            signal => self.child.signal(signal),
        }
        None
    }

    /// The command has ended, by this signal if by one.
    fn ended(&self, by: Option<i32>) {
        let had_terminal = self.take_terminal_back();
        let mut typed = [Signal::INT, Signal::QUIT].into_iter();
        let typed = typed.find(|typed| Some(typed.as_raw()) == by);
        // A key interrupts a script together with what it runs.
        if had_terminal && let Some(typed) = typed {
            terminal::interrupt_group(typed);
        }
    }

    /// Takes back the terminal of a command that has ended, also from what it had lent it to. Gives whether the command
    /// had it.
    pub(super) fn take_terminal_back(&self) -> bool {
        let had_terminal = self.terminal.take_back(self.child.pid());
        if !had_terminal {
            // A group has a process for as long as that was not waited for.
            reap();
            self.terminal.take_back_from_none();
        }
        had_terminal
    }

    /// The command was stopped.
    fn stopped(&self, by: i32) {
        let is = |signal: Signal| signal.as_raw() == by;
        if is(Signal::TTIN) || is(Signal::TTOU) {
            return self.wants_terminal();
        }
        let was_asked = self.was_asked_to_stop.take();
        let is_in_front = self.terminal.has(self.child.pid());
        // From elsewhere: what has stopped it continues it. A `dlock` that stopped with it would renew nothing then.
        if is(Signal::STOP) && !was_asked && !is_in_front {
            return;
        }
        if !self.terminal.has_job_control() {
            // By a key. What was stopped otherwise is continued by what has stopped it.
            if is(Signal::TSTP) && is_in_front {
                self.child.signal(Signal::CONT);
            }
            return;
        }
        let had_terminal = self.terminal.take_back(self.child.pid());
        if was_asked {
            // The others of the group were asked, too.
            terminal::suspend();
        } else {
            self.ignores_own_stop.set(true);
            terminal::suspend_group();
        }
        self.continued(had_terminal);
    }

    /// The command reads from the terminal or sets it, which only the group does that has the terminal.
    fn wants_terminal(&self) {
        if self.has_or_is_lent_terminal() {
            self.child.signal(Signal::CONT);
        } else if self.terminal.has_lender() {
            terminal::suspend_group_for_terminal();
            self.continued(true);
        } else if self.terminal.is_there() {
            self.hang_up();
        }
    }

    /// Nothing will ever give the command the terminal: it has what the kernel sends to a stopped group that has become
    /// an orphan. Where that does not end it, it would be stopped and continued without end.
    fn hang_up(&self) {
        if self.was_hung_up.replace(true) {
            say("the command wants the terminal again, and is killed");
            self.child.signal(Signal::KILL);
        } else {
            say("the command wants the terminal, which no shell can give it: it is sent SIGHUP");
            self.child.signal(Signal::HUP);
            self.child.signal(Signal::CONT);
        }
    }

    /// `dlock` itself was continued, maybe long after the lock was lost: then the command is not continued but
    /// ended.
    fn continued(&self, wants_terminal: bool) {
        if self.guard.is_valid() {
            if wants_terminal {
                self.lend();
            }
            self.child.signal(Signal::CONT);
        }
    }

    /// Whether the command has the terminal, or was lent it now.
    pub(super) fn has_or_is_lent_terminal(&self) -> bool {
        self.lend() || self.terminal.has(self.child.pid())
    }

    fn lend(&self) -> bool {
        self.terminal.lend(self.child.pid())
    }
}
