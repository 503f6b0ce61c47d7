//! A request: all that many tasks ask for at a time.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use super::key::RowKey;
use super::literal::{Text, texts};
use super::mark::RowMark;
use super::setup::Table;
use super::sql::{BEGIN, Lease, Of};
use super::statements::{Call, Form};

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

/// A request to the table. Its answer repeats its number.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) number: i64,
    pub(super) table: Table,
    /// Before the head.
    note: String,
    /// After it.
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Frequent(Call),
    /// With the semicolon before it.
    Other(String),
}

impl Request {
    /// The statements, which are one transaction.
    pub(super) fn text(&self, form: Form) -> String {
        let (of, statements) = (self.table.of(), self.table.statements());
        let mut text = format!("{BEGIN}{}{}", statements.teaching(form), self.note);
        let head = Call::Head([self.number.to_string()]);
        statements.write(&head, form, &of, &mut text);
        for step in &self.steps {
            match step {
                Step::Frequent(call) => {
                    text += "; ";
                    statements.write(call, form, &of, &mut text);
                }
                Step::Other(other) => text += other,
            }
        }
        text
    }
}

impl Table {
    fn request<const N: usize>(&self, number: i64, steps: [Step; N]) -> Request {
        Request {
            number,
            table: self.clone(),
            note: String::new(),
            steps: steps.into(),
        }
    }

    /// A request for all of this, in one exchange and one transaction.
    #[must_use]
    pub fn ask(&self, number: i64, ask: Ask<'_>, lease: Lease<'_>) -> Request {
        let of = self.of();
        let note = |has_jumped| of.quarantine(lease.length, has_jumped) + "; ";
        let mut request = self.request(number, []);
        request.note = ask.note.map_or_else(String::new, note);
        let steps = &mut request.steps;
        if !ask.late.is_empty() {
            steps.push(Step::Other(of.bring_back(&list(ask.late))));
        }
        if !ask.releases.is_empty() {
            let [keys, owners, lasts] = columns(ask.releases.iter().copied(), Duration::ZERO);
            let deaf = ask.are_deaf.to_string();
            steps.push(Step::Frequent(Call::Release([keys, owners, lasts, deaf])));
        }
        let not_after = lease.not_after.to_string();
        if !ask.renewals.is_empty() {
            let [keys, owners, lasts] = columns(ask.renewals.iter().copied(), lease.length);
            let call = Call::Renew([keys, owners, lasts, not_after.clone()]);
            steps.push(Step::Frequent(call));
        }
        if !ask.tokens.is_empty() {
            let [keys, owners, _] = columns(ask.tokens.iter().copied(), lease.length);
            let issue = of.issue([&keys, &owners, &not_after]);
            steps.push(Step::Other(issue));
        }
        if !ask.acquires.is_empty() {
            let wishes = ask.acquires.iter();
            let [keys, owners, lasts] = columns(wishes.clone().map(|wish| wish.hold), lease.length);
            let awaited = wishes.clone().enumerate();
            let awaited = awaited.filter(|(_, wish)| wish.is_awaited);
            // The server takes no greater number than it has.
            let limit = (ask.limit.unwrap_or(usize::MAX)).min(ask.acquires.len());
            steps.push(Step::Frequent(Call::Acquire([
                keys,
                owners,
                lasts,
                texts(wishes.map(|wish| wish.name)),
                Text(lease.namespace).to_string(),
                Text(lease.holder).to_string(),
                not_after,
                limit.to_string(),
                array(awaited.map(|(place, _)| place)),
            ])));
        }
        request
    }

    /// A request that looks which of these are free, or will be so soon.
    #[must_use]
    pub fn look(&self, number: i64, keys: &[RowKey], soon: Duration) -> Request {
        let call = Call::Look([array(keys), milliseconds(soon).to_string()]);
        self.request(number, [Step::Frequent(call)])
    }

    /// A request that looks who holds these.
    #[must_use]
    pub fn who_holds(&self, number: i64, keys: &[RowKey]) -> Request {
        let looking = self.of().who_holds(&array(keys));
        self.request(number, [Step::Other(looking)])
    }

    /// A request that leaves the mark of this process, or keeps it, and looks for marks of other providers.
    pub(super) fn mark(&self, number: i64, mark: &RowMark, holder: &str) -> Request {
        let marking = (self.of()).mark(mark.key(), mark.namespace(), holder, RowMark::LASTS);
        let looking = Of::marks_of_others(&mark.others());
        self.request(number, [Step::Other(marking), Step::Other(looking)])
    }

    /// A request that notifies those who listen to this channel.
    pub(super) fn notify(&self, number: i64, channel: &str) -> Request {
        self.request(number, [Step::Other(Of::notify(channel))])
    }

    /// A request that withdraws the mark of this process.
    pub(super) fn unmark(&self, number: i64, mark: &RowMark) -> Request {
        let withdrawing = self.of().unmark(mark.key());
        self.request(number, [Step::Other(withdrawing)])
    }

    /// A request that removes rows that were free for long.
    #[must_use]
    pub fn sweep(&self, number: i64) -> Request {
        let removing = self.of().sweep();
        self.request(number, [Step::Other(removing)])
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

/// The same, as the server reads it: one value, which takes it less time than a row for each lock.
fn array(values: impl IntoIterator<Item = impl Display>) -> String {
    format!("'{{{}}}'", list(values))
}

/// Keys, owners, and for how long each lasts, which is a lease at least.
fn columns(holds: impl Iterator<Item = Hold> + Clone, lease: Duration) -> [String; 3] {
    let lasts = |hold: Hold| milliseconds(hold.at_least.map_or(lease, |least| least.max(lease)));
    [
        array(holds.clone().map(|hold| hold.key)),
        array(holds.clone().map(|hold| Owner(hold.owner))),
        array(holds.map(lasts)),
    ]
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
