//! A request: all that many tasks ask for at a time.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use super::key::RowKey;
use super::literal::{Text, texts};
use super::mark::RowMark;
use super::setup::Table;
use super::sql::{Lease, Of};

/// A lock and who holds it, or asks for it: the owner is of one acquire, at random, and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The lock.
    pub key: RowKey,
    /// 128 bits, and not 0.
    pub owner: u128,
    /// For how long it stays closed at least, also without its holder: from its release on, or from when it is
    /// acquired or renewed.
    pub at_least: Option<Duration>,
}

/// A lock that is to be acquired; what operators read in its row.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The lock, and who is to hold it.
    pub hold: Hold,
    /// Its name.
    pub name: &'a str,
    /// Whether this client is to be notified of its release, if it is refused.
    pub is_awaited: bool,
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
    /// Locks that [end too late](super::Answer::ends_too_late), and are to end when they should.
    pub late: &'a [RowKey],
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
        if !ask.late.is_empty() {
            text += &of.bring_back(&list(ask.late));
        }
        if !ask.releases.is_empty() {
            text += &of.release(&rows(ask.releases, Duration::ZERO), ask.are_deaf);
        }
        if !ask.renewals.is_empty() {
            text += &of.renew(&rows(ask.renewals, lease.length), lease.not_after);
        }
        if !ask.tokens.is_empty() {
            text += &of.issue(&rows(ask.tokens, lease.length), lease.not_after);
        }
        if !ask.acquires.is_empty() {
            let wishes = wishes(ask.acquires, lease);
            // The server takes no greater number than it has.
            let limit = ask.limit.map(|limit| limit.min(ask.acquires.len()));
            let awaited = (ask.acquires.iter().enumerate()).filter(|(_, wish)| wish.is_awaited);
            let awaited = list(awaited.map(|(place, _)| place));
            text += &of.acquire(&wishes, limit, lease, &awaited);
        }
        Request { number, text }
    }

    /// A request that looks which of these are free, or will be so soon.
    #[must_use]
    pub fn look(&self, number: i64, keys: &[RowKey], soon: Duration) -> Request {
        let of = self.of();
        let text = of.begin(number, None) + &of.look(&places(keys), soon.as_millis());
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

/// Values as those of an array.
fn list(values: impl IntoIterator<Item = impl Display>) -> String {
    let mut list = String::new();
    for value in values {
        let comma = if list.is_empty() { "" } else { "," };
        // A `String` takes whatever is written to it.
        let _ = write!(list, "{comma}{value}");
    }
    list
}

/// Keys by their places from 0.
fn places(keys: &[RowKey]) -> String {
    format!(
        "SELECT key, (place - 1)::int4 AS place FROM unnest('{{{}}}'::uuid[]) WITH ORDINALITY AS a(key, place)",
        list(keys)
    )
}

/// The columns that all locks have, as arrays: one value each, which the server reads faster than a row for each
/// lock.
fn columns(holds: impl Iterator<Item = Hold> + Clone, lease: Duration) -> String {
    let lasts = |hold: Hold| milliseconds(hold.at_least.map_or(lease, |least| least.max(lease)));
    format!(
        "'{{{}}}'::uuid[], '{{{}}}'::uuid[], '{{{}}}'::int4[]",
        list(holds.clone().map(|hold| hold.key)),
        list(holds.clone().map(|hold| Owner(hold.owner))),
        list(holds.map(lasts))
    )
}

/// Locks by their places from 0.
fn rows(holds: &[Hold], lease: Duration) -> String {
    format!(
        "SELECT key, owner, lasts, (place - 1)::int4 AS place \
         FROM unnest({}) WITH ORDINALITY AS a(key, owner, lasts, place)",
        columns(holds.iter().copied(), lease)
    )
}

fn wishes(wishes: &[Wish<'_>], lease: Lease<'_>) -> String {
    format!(
        "SELECT key, owner, lasts, (place - 1)::int4 AS place, {} AS namespace, name \
         FROM unnest({}, {}) WITH ORDINALITY AS a(key, owner, lasts, name, place)",
        Text(lease.namespace),
        columns(wishes.iter().map(|wish| wish.hold), lease.length),
        texts(wishes.iter().map(|wish| wish.name))
    )
}

/// As a `uuid` is read.
struct Owner(u128);

impl Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Whole milliseconds, the last one begun.
fn milliseconds(duration: Duration) -> i32 {
    let whole = duration.as_micros().div_ceil(1_000);
    i32::try_from(whole).unwrap_or(i32::MAX)
}
