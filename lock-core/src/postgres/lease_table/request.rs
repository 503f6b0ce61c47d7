//! A request: all that many tasks ask for at a time.

use std::fmt::Write;
use std::time::Duration;

use super::key::RowKey;
use super::literal::Text;
use super::mark::RowMark;
use super::setup::Table;
use super::sql::{Lease, Of};

/// A lock and who holds it, or asks for it: the owner is of one acquire, at random, and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The lock.
    pub key: RowKey,
    /// 128 bits, not zero.
    pub owner: u128,
    /// For how long the lock is to be kept from now on, if it is: one that is acquired or renewed is held for so long where
    /// that is longer than a lease, and one that is released stays closed, without an owner.
    pub kept: Option<Duration>,
}

/// A lock that is to be acquired; what operators read in its row.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The lock, and who is to hold it.
    pub hold: Hold,
    /// The namespace of the lock.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// What a request asks for. Releases come before acquires: a lock can be in both, under two owners.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Locks to release.
    pub releases: &'a [Hold],
    /// Locks whose leases are to be renewed.
    pub renewals: &'a [Hold],
    /// Locks to acquire.
    pub acquires: &'a [Wish<'a>],
    /// How many of these at most, if not all.
    pub limit: Option<usize>,
    /// Locks that are held, which are to have another token.
    pub tokens: &'a [Hold],
    /// Notes another server first, and, if this is true, that its clock has jumped.
    pub note: Option<bool>,
    /// Whether this client is to be notified of the release of what it is refused.
    pub listens: bool,
    /// Whether no client is notified of what is released here.
    pub are_deaf: bool,
}

/// A request to the table: its text, and its number, which the answer repeats.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) number: i64,
    pub(super) text: String,
}

impl Table {
    /// A request for all of this, in one exchange and one transaction.
    #[must_use]
    pub fn ask(&self, number: i64, ask: Ask<'_>, lease: Lease<'_>) -> Request {
        let of = self.of();
        let note = ask.note.map(|has_jumped| (lease.length, has_jumped));
        let mut text = of.begin(number, note);
        if !ask.releases.is_empty() {
            text += &of.release(&rows(ask.releases), ask.are_deaf);
        }
        if !ask.renewals.is_empty() {
            text += &of.renew(&rows(ask.renewals), lease);
        }
        if !ask.tokens.is_empty() {
            text += &of.issue(&rows(ask.tokens), lease.not_after);
        }
        if !ask.acquires.is_empty() {
            let wishes = wishes(ask.acquires);
            // The server takes no greater number than it has.
            let limit = ask.limit.map(|limit| limit.min(ask.acquires.len()));
            text += &of.acquire(&wishes, limit, lease, ask.listens);
        }
        Request { number, text }
    }

    /// A request that looks which of these are free.
    #[must_use]
    pub fn look(&self, number: i64, keys: &[RowKey]) -> Request {
        let of = self.of();
        let text = of.begin(number, None) + &of.look(&places(keys));
        Request { number, text }
    }

    /// A request that looks who holds these.
    #[must_use]
    pub fn who_holds(&self, number: i64, keys: &[RowKey]) -> Request {
        let of = self.of();
        let text = of.begin(number, None) + &of.who_holds(&places(keys));
        Request { number, text }
    }

    /// A request that leaves the mark of this process, or keeps it, and looks for marks of other providers.
    pub(super) fn mark(&self, number: i64, mark: &RowMark, holder: &str) -> Request {
        let of = self.of();
        let mut text = of.begin(number, None);
        text += &of.mark(mark.key(), mark.namespace(), holder, RowMark::LASTS);
        text += &Of::marks_of_others(&mark.others());
        Request { number, text }
    }

    /// A request that notifies those who listen to this channel.
    pub(super) fn notify(&self, number: i64, channel: &str) -> Request {
        let text = self.of().begin(number, None) + &Of::notify(channel);
        Request { number, text }
    }

    /// A request that withdraws the mark of this process.
    pub(super) fn unmark(&self, number: i64, mark: &RowMark) -> Request {
        let of = self.of();
        let text = of.begin(number, None) + &of.unmark(mark.key());
        Request { number, text }
    }

    /// A request that removes rows that were free for long.
    #[must_use]
    pub fn sweep(&self, number: i64) -> Request {
        let of = self.of();
        let text = of.begin(number, None) + &of.sweep();
        Request { number, text }
    }
}

/// The places of locks, from 0, with their keys.
fn places(keys: &[RowKey]) -> String {
    let mut rows = String::with_capacity(keys.len() * 56);
    for (place, key) in keys.iter().enumerate() {
        let comma = if place == 0 { "" } else { ", " };
        // A `String` takes whatever is written to it.
        let _ = write!(rows, "{comma}({place}, '{key}'::uuid)");
    }
    rows
}

/// The places of holds, from 0, with their keys and owners, and for how long they are to be kept.
fn rows(holds: &[Hold]) -> String {
    let mut rows = String::with_capacity(holds.len() * 120);
    for (place, hold) in holds.iter().enumerate() {
        let comma = if place == 0 { "" } else { ", " };
        let Hold { key, owner, .. } = hold;
        let kept = hold.kept();
        let _ = write!(
            rows,
            "{comma}({place}, '{key}'::uuid, '{owner:032x}'::uuid, {kept}::int4)"
        );
    }
    rows
}

impl Hold {
    /// The time for which it is kept: whole milliseconds, the last one begun.
    fn kept(&self) -> String {
        let millis = self.kept.map(|time| (time.as_millis() + 1).to_string());
        millis.unwrap_or_else(|| "NULL".to_owned())
    }
}

fn wishes(wishes: &[Wish<'_>]) -> String {
    let mut rows = String::with_capacity(wishes.len() * 176);
    for (place, wish) in wishes.iter().enumerate() {
        let comma = if place == 0 { "" } else { ", " };
        let Hold { key, owner, .. } = wish.hold;
        let (namespace, name, kept) = (Text(wish.namespace), Text(wish.name), wish.hold.kept());
        let _ = write!(
            rows,
            "{comma}({place}, '{key}'::uuid, '{owner:032x}'::uuid, {namespace}, {name}, {kept}::int4)"
        );
    }
    rows
}
