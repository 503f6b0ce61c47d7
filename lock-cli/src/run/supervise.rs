//! While the command runs: signals, job control, and the loss of the lock.

use std::cell::Cell;
use std::future::pending;
use std::pin::{Pin, pin};
use std::time::Duration;

use lock_core::{LockGuard, LossReason};
use rustix::process::Signal;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::child::{Change, Child};
use super::signals::Signals;
use super::terminal::{self, Terminal};
use crate::ending::Ending;
use crate::telling::say;

/// The time between two looks whether all has ended that was sent SIGTERM: the kernel notifies a process of
/// the end of its own children only.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

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
    };
    let mut lost = pin!(guard.lost());
    loop {
        tokio::select! {
            // The loss first: what it stops is not continued any more.
            biased;
            reason = &mut lost => {
                tell_loss(guard, reason);
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

fn tell_loss(guard: &LockGuard, reason: LossReason) {
    let name = guard.name();
    say(&match reason {
        LossReason::MaxHold => {
            format!("{name} was held for as long as --max-hold allows; the command is stopped")
        }
        reason => format!("{name} was lost ({reason}); the command is stopped"),
    });
}

struct Job<'a> {
    child: &'a Child,
    guard: &'a LockGuard,
    terminal: &'a Terminal,
    /// Whether SIGTSTP has come, which a key sends to all of the group of `dlock`.
    was_asked_to_stop: Cell<bool>,
    /// Whether the next SIGTSTP is the one that `dlock` has sent to its group.
    ignores_own_stop: Cell<bool>,
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
        let had_terminal = self.terminal.take_back(self.child.pid());
        let mut typed = [Signal::INT, Signal::QUIT].into_iter();
        let typed = typed.find(|typed| Some(typed.as_raw()) == by);
        // A key interrupts a script together with what it runs.
        if had_terminal && let Some(typed) = typed {
            terminal::interrupt_group(typed);
        }
    }

    /// The command was stopped.
    fn stopped(&self, by: i32) {
        let is = |signal: Signal| signal.as_raw() == by;
        if is(Signal::TTIN) || is(Signal::TTOU) {
            return self.wants_terminal();
        }
        let was_asked = self.was_asked_to_stop.take();
        if !self.terminal.has_job_control() {
            // By a key. What was stopped otherwise is continued by what has stopped it.
            if is(Signal::TSTP) && self.terminal.has(self.child.pid()) {
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
        if self.lend() {
            self.child.signal(Signal::CONT);
        } else if self.terminal.has_lender() {
            terminal::suspend_group_for_terminal();
            self.continued(true);
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

    fn lend(&self) -> bool {
        self.terminal.lend(self.child.pid())
    }

    /// Ends the command and all that it has started: SIGTERM, and SIGKILL after the grace. Returns when all of it
    /// has ended that can be ended.
    async fn stop(&self, grace: Duration, signals: &mut Signals) {
        self.child.signal_all(Signal::TERM);
        // It may be stopped, and learns of no signal then.
        self.child.signal_all(Signal::CONT);
        // A grace that no clock can count is for ever.
        let until = Instant::now().checked_add(grace);
        let mut killing: Pin<Box<dyn Future<Output = ()>>> = match until {
            Some(until) => Box::pin(sleep_until(until)),
            None => Box::pin(pending()),
        };
        let mut looking: Pin<Box<Sleep>> = Box::pin(sleep(LOOK_AGAIN));
        let (mut has_ended, mut was_killed) = (false, false);
        loop {
            tokio::select! {
                () = &mut killing, if !was_killed => {
                    self.child.kill_all();
                    was_killed = true;
                }
                // Also a user who interrupts ends it no sooner than that, but by SIGQUIT.
                signal = signals.next() => match signal {
                    Signal::CHILD => {
                        while let Some(change) = self.child.change() {
                            has_ended |= matches!(change, Change::Ended(..));
                        }
                    }
                    Signal::TSTP => {}
                    signal => self.child.signal(signal),
                },
                () = &mut looking => {
                    if was_killed {
                        self.child.kill_all();
                    }
                    looking.as_mut().reset(Instant::now() + LOOK_AGAIN);
                }
            }
            if has_ended && !self.child.has_left_some() {
                self.terminal.take_back(self.child.pid());
                return;
            }
        }
    }
}
