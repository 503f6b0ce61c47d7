//! The end of a command that has lost its lock.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::child::Change;
use super::signals::Signals;
use super::supervise::Job;
use crate::telling::say;

/// The time between two looks whether all has ended that was sent SIGTERM: the kernel notifies a process of
/// the end of its own children only.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Job<'_> {
    /// Ends the command and all that it has started: SIGTERM, and SIGKILL after the grace. Returns when all of it
    /// has ended that can be ended.
    pub(super) async fn stop(&self, grace: Duration, signals: &mut Signals) {
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
                    self.tell_of_more_rights();
                }
                // Also a user who interrupts ends it no sooner than that, but by SIGQUIT.
                signal = signals.next() => match signal {
                    Signal::CHILD => {
                        while let Some(change) = self.child.change() {
                            match change {
                                Change::Ended(..) => has_ended = true,
                                Change::Stopped(by) => self.stopped_in_grace(by),
                            }
                        }
                    }
                    Signal::TSTP => {}
                    signal => self.child.signal(signal),
                },
                () = &mut looking => {
                    match was_killed {
                        true => self.child.kill_all(),
                        false => self.child.terminate_orphans(),
                    }
                    looking.as_mut().reset(Instant::now() + LOOK_AGAIN);
                }
            }
            if has_ended && !self.child.has_left_some() {
                if !was_killed {
                    self.tell_of_more_rights();
                }
                self.take_terminal_back();
                return;
            }
        }
    }

    /// The command was stopped while it cleans up: by the terminal, which it sets back or asks something, or by a key.
    fn stopped_in_grace(&self, by: i32) {
        let is = |signal: Signal| signal.as_raw() == by;
        let goes_on = match () {
            // Continued without the terminal it would be stopped again.
            () if is(Signal::TTIN) || is(Signal::TTOU) => self.has_or_is_lent_terminal(),
            () if is(Signal::TSTP) => true,
            // A `dlock` stops so by a key. What has stopped it from elsewhere continues it, or the grace ends.
            () => self.terminal.has(self.child.pid()),
        };
        if goes_on {
            self.child.signal(Signal::CONT);
        }
    }

    fn tell_of_more_rights(&self) {
        if self.child.has_left_some_with_more_rights() {
            say(
                "the command has more rights than dlock, which cannot stop it: it runs on without the lock",
            );
        }
    }
}
