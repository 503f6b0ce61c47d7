//! What the service answers, and what its receipts tell of its locks.

use std::time::Duration;

use serde::Deserialize;

use crate::checker::{Action, Event, Rules, Stage, judge};

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The media type.
    pub content_type: Option<String>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<String>,
    /// Whether it is the answer to an earlier request with the same `Idempotency-Key`.
    pub is_replay: bool,
    /// The body.
    pub body: String,
    /// From before the request was sent to the end of the body.
    pub took: Duration,
}

impl Answer {
    /// The receipt of a 200.
    #[must_use]
    #[track_caller]
    pub fn receipt(&self) -> Receipt {
        assert_eq!(self.status, 200, "{self:#?}");
        let raw: RawReceipt = serde_json::from_str(&self.body).expect("the body is a receipt");
        Receipt {
            instance: raw.instance,
            lock: raw.lock,
            token: raw.token.parse().expect("a token is a decimal number"),
            started_ns: raw.started_ns,
            finished_ns: raw.finished_ns,
        }
    }

    /// Asserts that it is a refusal by RFC 9457 with this status, and gives its members.
    #[must_use]
    #[track_caller]
    pub fn problem(&self, status: u16) -> serde_json::Value {
        assert_eq!(self.status, status, "{self:#?}");
        assert_eq!(
            self.content_type.as_deref(),
            Some("application/problem+json")
        );
        let problem: serde_json::Value = serde_json::from_str(&self.body).expect("it is JSON");
        assert_eq!(problem["status"], status, "{problem:#}");
        assert!(
            problem["title"].is_string() && problem["reason"].is_string(),
            "{problem:#}"
        );
        problem
    }

    /// Asserts that it is a 409 that says when to come back, and gives its members.
    #[must_use]
    #[track_caller]
    pub fn conflict(&self) -> serde_json::Value {
        let problem = self.problem(409);
        let seconds: u64 = self
            .retry_after
            .as_deref()
            .and_then(|seconds| seconds.parse().ok())
            .expect("`Retry-After` is in seconds");
        assert!(seconds >= 1, "{self:#?}");
        problem
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReceipt {
    instance: u32,
    lock: String,
    token: String,
    started_ns: u64,
    finished_ns: u64,
}

/// What was done under a lock, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The process that did it.
    pub instance: u32,
    /// The name of the lock, or its template.
    pub lock: String,
    /// The fencing token.
    pub token: u64,
    /// On CLOCK_BOOTTIME, after the lock was acquired.
    pub started_ns: u64,
    /// On CLOCK_BOOTTIME, before the lock was released.
    pub finished_ns: u64,
}

/// Asserts that no two intervals overlap, and that later ones have greater tokens.
///
/// # Panics
///
/// When it is not so.
#[track_caller]
pub fn assert_one_at_a_time(receipts: &[Receipt]) {
    let receipts = receipts.iter().enumerate();
    let history: Vec<_> = receipts
        .flat_map(|(number, receipt)| receipt.history(number))
        .collect();
    judge(&history, &Rules::default()).assert_clean();
}

impl Receipt {
    /// What it tells, as of one lock for all. When the lock was asked for is unknown: not before
    /// it was acquired.
    fn history(&self, number: usize) -> [Event; 3] {
        let event = |t_ns, f, stage, token| Event {
            t_ns,
            process: self.instance.to_string(),
            op: number.to_string(),
            lock: "one for all".to_owned(),
            f,
            stage,
            shared: false,
            token,
            valid_until_ns: None,
        };
        [
            event(self.started_ns, Action::Acquire, Stage::Invoke, None),
            event(self.started_ns, Action::Acquire, Stage::Ok, None),
            event(
                self.finished_ns,
                Action::Release,
                Stage::Invoke,
                Some(self.token),
            ),
        ]
    }
}
