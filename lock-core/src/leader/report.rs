//! What the log says of leaders. A process can have hundreds, as one for each partition, and one lost connection ends
//! the terms of all.

use crate::outage::Crowd;
use crate::{LockError, LockName, LossReason};

/// A line for the first that is elected, and one with the number of those that follow; each by itself at DEBUG.
pub(super) fn elected(name: &LockName) {
    static ELECTED: Crowd = Crowd::new();
    let lock = name.label();
    let further = |names, lock: &str| {
        tracing::info!(names, lock, "this instance leads under further names");
    };
    if ELECTED.is_first(lock, further) {
        tracing::info!(lock, "this instance leads");
    } else {
        tracing::debug!(lock, %name, "this instance leads, as under other names");
    }
}

/// The same of terms that are lost.
pub(super) fn deposed(name: &LockName, reason: LossReason) {
    static DEPOSED: Crowd = Crowd::new();
    let lock = name.label();
    let further = |names, lock: &str| {
        tracing::warn!(
            names,
            lock,
            "this instance no longer leads under further names; campaigning again"
        );
    };
    if DEPOSED.is_first(lock, further) {
        tracing::warn!(lock, %reason, "this instance no longer leads; campaigning again");
    } else {
        tracing::debug!(lock, %name, %reason, "this instance no longer leads, as under other names");
    }
}

/// The same of campaigns that fail: in an outage all of them do.
pub(super) fn failed(error: &LockError) {
    static FAILED: Crowd = Crowd::new();
    let further = |names, error: &str| {
        tracing::warn!(
            names,
            error,
            "further campaigns for leadership failed; retrying"
        );
    };
    if FAILED.is_first(&error.to_string(), further) {
        tracing::warn!(%error, "a campaign for leadership failed; retrying");
    } else {
        tracing::debug!(%error, "a campaign for leadership failed, as others do");
    }
}
