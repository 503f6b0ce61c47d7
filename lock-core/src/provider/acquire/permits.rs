//! Acquiring one of the slots of a lock with permits: in line, by whichever slot is free first.
//!
//! Waiters of one process for one number of permits are in one line of a queue of its own. The first in it is
//! the *seeker*: it alone looks for a slot ([`Seeking`]), and it leaves the line with the one that it gets, or
//! without. So a waiter costs one place in one line, and the store is asked once, however many there are.
//!
//! # Why at most so many are valid
//!
//! A slot is an exclusive lock: it is asked for with the turn of its own name, and held as any other lock.
//! There are no more slots than permits.
//!
//! # Why nothing is left behind
//!
//! The seeker has a turn, a ticket, or a try under way for each slot. Dropped, each does what it does for the
//! caller of one lock: a ticket leaves its line, or passes on what it was handed; a try goes on to its end, and
//! what it is granted goes to the next in the line of that slot, or back. The next seeker enters these lines
//! before the turn of this one ends.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::Instant;
use tracing::Instrument;

use super::{Caller, Started, request};
use crate::LockError;
use crate::backend::Granted;
use crate::provider::claim::Claim;
use crate::provider::closing::Closing;
use crate::provider::exchange::{detach, settle};
use crate::provider::slots::Seeking;
use crate::provider::wait::{answer, until};
use crate::provider::{SeekersTurn, Shared, Turn};
use crate::queue::Entry;

/// Gets in line for one of so many slots.
pub(super) fn start(mut caller: Caller, permits: usize) -> Started {
    let key = (caller.name.clone(), permits);
    let place = match (caller.shared.seekers).enter(&key, caller.mode, caller.wait.zero) {
        Entry::Turn(turn) => Ok(turn),
        Entry::Ticket(ticket, _) => Err(ticket),
        Entry::Refused(_) => return Started::Over(caller.conclude(Err(LockError::contended()))),
        Entry::Closed => return Started::Over(caller.conclude(Err(LockError::closed()))),
    };
    let span = caller.span.clone();
    Started::Slow(Box::pin(async move {
        let waiting = caller.keys.waiting();
        let called = match place {
            Ok(line) => Ok((line, None)),
            Err(mut ticket) => caller.in_line(&mut ticket).await,
        };
        let outcome = match called {
            // Boxed: only the first in line needs it, and the line can be long.
            Ok((line, found)) => {
                let found = found.unwrap_or_else(|| Seeking::new(&caller.name, permits));
                Box::pin(seek(&caller, line, found).instrument(span)).await
            }
            Err(error) => Err(error),
        };
        drop(waiting);
        caller.conclude(outcome)
    }))
}

/// The first in line; when it leaves, also by being dropped, the next goes on with what it has found out.
struct Seeker {
    shared: Arc<Shared>,
    place: Option<(SeekersTurn, Seeking)>,
}

impl Drop for Seeker {
    fn drop(&mut self) {
        let Some((line, mut seeking)) = self.place.take() else {
            return;
        };
        if line.is_awaited() {
            seeking.leave(&self.shared);
        }
        if let Err((line, seeking)) = line.hand_on(seeking) {
            // The slots first: the next who comes finds them free.
            drop(seeking);
            drop(line);
        }
    }
}

/// Looks for a slot until one is ours or the wait is over.
async fn seek(
    caller: &Caller,
    line: SeekersTurn,
    found: Seeking,
) -> Result<(Turn, Granted), LockError> {
    let mut seeker = Seeker {
        shared: Arc::clone(&caller.shared),
        place: None,
    };
    let (line, seeking) = seeker.place.insert((line, found));
    seeking.begin();
    loop {
        seeking.enter(caller)?;
        if let Some(granted) = claim(caller, seeking).await? {
            return Ok(granted);
        }
        if !seeking.look_at_more() {
            break;
        }
    }
    let (shared, wait) = (&caller.shared, &caller.wait);
    loop {
        let is_over = wait.is_over();
        let at = match wait.deadline {
            Some(deadline) if is_over => Some(deadline + wait.response_timeout),
            _ => wait.bounded(seeking.retry_at()),
        };
        let looking = poll_fn(|cx| match seeking.poll(caller, line, cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => {
                // A slot that was asked for now is asked for again before the time that is waited for.
                let is_earlier = |retry| at.is_none_or(|at| retry < at);
                let is_due = !is_over && seeking.retry_at().is_some_and(is_earlier);
                if is_due {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                }
            }
        });
        let outcome = tokio::select! {
            biased;
            outcome = until(at, looking) => outcome.flatten(),
            () = Closing::of(shared) => return Err(LockError::closed()),
        };
        match outcome {
            Some(outcome) => return outcome,
            // The answer that is due comes within a response timeout, or it does not come.
            None if is_over => return Err(seeking.unanswered()),
            None => {}
        }
    }
}

/// Asks for all slots that are free as far as is known, in one question, for one of them: a caller that held
/// more for a moment would keep them from others.
async fn claim(
    caller: &Caller,
    seeking: &mut Seeking,
) -> Result<Option<(Turn, Granted)>, LockError> {
    let (names, turns) = seeking.take_free();
    if names.is_empty() {
        return Ok(None);
    }
    let shared = &caller.shared;
    let requests = names
        .iter()
        .cloned()
        .map(|name| request(name, &caller.policy));
    let mut claim = Claim::begin(shared, requests.collect(), turns, 1);
    let granted = answer(shared, &caller.wait, claim.answer()).await?;
    let found = granted.and_then(|granted| {
        let (mut found, mut is_stale) = (None, false);
        for (position, granted) in granted {
            let Some(turn) = claim.turns[position].take() else {
                continue;
            };
            let is_fresh = granted.is_fresh();
            if is_fresh && found.is_none() {
                found = Some((turn, granted));
            } else {
                is_stale |= !is_fresh;
                detach(settle(granted, turn, shared.response_timeout));
            }
        }
        match found {
            // This process stood still on its way here, and of the others nothing is known.
            None if is_stale => Err(LockError::unanswered()),
            found => Ok(found),
        }
    });
    let is_known = matches!(found, Ok(None));
    let found = match found {
        // The store can have answered for some of them: each is asked for alone, also by a try that does not wait.
        Err(error) if error.is_unavailable() => {
            seeking.failed(error, Instant::now());
            None
        }
        found => found?,
    };
    for (name, turn) in names.into_iter().zip(claim.turns.drain(..)) {
        if let Some(turn) = turn {
            seeking.put_back(&name, turn, is_known);
        }
    }
    Ok(found)
}
