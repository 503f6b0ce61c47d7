//! What many tasks ask for at a time, as one request.

use std::time::Duration;

use super::key::RowKey;
use super::literal::{Text, Uuid, array, list, texts};
use super::request::{Request, Step, milliseconds};
use super::setup::Table;
use super::sql::Lease;
use super::statements::Call;
pub use crate::server::leased::Part;

/// A lock and who holds it, or asks for it: the owner is of one acquire, at random, and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The lock.
    pub key: RowKey,
    /// 128 bits, and neither 0 nor all of them.
    pub owner: u128,
    /// What of it: all, a share, or, of what is released, the place of the writers of this process that wait.
    pub part: Part,
    /// For how long it stays closed at least, also without its holder: from its release on, or from when it is
    /// acquired or renewed. Of a lock that is whole.
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
    /// Whether a writer of this process waits that readers have refused, and is to have a place before those that come
    /// later.
    pub has_place: bool,
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
    /// How many of these at most, if not all; they are whole then.
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

impl Table {
    /// A request for all of this, in one exchange and one transaction.
    #[must_use]
    pub fn ask(&self, number: i64, ask: Ask<'_>, lease: Lease<'_>) -> Request {
        let of = self.of();
        let note = |has_jumped| of.quarantine(lease.length, has_jumped) + "; ";
        let mut request = self.request(number, []);
        request.note = ask.note.map_or_else(String::new, note);
        if has_readers(&ask) {
            request.steps.push(gather(&ask, &lease));
        }
        if !ask.late.is_empty() {
            let late = of.bring_back(&list(ask.late));
            request.steps.push(Step::Other(late));
        }
        self.release(&mut request, &ask, &lease);
        renew(&mut request, &ask, &lease);
        if !ask.tokens.is_empty() {
            let tokens = ask.tokens.iter().copied().enumerate();
            let [keys, owners, ..] = columns(tokens, lease.length);
            let issue = of.issue([&keys, &owners, &lease.not_after.to_string()]);
            request.steps.push(Step::Other(issue));
        }
        self.acquire(&mut request, &ask, &lease);
        request
    }

    fn release(&self, request: &mut Request, ask: &Ask<'_>, lease: &Lease<'_>) {
        let (releases, deaf) = (|part| of_part(ask.releases, part), ask.are_deaf.to_string());
        if has(releases(Part::Whole)) {
            let [keys, owners, lasts, places] = columns(releases(Part::Whole), Duration::ZERO);
            let call = Call::Release([keys, owners, lasts, places, deaf.clone()]);
            request.steps.push(Step::frequent(call));
        }
        if has(releases(Part::Share)) {
            let [keys, owners, _, places] = columns(releases(Part::Share), Duration::ZERO);
            let call = Call::Leave([keys, owners, places, deaf.clone()]);
            request.steps.push(Step::frequent(call));
        }
        if has(releases(Part::Place)) {
            let [keys, _, _, places] = columns(releases(Part::Place), Duration::ZERO);
            let process = process(lease);
            let giving_up = self.of().give_up([&keys, &places, &process, &deaf]);
            request.steps.push(Step::Other(giving_up));
        }
    }

