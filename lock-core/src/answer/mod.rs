//! What a client of an HTTP service is answered when a lock was refused or lost: `application/problem+json`
//! (RFC 9457).
//!
//! | kind of the error | status | `type`, after `urn:distributed-lock:problem:` | `reason` |
//! | --- | --- | --- | --- |
//! | contended, after a wait | 409 | `lock-contended` | `lock-wait-timeout` |
//! | contended, without one | 409 | `lock-contended` | `lock-contended` |
//! | unavailable | 503 | `lock-unavailable` | `lock-unavailable` |
//! | closed | 503 | `lock-unavailable` | `lock-closed` |
//! | lost | 500 | `lock-lost` | `lock-lost` |
//! | any other, [after work](LockError::is_outcome_unknown) | 500 | `lock-outcome-unknown` | `lock-outcome-unknown` |
//! | invalid name | 400 | `lock-name-invalid` | `lock-name-invalid` |
//! | misconfigured, any other | 500 | `lock-misconfigured` | `lock-misconfigured` |
//!
//! 409 and 503 say when to try again, and are for callers that were refused the lock. The two answers
//! whose outcome is unknown do not.
//!
//! The table is [`ANSWERS`]; the layers of `lock-tower` and, with the feature `axum`, [`LockError`] itself as
//! a response are made from it. Texts say no more than the kind: what an error itself says is for the log.
//!
//! ```
//! use lock_core::answer::{Answer, Problem};
//! use lock_core::LockError;
//!
//! let error = LockError::contended();
//! let answer = Answer::to(&error);
//! assert_eq!((answer.status.as_u16(), answer.reason), (409, "lock-contended"));
//!
//! let response = Problem::new(answer).about(&error).instance("/orders/{id}/process").to_response();
//! assert_eq!(response.headers()["content-type"], "application/problem+json");
//! ```

mod mistakes;
mod problem;
#[cfg(feature = "axum")]
mod response;

use std::ops::Range;
use std::time::Duration;

use http::StatusCode;

/// The crates whose types the signatures here have, in the versions that they mean.
#[doc(no_inline)]
pub use {bytes, http};

#[doc(hidden)]
pub use mistakes::Mistakes;
pub use problem::Problem;

use crate::{LockError, LockErrorKind};

/// What is the same for all answers to one kind of error.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The kind of the error.
    pub kind: LockErrorKind,
    /// Whether it is for callers alone that have waited for the lock.
    pub after_wait: bool,
    /// The status of the response.
    pub status: StatusCode,
    /// A URI that names the kind of problem: stable, and no address.
    pub r#type: &'static str,
    /// What is the matter, for people.
    pub title: &'static str,
    /// What that means for the request, for people; `None` where that is the service's business.
    pub detail: Option<&'static str>,
    /// What is the matter, for programs: stable.
    pub reason: &'static str,
    /// When to try again, in milliseconds; `None` where that is of no use.
    pub retry: Option<Range<u64>>,
    /// Whether work may have been done, in part or to its end.
    pub outcome_unknown: bool,
}

const CONTENDED: Answer = Answer {
    kind: LockErrorKind::Contended,
    after_wait: false,
    status: StatusCode::CONFLICT,
    r#type: "urn:distributed-lock:problem:lock-contended",
    title: "Locked by another request",
    detail: Some("Another request is working on this; try again later."),
    reason: "lock-contended",
    retry: Some(1_000..3_000),
    outcome_unknown: false,
};

const UNAVAILABLE: Answer = Answer {
    kind: LockErrorKind::Unavailable,
    after_wait: false,
    status: StatusCode::SERVICE_UNAVAILABLE,
    r#type: "urn:distributed-lock:problem:lock-unavailable",
    title: "Locks are unavailable",
    detail: Some("Whether another request is working on this cannot be told now; try again later."),
    reason: "lock-unavailable",
    retry: Some(2_000..6_000),
    outcome_unknown: false,
};

