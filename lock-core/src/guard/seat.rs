//! The place of a hold in its provider: its place in line, and where it is reported.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;
use tokio::task::AbortHandle;
use tracing::Span;

use super::overtime;
use crate::observe::{HoldOutcome, Keys};
use crate::provider::{Reading, Shared, Turn};
use crate::trace;

/// What makes a grant a hold of a provider: it is there until the release.
pub(super) struct Seat {
    pub(super) place: Place,
    pub(super) shared: Arc<Shared>,
    /// Where it is used; a box is smaller where it is not.
    pub(super) watching: Option<Box<Watching>>,
    /// Until the end of the hold is reported.
    pub(super) account: Option<Account>,
}

/// The place in the line of the lock.
pub(super) enum Place {
    /// Of a writer, before all that wait.
    Turn(Turn),
    /// Of a reader, which has passed its turn on.
    Reading(#[expect(dead_code, reason = "its drop leaves the line")] Reading),
}

/// What frees the lock once it is lost, although the guard is kept.
#[derive(Default)]
pub(super) struct Watching {
    /// One in each runtime that relies on one: each can end before the others.
    pub(super) watchdogs: Vec<Watchdog>,
    /// Where there is a longest hold.
    pub(super) overtime: Option<overtime::Entry>,
}

/// A task that frees the lock once it is lost. Dropping it ends the task.
pub(super) struct Watchdog {
    pub(super) runtime: runtime::Id,
    pub(super) task: AbortHandle,
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where a hold is reported.
pub(super) struct Account {
    pub(super) keys: Arc<Keys>,
    /// Where it is used; a box is smaller where it is not.
    pub(super) span: Option<Box<Span>>,
}

impl Seat {
    /// Reports the end of the hold, once: after how long, and whether it was lost.
    pub(super) fn close(&mut self, held_for: impl FnOnce() -> Duration, is_lost: bool) {
        let Some(Account { keys, span }) = self.account.take() else {
            return;
        };
        let outcome = match is_lost {
            false => HoldOutcome::Released,
            true => HoldOutcome::Lost,
        };
        keys.held(-1);
        let held_for = held_for();
        keys.held_for(outcome, held_for);
        if let Some(span) = span {
            trace::held(&span, outcome.as_str(), held_for);
        }
    }
}
