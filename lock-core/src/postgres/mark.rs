//! The mark of the provider: what holds the locks of those who use this database.
//!
//! Each process holds, shared, the key of its own provider, and looks for holders of the others'. It
//! takes its own before it looks, and `pg_locks` shows what is held at one moment: of two that start at
//! once, the one that looks last sees the other.

use super::checks::{by_us, value};
use super::key::mark_key;
use super::steps::{Step, within};
use super::wire::Wire;
use crate::LockError;
use crate::checked::passed;
use crate::outage::Repeated;
use crate::settings::ProviderKind;

/// A statement that takes a key, and says whether it was free.
fn take(key: i64) -> String {
    format!("SELECT pg_catalog.pg_try_advisory_lock_shared('{key}'::int8)")
}

/// Says the position of a key that a session in our database holds: in the one where we hold ours.
fn look(keys: &[i64]) -> String {
    let keys: Vec<_> = (keys.iter().zip(1..))
        .map(|(key, position)| format!("('{key}'::int8, '{position}'::int4)"))
        .collect();
    format!(
        "SELECT k.position FROM (VALUES {}) AS k(key, position) \
         JOIN pg_locks AS l ON ((l.classid::int8 << 32) | l.objid::int8) = k.key \
         WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.mode = 'ShareLock' \
         AND l.database = (SELECT own.database FROM pg_locks AS own WHERE own.locktype = 'advisory' \
         AND own.pid = pg_backend_pid() LIMIT 1) LIMIT 1",
        keys.join(", ")
    )
}

/// Why there is no start at a database that can keep no mark.
pub(crate) fn unmarked(because: LockError) -> LockError {
    because.with_advice(
        "the locks are not in that database, but it has the mark by which instances that lock with \
         another provider are found, and there is no start without: give a DATABASE_URL that leads to \
         its primary without a pooler, or set LOCK_MARKER=optional on all instances",
    )
}

/// Which provider a process uses, in a form that others find.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    own: ProviderKind,
    key: i64,
    others: Vec<(ProviderKind, i64)>,
    may_switch: bool,
}

impl Mark {
    /// The mark of a provider, and whether it goes with those of others.
    pub(crate) fn new(namespace: &str, own: ProviderKind, may_switch: bool) -> Self {
        let key = |kind: ProviderKind| mark_key(namespace, kind.as_str());
        let others = ProviderKind::ALL.into_iter().filter(|kind| *kind != own);
        Self {
            own,
            key: key(own),
            others: others.map(|kind| (kind, key(kind))).collect(),
            may_switch,
        }
    }

    /// The key that the session holds shared.
    pub(super) fn key(&self) -> i64 {
        self.key
    }

    /// Holds the mark for as long as the session lives.
    pub(super) async fn take(&self, wire: &mut Wire) -> Result<(), LockError> {
        let taken = within(Step::Mark, by_us(wire, take(self.key))).await?;
        if value(&taken)? {
            return Ok(());
        }
        Err(LockError::unavailable(
            "another session holds the key of our mark alone, which nothing of ours does",
        ))
    }

    /// Looks for the marks of others, unless a switch is allowed, of which it is only told. To be called
    /// with our own taken.
    pub(super) async fn check(&self, wire: &mut Wire) -> Result<Option<ProviderKind>, LockError> {
        let keys: Vec<i64> = self.others.iter().map(|(_, key)| *key).collect();
        let held = within(Step::Mark, by_us(wire, look(&keys))).await?;
        let position: Option<i32> = match held.is_empty() {
            true => None,
            false => Some(value(&held)?),
        };
        let other = position
            .and_then(|position| usize::try_from(position).ok()?.checked_sub(1))
            .and_then(|index| self.others.get(index));
        let Some((other, _)) = other else {
            passed!(
                "marker",
                "no process of this namespace locks with another provider than `{}`",
                self.own
            );
            return Ok(None);
        };
        if self.may_switch {
            static ALLOWED: Repeated = Repeated::new();
            ALLOWED.happened(other.as_str(), |times| {
                tracing::warn!(
                    own = %self.own, %other, times,
                    "other processes lock with another provider, which LOCK_SWITCH allows: they and this \
                     one do not exclude each other"
                );
            });
            return Ok(None);
        }
        Ok(Some(*other))
    }

    /// Why a process with this mark does not lock beside those with the other.
    pub(super) fn refusal(&self, other: ProviderKind) -> LockError {
        let own = self.own;
        LockError::misconfigured(format!(
            "the locks of other processes that use this database are held by `{other}`, and those of \
             this one would be by `{own}`, so that they would not exclude each other; give all the \
             same DATABASE_URL, REDIS_URL and LOCK_PROVIDER, or, for a planned switch, set \
             LOCK_SWITCH=allow"
        ))
    }
}
