//! Requests of the driver in the words of the table. Each comes with until when the server does it.

use std::time::Duration;

use tokio::time::Instant;

use super::TableProtocol;
use crate::postgres::lease_table::ask::{Ask, Hold, Wish};
use crate::postgres::lease_table::request::Request;
use crate::postgres::lease_table::sql::Lease;
use crate::postgres::lease_table::waiters::{Acquire, HeldLock, TableKey, Token};
use crate::server::leased::{Owner, Part};
use crate::server::protocol::{Batch, Sent};

impl TableProtocol {
    pub(super) fn exchange_request(&self, sent: Sent, batch: &Batch<Self>) -> (Request, i64) {
        let releases = batch.releases.iter();
        let releases: Vec<_> = releases
            .map(|release| {
                let kept = release.kept_for(sent.at);
                hold(&release.key, release.owner, kept)
            })
            .collect();
        let acquires = batch.acquires.iter();
        let is_claim = batch.limit.is_some();
        let acquires: Vec<_> = acquires
            .map(|acquire| self.wish(acquire, is_claim))
            .collect();
        let repair = batch.extra.as_ref();
        self.request(
            sent.at,
            Ask {
                releases: &releases,
                acquires: &acquires,
                limit: batch.limit,
                note: repair.and_then(|repair| Some(repair.note?.has_jumped)),
                late: repair.map_or(&[], |repair| &repair.late),
                are_deaf: (self.deaf_until).is_some_and(|until| until > Instant::now()),
                ..Ask::default()
            },
        )
    }

    pub(super) fn renewal_request(&self, sent: Sent, locks: &[HeldLock]) -> (Request, i64) {
        let holds: Vec<_> = locks
            .iter()
            .map(|lock| hold(&lock.key, lock.owner, lock.kept_for(sent.at)))
            .collect();
        let renewals = &holds;
        self.request(
            sent.at,
            Ask {
                renewals,
                ..Ask::default()
            },
        )
    }

    pub(super) fn tokens_request(&self, sent: Sent, tokens: &[Token]) -> (Request, i64) {
        let holds: Vec<_> = tokens
            .iter()
            .map(|token| hold(&token.key, token.owner, None))
            .collect();
        let tokens = &holds;
        self.request(
            sent.at,
            Ask {
                tokens,
                ..Ask::default()
            },
        )
    }

    fn request(&self, sent: Duration, ask: Ask<'_>) -> (Request, i64) {
        let not_after = self.watch.not_after(sent);
        let lease = Lease {
            length: self.shared.chosen.terms.lease(),
            not_after,
            holder: &self.shared.holder,
            namespace: &self.shared.chosen.namespace,
            process: self.shared.process(),
        };
        (self.table.ask(self.shared.number(), ask, lease), not_after)
    }

    /// One of many that are claimed takes no place: a claim does not wait.
    fn wish<'a>(&self, acquire: &'a Acquire, is_claim: bool) -> Wish<'a> {
        let (shared, part) = (&self.shared, acquire.part);
        // Once it is registered it tries again, so that a try which no waiter is registered for leaves no trace.
        let is_waiting = || shared.waiters.are_there(&acquire.key, part);
        let is_awaited = shared.is_listening() && is_waiting();
        let has_place =
            !is_claim && part == Part::Whole && self.places.contains(&acquire.key) && is_waiting();
        Wish {
            hold: hold(&acquire.key, acquire.owner, acquire.at_least),
            name: acquire.key.name.as_str(),
            is_awaited,
            has_place,
        }
    }
}

fn hold(key: &TableKey, owner: Owner, at_least: Option<Duration>) -> Hold {
    Hold {
        key: key.row,
        owner: u128::from(owner.connection) << 64 | u128::from(owner.number),
        part: owner.part,
        at_least,
    }
}
