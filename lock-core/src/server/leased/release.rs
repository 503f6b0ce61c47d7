//! Releases: plain data on the way from a grant to the server.

use std::time::Duration;

use super::held::left_of;
use super::key::{LockKey, Owner, Part};
use crate::LockError;
use crate::backend::Lease;
use crate::server::client::Reply;

/// A lock to release, or an acquire to undo.
pub(crate) struct Release<K> {
    pub(crate) key: K,
    pub(crate) owner: Owner,
    /// Where a caller waits for the end, and the lease that was to be released.
    pub(crate) reply: Option<(Reply<()>, Lease)>,
    /// When the key has ended by itself.
    pub(crate) until: Duration,
    /// Until when the lock stays closed, without an owner, on CLOCK_BOOTTIME.
    pub(crate) kept_until: Option<Duration>,
    /// The server that it was sent to first, if that did not answer.
    pub(crate) sent_to: Option<u64>,
    /// Until when the server may take the acquire that this undoes, if that was not answered.
    pub(crate) ghost: Option<Duration>,
}

impl<K: LockKey> Release<K> {
    /// That of the place of writers that wait no more, by which connection they had it; `until` is when it has ended by
    /// itself, `ghost` until when the server may take it yet, where the try was not answered.
    pub(crate) fn of_place(
        key: K,
        connection: u64,
        until: Duration,
        ghost: Option<Duration>,
    ) -> Self {
        let owner = Owner {
            connection,
            number: 0,
            part: Part::Place,
        };
        Self {
            key,
            owner,
            reply: None,
            until,
            kept_until: None,
            sent_to: None,
            ghost,
        }
    }

    /// For how long the lock stays closed from now on, if it does.
    pub(crate) fn kept_for(&self, now: Duration) -> Option<Duration> {
        left_of(self.kept_until, now)
    }

    /// The same once more, and after how long: the acquire may come after this.
    pub(crate) fn again(&mut self, now: Duration) -> Option<(Duration, Self)> {
        let after = self.ghost.take()?.checked_sub(now)?;
        let again = Self {
            key: self.key.clone(),
            owner: self.owner,
            reply: None,
            until: self.until + after,
            kept_until: None,
            sent_to: None,
            ghost: None,
        };
        Some((after, again))
    }

    pub(crate) fn answer(self, answer: Result<(), LockError>) {
        if let Some((reply, _)) = self.reply {
            // The caller may have left.
            let _ = reply.send(answer);
        }
    }
}
