//! What is said of locks that are lost: in the log, where thousands can be for one reason, and to operators.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::outage::Crowd;
use crate::{LockName, LossReason, RecentLoss};

/// One for each reason, which mostly is one cause as well.
static LOST: [Crowd; 6] = [const { Crowd::new() }; 6];

/// How many losses are remembered.
const REMEMBERED: usize = 50;

/// The last losses, the latest first.
static LATELY: Mutex<VecDeque<RecentLoss>> = Mutex::new(VecDeque::new());

/// The last losses of this process, the latest first.
pub(crate) fn lately_lost() -> Vec<RecentLoss> {
    let lately = LATELY.lock().unwrap_or_else(PoisonError::into_inner);
    lately.iter().cloned().collect()
}

fn remember(name: &LockName, held_for: Duration, reason: LossReason) {
    let mut lately = LATELY.lock().unwrap_or_else(PoisonError::into_inner);
    lately.truncate(REMEMBERED - 1);
    lately.push_front(RecentLoss {
        name: name.clone(),
        at: SystemTime::now(),
        held_for,
        reason,
    });
}

/// A line for the first loss, and one with the number of those that follow; each by itself at DEBUG.
pub(super) fn report(name: &LockName, held_for: Duration, reason: LossReason) {
    remember(name, held_for, reason);
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
