//! What the log says of locks that are lost, one or thousands of them for one reason.

use std::time::Duration;

use crate::outage::Crowd;
use crate::{LockName, LossReason};

/// One for each reason, which mostly is one cause as well.
static LOST: [Crowd; 6] = [const { Crowd::new() }; 6];

/// A line for the first loss, and one with the number of those that follow; each by itself at DEBUG.
pub(super) fn report(name: &LockName, held_for: Duration, reason: LossReason) {
    let lock = name.label();
    let crowd = match reason {
        LossReason::Expired => &LOST[0],
        LossReason::Disconnected => &LOST[1],
        LossReason::Revoked => &LOST[2],
        LossReason::MaxHold => &LOST[3],
        LossReason::Shutdown => &LOST[4],
        LossReason::ReadOnly => &LOST[5],
    };
    // A shutdown that did not wait to the end is no alarm.
    if reason == LossReason::Shutdown {
        let further = |locks, lock: &str| {
            tracing::warn!(
                locks,
                lock,
                "further distributed locks were held beyond a shutdown"
            );
        };
        if crowd.is_first(lock, further) {
            tracing::warn!(
                lock,
                ?held_for,
                "a distributed lock was held beyond a shutdown"
            );
            return;
        }
    } else {
        let further = move |locks, lock: &str| {
            tracing::error!(locks, lock, %reason, "further distributed locks were lost while they were held");
        };
        if crowd.is_first(lock, further) {
            tracing::error!(lock, ?held_for, %reason, "a distributed lock was lost while it was held");
            return;
        }
    }
    tracing::debug!(lock, %name, ?held_for, %reason, "a distributed lock was lost, as others are");
}
