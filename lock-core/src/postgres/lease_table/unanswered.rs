//! Why a request has no answer, and what follows.

use std::borrow::Cow;
use std::error::Error;

use super::session::Failure;
use crate::LockError;
use crate::postgres::errors::lacks_right;
use crate::postgres::sqlstate::sqlstate;
use crate::server::protocol::{Failed, Then};

/// Why a request has no answer.
pub(super) enum Unanswered {
    /// There is no connection: nothing was sent.
    NotSent(LockError),
    /// What the server says, or does not.
    Failed(Failure),
    /// It did not come in time.
    Late,
}

impl Unanswered {
    /// The code that the server gives its refusal.
    fn refused(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Failed(Failure::Refused(error)) => sqlstate(error),
            _ => None,
        }
    }

    /// Whether the server says no, and has done nothing.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Failed(Failure::Refused(_)))
    }

    /// Whether its notifications may be the reason: held up by the commits of others, or the queue is full.
    pub(super) fn was_held_up(&self) -> bool {
        matches!(self.refused().as_deref(), Some("55P03" | "54000"))
    }

    /// Whether others were in the way, and nothing is wrong: they had rows for long, or wait for ours.
    fn was_in_the_way(&self) -> bool {
        matches!(self.refused().as_deref(), Some("55P03" | "40P01"))
    }

    /// Whether the server only reads now: a standby does not begin a transaction that writes.
    pub(super) fn only_reads(&self) -> bool {
        matches!(self.refused().as_deref(), Some("0A000" | "25006"))
    }

    /// For the caller of what was asked for.
    pub(super) fn error(&self) -> LockError {
        match self {
            Self::NotSent(error) => error.duplicate_as_unavailable(),
            _ if self.only_reads() => LockError::unavailable(
                "the PostgreSQL server only reads now, as a standby does: locks are granted by the primary",
            ),
            _ if self.refused().as_deref() == Some("42501") => lacks_right(),
            _ => LockError::unavailable("the PostgreSQL server did not do it"),
        }
    }

    /// The same for a process that connects, to which `sentence` says what was not done.
    pub(super) fn while_connecting(&self, sentence: &'static str) -> LockError {
        let error = match self.refused().as_deref() {
            Some("42501") => lacks_right(),
            _ => LockError::unavailable(sentence),
        };
        error.with_source(self.reason())
    }

    pub(super) fn reason(&self) -> String {
        match self {
            Self::NotSent(error) => match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
            Self::Failed(Failure::Refused(error) | Failure::Unknown(error)) => error.to_string(),
            Self::Failed(Failure::Nonsense) => "an answer that means nothing".to_owned(),
            Self::Late => "no answer in time".to_owned(),
        }
    }

    /// What follows for the locks of the request.
    pub(super) fn failed(&self) -> Failed {
        let then = match self {
            _ if self.was_in_the_way() => Then::Again,
            Self::NotSent(_) | Self::Failed(Failure::Refused(_)) => Then::Refuse,
            Self::Failed(Failure::Unknown(_) | Failure::Nonsense) | Self::Late => Then::Undo,
        };
        let reason = match self {
            Self::NotSent(error) => error.to_string(),
            _ => self.reason(),
        };
        Failed {
            then,
            error: self.error(),
            reason,
        }
    }
}