/// For what fails when the lock is held: no answer to a release says whether the work was done.
const OUTCOME_UNKNOWN: Answer = Answer {
    kind: LockErrorKind::Unavailable,
    after_wait: false,
    status: StatusCode::INTERNAL_SERVER_ERROR,
    r#type: "urn:distributed-lock:problem:lock-outcome-unknown",
    title: "Outcome unknown",
    detail: Some("Locks failed after the work had begun. It may be done, in part or to its end."),
    reason: "lock-outcome-unknown",
    retry: None,
    outcome_unknown: true,
};

/// The answers: the first that fits counts, and what fits none has the last.
pub static ANSWERS: &[Answer] = &[
    Answer {
        after_wait: true,
        reason: "lock-wait-timeout",
        ..CONTENDED
    },
    CONTENDED,
    UNAVAILABLE,
    Answer {
        kind: LockErrorKind::Closed,
        detail: Some("This instance ends, and did nothing; try again: another will answer."),
        reason: "lock-closed",
        ..UNAVAILABLE
    },
    Answer {
        kind: LockErrorKind::Lost,
        after_wait: false,
        status: StatusCode::INTERNAL_SERVER_ERROR,
        r#type: "urn:distributed-lock:problem:lock-lost",
        title: "Lock lost",
        detail: Some(
            "The lock was lost while the request was worked on, and the work was stopped.",
        ),
        reason: "lock-lost",
        retry: None,
        outcome_unknown: true,
    },
    OUTCOME_UNKNOWN,
    Answer {
        kind: LockErrorKind::InvalidName,
        after_wait: false,
        status: StatusCode::BAD_REQUEST,
        r#type: "urn:distributed-lock:problem:lock-name-invalid",
        title: "Not a lock name",
        detail: Some("A value in the request is missing, or cannot be part of the name of a lock."),
        reason: "lock-name-invalid",
        retry: None,
        outcome_unknown: false,
    },
    Answer {
        kind: LockErrorKind::Misconfigured,
        after_wait: false,
        status: StatusCode::INTERNAL_SERVER_ERROR,
        r#type: "urn:distributed-lock:problem:lock-misconfigured",
        title: "Internal server error",
        detail: None,
        reason: "lock-misconfigured",
        retry: None,
        outcome_unknown: false,
    },
];

/// A try that does not wait takes its time too.
const NO_WAIT: Duration = Duration::from_millis(100);

impl Answer {
    /// The answer to this error.
    #[must_use]
    pub fn to(error: &LockError) -> &'static Self {
        if error.is_outcome_unknown() && !error.is_lost() {
            return &OUTCOME_UNKNOWN;
        }
        let has_waited = error.waited().is_some_and(|waited| waited >= NO_WAIT);
        Self::of(error.kind(), has_waited)
    }

    /// The answer to errors of this kind, whose callers have waited for the lock or only tried, and did
    /// no work.
    #[must_use]
    pub fn of(kind: LockErrorKind, has_waited: bool) -> &'static Self {
        let fits = |answer: &&Self| answer.kind == kind && (has_waited || !answer.after_wait);
        let known = ANSWERS.iter().find(fits);
        known.unwrap_or(&ANSWERS[ANSWERS.len() - 1])
    }

    /// When to try again: drawn anew at each call, so that those who were refused together do not come
    /// back together.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let millis = self.retry.clone()?;
        Some(Duration::from_millis(fastrand::u64(millis)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_answer_of_its_own() {
        for answer in ANSWERS {
            let mut error = LockError::new(answer.kind, "");
            if answer.outcome_unknown {
                error = error.with_outcome_unknown();
            }
            if answer.after_wait {
                error = error.with_waited(NO_WAIT);
            }
            assert_eq!(Answer::to(&error).reason, answer.reason);
            let retry = answer.retry_after().is_some();
            let is_passing = matches!(answer.status.as_u16(), 409 | 503);
            assert_eq!(retry, is_passing, "{answer:?}");
        }
        for error in [LockError::contended(), LockError::closed()] {
            let late = Answer::to(&error.with_outcome_unknown()).reason;
            assert_eq!(late, "lock-outcome-unknown");
        }
        let waited = LockError::contended().with_waited(Duration::from_secs(5));
        assert_eq!(Answer::to(&waited).reason, "lock-wait-timeout");
        assert_eq!(
            Answer::to(&waited).status,
            Answer::to(&LockError::contended()).status
        );
    }
}
