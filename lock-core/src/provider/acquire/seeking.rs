//! Looking for a slot of a lock with permits that is free: what is done with [what is known](Seeking).

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use backon::BackoffBuilder;
use tokio::time::Instant;

use super::{BACKOFF, Caller, request, watched};
use crate::backend::{Attempt, Granted};
use crate::provider::slots::{Seeking, Slot, State};
use crate::provider::{SeekersTurn, Shared, Turn};
use crate::queue::{Called, Entry, Stage};
use crate::{LockError, LockMode};

impl Seeking {
    /// Gets in line for those that we have no place in line for.
    pub(super) fn enter(&mut self, caller: &Caller) -> Result<(), LockError> {
        let is_only = self.permits == 1;
        let mut slots = self.slots.iter_mut();
        slots.try_for_each(|slot| slot.enter(caller, is_only))
    }

    /// Notes that a question was not answered: it is asked again after a pause, one for all slots.
    pub(super) fn failed(&mut self, error: LockError, now: Instant) {
        self.error = Some(error);
        if self.failed_until.is_none_or(|until| until <= now) {
            let delays = self.delays.get_or_insert_with(|| BACKOFF.build());
            self.failed_until = delays.next().and_then(|delay| now.checked_add(delay));
        }
    }

    /// Asks for each slot when it may be free. Ready with the first that is granted; once the wait is over
    /// also when all are known to be held, or nothing more is due.
    ///
    /// No release is missed: each try here of a caller that waits is made with a registration for changes, so that a
    /// release before the try is seen by the try, and one after it by the registration. A caller whose wait is over, or
    /// that never waits, registers nothing, which would tell the holder that it is waited for: its try is its last look
    /// at that slot, so that no registration of its would be polled. Where the next seeker goes on with what it has found,
    /// a slot without a registration is one of which nothing is known ([`begin`](Self::begin)).
    pub(super) fn poll(
        &mut self,
        caller: &Caller,
        line: &SeekersTurn,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Turn, Granted), LockError>> {
        let is_over = caller.wait.is_over();
        for at in 0..self.slots.len() {
            if let Poll::Ready(outcome) = self.poll_slot(at, caller, is_over, cx) {
                return Poll::Ready(outcome);
            }
        }
        let is_held = self.slots.iter().all(Slot::is_held);
        if is_over && is_held {
            return Poll::Ready(Err(LockError::contended()));
        }
        if is_over && !self.slots.iter().any(Slot::is_asked) {
            return Poll::Ready(Err(self.unanswered()));
        }
        if mem::replace(&mut self.line_knows, is_held) != is_held {
            line.stage(if is_held {
                Stage::Waiting
            } else {
                Stage::Asking
            });
        }
        Poll::Pending
    }

