//! What a handler does under its lock, and the proof that it did so alone.

use std::time::Duration;

use lock_core::FencingToken;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, de};

/// The most that a request may ask for. Work runs to its end, and locked, also when its client hangs
/// up: what a client may choose needs a bound.
const MOST: Duration = Duration::from_secs(60);

/// A lock is taken from work that takes longer than the longest that is asked for: a bound for what
/// its author did not think of, a query that hangs, say.
pub(crate) const MAX_HOLD: Duration = Duration::from_secs(90);

/// How long to work, from the query: `?work_ms=2000`. More than a minute is 400.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Work {
    #[serde(deserialize_with = "bounded")]
    work_ms: u64,
}

fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let most = u64::try_from(MOST.as_millis()).unwrap_or(u64::MAX);
    match u64::deserialize(deserializer)? {
        work_ms if work_ms <= most => Ok(work_ms),
        _ => Err(de::Error::custom(format_args!(
            "`work_ms` is {most} at most"
        ))),
    }
}

/// When work was done, and under which lock. Under one lock no two intervals overlap, and a later
/// one has the greater token.
#[derive(Debug, Serialize)]
pub(crate) struct Receipt {
    /// The process that did the work.
    pub(crate) instance: u32,
    /// The name of the lock, or its template where the name is confidential.
    pub(crate) lock: String,
    pub(crate) token: FencingToken,
    /// Nanoseconds on CLOCK_BOOTTIME, which all processes of a machine share.
    pub(crate) started_ns: u64,
    pub(crate) finished_ns: u64,
}

impl Default for Work {
    fn default() -> Self {
        Self { work_ms: 50 }
    }
}

impl Work {
    /// Works. To be called with the lock held.
    pub(crate) async fn perform(self, lock: &str, token: FencingToken) -> Receipt {
        let started_ns = now_ns();
        tracing::debug!(lock, "at work");
        // Your queries, your calls to others.
        tokio::time::sleep(Duration::from_millis(self.work_ms)).await;
        Receipt {
            instance: std::process::id(),
            lock: lock.to_owned(),
            token,
            started_ns,
            finished_ns: now_ns(),
        }
    }
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    // Neither is ever negative on this clock.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