    fn acquire(&self, request: &mut Request, ask: &Ask<'_>, lease: &Lease<'_>) {
        let wishes = ask.acquires.iter().enumerate();
        let (whole, shares): (Vec<_>, Vec<_>) =
            wishes.partition(|(_, wish)| wish.hold.part == Part::Whole);
        let holds = |wishes: &[(usize, &Wish<'_>)]| {
            let holds = wishes.iter().map(|(place, wish)| (*place, wish.hold));
            columns(holds, lease.length)
        };
        let names = |wishes: &[(usize, &Wish<'_>)]| texts(wishes.iter().map(|(_, wish)| wish.name));
        let awaited = |wishes: &[(usize, &Wish<'_>)]| {
            let awaited = wishes.iter().filter(|(_, wish)| wish.is_awaited);
            array(awaited.map(|(place, _)| *place))
        };
        let not_after = lease.not_after.to_string();
        let lasts = milliseconds(lease.length).to_string();
        if !whole.is_empty() {
            let [keys, owners, lasts, places] = holds(&whole);
            // The server takes no greater number than it has.
            let limit = ask.limit.unwrap_or(usize::MAX).min(whole.len());
            let call = Call::Acquire([
                keys,
                owners,
                lasts,
                names(&whole),
                places,
                Text(lease.namespace).to_string(),
                Text(lease.holder).to_string(),
                not_after.clone(),
                limit.to_string(),
                awaited(&whole),
                process(lease),
            ]);
            request.steps.push(Step::frequent(call));
        }
        if !shares.is_empty() {
            let [keys, owners, _, places] = holds(&shares);
            let call = Call::Share([
                keys,
                owners,
                places,
                Text(lease.holder).to_string(),
                lasts.clone(),
                not_after.clone(),
                awaited(&shares),
            ]);
            request.steps.push(Step::frequent(call));
        }
        let waiting = whole.iter().filter(|(_, wish)| wish.has_place);
        if has(waiting.clone()) {
            let waiting = waiting.map(|(place, wish)| (*place, wish.hold));
            let [keys, _, _, places] = columns(waiting, lease.length);
            let wanting = self.of();
            let wanting = wanting.want([&keys, &places, &process(lease), &lasts, &not_after]);
            request.steps.push(Step::Other(wanting));
        }
    }
}

fn renew(request: &mut Request, ask: &Ask<'_>, lease: &Lease<'_>) {
    let renewals = |part| of_part(ask.renewals, part);
    let not_after = lease.not_after.to_string();
    if has(renewals(Part::Whole)) {
        let [keys, owners, lasts, places] = columns(renewals(Part::Whole), lease.length);
        let call = Call::Renew([keys, owners, lasts, places, not_after.clone()]);
        request.steps.push(Step::frequent(call));
    }
    if has(renewals(Part::Share)) {
        let [keys, owners, _, places] = columns(renewals(Part::Share), lease.length);
        let lasts = milliseconds(lease.length).to_string();
        let call = Call::RenewShares([keys, owners, places, lasts, not_after]);
        request.steps.push(Step::frequent(call));
    }
}

/// Whether the request is about readers, or about a writer that waits for them.
fn has_readers(ask: &Ask<'_>) -> bool {
    let acquires = ask.acquires.iter();
    let held = ask.releases.iter().chain(ask.renewals);
    acquires.clone().any(|wish| wish.has_place)
        || held
            .chain(acquires.map(|wish| &wish.hold))
            .any(|hold| hold.part != Part::Whole)
}

/// Waits for all rows that the request waits for, and makes those that are missing where it has new readers: of its
/// writers as well, so that all are made in one order.
fn gather(ask: &Ask<'_>, lease: &Lease<'_>) -> Step {
    let acquires = ask.acquires.iter();
    let is_read = |wish: &&Wish<'_>| wish.hold.part == Part::Share;
    let waited = acquires
        .clone()
        .filter(|wish| is_read(wish) || wish.has_place);
    let holds = [ask.releases, ask.renewals, ask.tokens].concat();
    let rows = holds.iter().chain(waited.map(|wish| &wish.hold));
    let made = match acquires.clone().any(|wish| is_read(&wish)) {
        true => ask.acquires,
        false => &[],
    };
    Step::frequent(Call::Gather([
        array(rows.map(|hold| hold.key)),
        array(made.iter().map(|wish| wish.hold.key)),
        texts(made.iter().map(|wish| wish.name)),
        array(0..made.len()),
        Text(lease.namespace).to_string(),
        Text(lease.holder).to_string(),
        lease.not_after.to_string(),
    ]))
}

/// Those of one part, each with its place.
fn of_part(holds: &[Hold], part: Part) -> impl Iterator<Item = (usize, Hold)> + Clone {
    let holds = holds.iter().copied().enumerate();
    holds.filter(move |(_, hold)| hold.part == part)
}

fn has(mut some: impl Iterator) -> bool {
    some.next().is_some()
}

/// Keys, owners, for how long each lasts, which is a lease at least, and places.
fn columns(holds: impl Iterator<Item = (usize, Hold)> + Clone, lease: Duration) -> [String; 4] {
    let lasts = |hold: Hold| milliseconds(hold.at_least.map_or(lease, |least| least.max(lease)));
    [
        array(holds.clone().map(|(_, hold)| hold.key)),
        array(holds.clone().map(|(_, hold)| Uuid(hold.owner))),
        array(holds.clone().map(|(_, hold)| lasts(hold))),
        array(holds.map(|(place, _)| place)),
    ]
}

/// Whose the places are.
fn process(lease: &Lease<'_>) -> String {
    format!("'{}'", Uuid(lease.process))
}