    fn poll_slot(
        &mut self,
        at: usize,
        caller: &Caller,
        is_over: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Turn, Granted), LockError>> {
        let shared = &caller.shared;
        // Once in a poll: a store that always says that something has changed lets others run.
        let mut was_asked = false;
        loop {
            let slot = &mut self.slots[at];
            let (state, goes_on) = match mem::take(&mut slot.state) {
                State::Away => {
                    slot.enter(caller, false)?;
                    continue;
                }
                State::InLine(mut ticket) => {
                    if is_over {
                        ticket.hurry();
                    }
                    match Pin::new(&mut ticket).poll(cx) {
                        Poll::Ready(Called::Turn(turn, gift)) => match gift {
                            Some(granted) if caller.takes(&granted) => {
                                return Poll::Ready(Ok((turn, granted)));
                            }
                            gift => match gift.and_then(|granted| granted.slot().release()) {
                                Some(released) => (State::GivingBack(turn, released), true),
                                None => (State::Free(turn, false), true),
                            },
                        },
                        Poll::Ready(Called::Refused) => (State::Refused, false),
                        Poll::Ready(Called::Closed) => {
                            return Poll::Ready(Err(LockError::closed()));
                        }
                        Poll::Pending => (State::InLine(ticket), false),
                    }
                }
                State::GivingBack(turn, mut released) => match released.as_mut().poll(cx) {
                    // Unanswered or not: the try tells.
                    Poll::Ready(_) => (State::Free(turn, false), true),
                    Poll::Pending => (State::GivingBack(turn, released), false),
                },
                // Not known once the wait is over: what was called is asked for, as a try that does not wait.
                State::Free(turn, true) if is_over => (State::Free(turn, true), false),
                State::Free(turn, is_held) if was_asked => {
                    cx.waker().wake_by_ref();
                    (State::Free(turn, is_held), false)
                }
                State::Free(turn, _) => {
                    was_asked = true;
                    turn.stage(Stage::Asking);
                    let request = request(slot.name.clone(), &caller.policy);
                    let changed = (!is_over).then(|| shared.backend.changed(&request));
                    let exchange = caller.exchange(turn, shared.backend.begin(request));
                    (State::Asking(Box::pin(exchange), changed), true)
                }
                State::Asking(mut exchange, changed) => match exchange.as_mut().poll(cx) {
                    Poll::Ready((turn, answer)) => {
                        let now = Instant::now();
                        let (retry_at, is_held) = match answer {
                            Ok(Attempt::Granted(granted)) if granted.is_fresh() => {
                                return Poll::Ready(Ok((turn, granted)));
                            }
                            // This process stood still on its way here. Given back before we ask again.
                            Ok(Attempt::Granted(stale)) => {
                                drop(stale);
                                self.failed(LockError::unanswered(), now);
                                (self.failed_until, false)
                            }
                            Ok(Attempt::Held { retry_in }) => {
                                self.delays = None;
                                turn.stage(Stage::Waiting);
                                (retry_in.and_then(|retry| now.checked_add(retry)), true)
                            }
                            Err(error) if error.is_unavailable() => {
                                self.failed(error, now);
                                (self.failed_until, false)
                            }
                            Err(error) => return Poll::Ready(Err(error)),
                        };
                        let state = State::Waiting {
                            turn,
                            changed,
                            retry_at,
                            is_held,
                        };
                        (state, true)
                    }
                    Poll::Pending => (State::Asking(exchange, changed), false),
                },
                State::Waiting {
                    turn,
                    mut changed,
                    retry_at,
                    is_held,
                } => {
                    let is_due = retry_at.is_some_and(|at| at <= Instant::now());
                    let mut is_changed = || {
                        let changed = changed.as_mut();
                        changed.is_none_or(|changed| changed.as_mut().poll(cx).is_ready())
                    };
                    if !is_over && (is_due || is_changed()) {
                        (State::Free(turn, false), true)
                    } else {
                        let state = State::Waiting {
                            turn,
                            changed,
                            retry_at,
                            is_held,
                        };
                        (state, false)
                    }
                }
                State::Refused => (State::Refused, false),
            };
            self.slots[at].state = state;
            if !goes_on {
                return Poll::Pending;
            }
        }
    }

    /// Leaves what the next seeker can go on with: places in line, and registrations. A try under way goes on
    /// by itself, and the next seeker is behind it in the line of its slot.
    pub(super) fn leave(&mut self, shared: &Arc<Shared>) {
        self.begin();
        for slot in &mut self.slots {
            if matches!(slot.state, State::Away) {
                slot.get_in_line(shared, false);
            }
        }
    }
}

impl Slot {
    fn enter(&mut self, caller: &Caller, is_only: bool) -> Result<(), LockError> {
        if !matches!(self.state, State::Away) {
            return Ok(());
        }
        let holder = self.get_in_line(&caller.shared, caller.wait.is_over());
        if let Some(held) = holder.filter(|_| is_only) {
            caller.waits_behind(&held);
        }
        match self.state {
            State::Away => Err(LockError::closed()),
            _ => Ok(()),
        }
    }

    /// Gets in line, unless the queue is closed; gives who holds the slot, if a task here does.
    fn get_in_line(&mut self, shared: &Arc<Shared>, is_impatient: bool) -> Option<Granted> {
        let (state, holder) =
            match (shared.queue).enter(&self.name, LockMode::Exclusive, is_impatient) {
                Entry::Turn(turn) => (State::Free(turn, false), None),
                Entry::Ticket(ticket, holder) => (State::InLine(ticket), holder),
                Entry::Refused(holder) => (State::Refused, holder),
                Entry::Closed => (State::Away, None),
            };
        self.state = state;
        holder.and_then(watched)
    }
}
