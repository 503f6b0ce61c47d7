//! What traces show: a span for each acquisition, each claim and each hold.
//!
//! A span has the label of the lock, a hash of its name to tell one lock from another, and the
//! backend. The hash is keyed, by `LOCK_NAME_SECRET` if that has 16 bytes or more, else by random bytes
//! of the process, so that no name is found by guessing; then only spans of one process compare. And what values are in the name is shown at `debug` only. Where no subscriber wants them,
//! spans cost a look at a static: it is asked first, since the macro works out the fields also for
//! all that might want them as lines of the crate `log`.

use std::time::Duration;

use tracing::field::Empty;
use tracing::{Level, Span, debug, info_span, span_enabled};

use crate::LockName;
use crate::name::fingerprint;

/// The span of one acquisition, from the call to the grant or the refusal.
pub(crate) fn acquiring(backend: &'static str, name: &LockName, wait: Option<Duration>) -> Span {
    if !span_enabled!(target: "lock_core", Level::INFO) {
        return Span::none();
    }
    let span = info_span!(
        target: "lock_core",
        "distributed_lock.acquire",
        lock = name.label(),
        key = %fingerprint(name),
        backend,
        wait_ms = wait.map(millis),
        waited_ms = Empty,
        outcome = Empty,
    );
    debug!(target: "lock_core", parent: &span, name = name.as_str(), "asking for a lock");
    span
}

/// The span of one claim: of so many names those that are free, up to a limit.
pub(crate) fn claiming(backend: &'static str, names: usize, limit: usize) -> Span {
    info_span!(
        target: "lock_core",
        "distributed_lock.claim",
        names,
        limit,
        backend,
        granted = Empty,
        waited_ms = Empty,
        outcome = Empty,
    )
}

/// How an acquisition, or a claim, ended.
pub(crate) fn acquired(span: &Span, outcome: &'static str, waited: Duration) {
    span.record("waited_ms", millis(waited));
    span.record("outcome", outcome);
}

/// The span of one hold, from the grant to the end of its release; `None` where no subscriber wants it.
pub(crate) fn holding(backend: &'static str, name: &LockName) -> Option<Box<Span>> {
    if !span_enabled!(target: "lock_core", Level::INFO) {
        return None;
    }
    let span = info_span!(
        target: "lock_core",
        "distributed_lock.hold",
        lock = name.label(),
        key = %fingerprint(name),
        backend,
        held_ms = Empty,
        outcome = Empty,
    );
    Some(Box::new(span))
}

/// How a hold ended.
pub(crate) fn held(span: &Span, outcome: &'static str, held: Duration) {
    span.record("held_ms", millis(held));
    span.record("outcome", outcome);
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
