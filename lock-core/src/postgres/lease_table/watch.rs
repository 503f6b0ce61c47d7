//! Watches the server: whether it is another one than the table was on, and whether its clock has jumped.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::key::RowKey;
use super::session::{Answer, Server};
use super::shared::Shared;
use crate::checked::grants_nothing_for;
use crate::outage::Repeated;
use crate::server::PATIENCE;
use crate::server::clock::{Jump, ServerClock};
use crate::server::protocol::Sent;

/// Between notes that a quarantine is too long, and by how much it is then.
const SHORTENED: Duration = Duration::from_secs(1);

pub(super) struct Watch {
    shared: Arc<Shared>,
    clock: ServerClock,
    /// What is to be noted in the table before locks are granted again.
    note: Option<Note>,
    /// Rows that end too late.
    late: BTreeSet<RowKey>,
    /// When a quarantine that is too long can be noted again.
    next_shortened: Instant,
}

/// A time of the server, and when it was read by our clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) sent: Duration,
    pub(super) received: Duration,
    pub(super) time: i64,
}

/// What a request notes in the row of the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
    pub(super) has_jumped: bool,
}

/// What a request puts right, beside its locks.
#[derive(Debug)]
pub(super) struct Repair {
    pub(super) note: Option<Note>,
    /// Rows that end too late.
    pub(super) late: Vec<RowKey>,
}

impl Watch {
    pub(super) fn new(shared: Arc<Shared>, seen: Seen) -> Self {
        let mut clock = ServerClock::default();
        // The first: it is no jump.
        let time = seen.time.unsigned_abs();
        clock.observe(seen.sent, seen.received, time, shared.chosen.terms.margin());
        Self {
            shared,
            clock,
            note: None,
            late: BTreeSet::new(),
            next_shortened: Instant::now(),
        }
    }

    /// Until when the server does what is sent now, in microseconds of its clock.
    pub(super) fn not_after(&self, sent: Duration) -> i64 {
        let not_after = self.clock.not_after(sent, PATIENCE);
        i64::try_from(not_after).unwrap_or(i64::MAX)
    }

    /// Takes note of what an answer says of the server; whether its clock was put forward, so that its locks are lost.
    ///
    /// The margin is that of our own lease. Another client can have a shorter one, which a smaller jump costs its locks; it
    /// notices that itself. A client that is idle sees the clock at its renewals alone, a third of its lease apart. NTP can
    /// slew a clock by several percent for a while (chrony up to 8 %), which between two such looks is more than the
    /// margin of a short lease: taken for a jump, it would cost all locks here, and keep every client of the table from
    /// new ones for the longest lease.
    pub(super) fn saw(&mut self, sent: Sent, answer: &Answer) -> bool {
        let received = self.shared.clock.now();
        let time = answer.time.unsigned_abs();
        let jump = (self.clock).observe(sent.at, received, time, self.shared.chosen.terms.margin());
        let has_jumped = jump == Some(Jump::Forward);
        if has_jumped {
            tracing::error!(
                "the clock of the PostgreSQL server was put forward: its locks are lost"
            );
        }
        if has_jumped || answer.server == Server::IsAnother {
            let noted = self.note.is_some_and(|note| note.has_jumped);
            self.note = Some(Note {
                has_jumped: has_jumped || noted,
            });
        }
        if let Server::Waits(left) = answer.server {
            self.shorten(left);
            grants_nothing_for(Duration::from_millis(left.unsigned_abs()));
            static WAITS: Repeated = Repeated::new();
            WAITS.happened("", |times| {
                tracing::warn!(
                    left_ms = left, times,
                    "the PostgreSQL server may lack locks that it had granted, or its clock has jumped: none is \
                     granted until all of them have ended"
                );
            });
        }
        has_jumped
    }

    /// The clock was put back during a quarantine, or after one: it is over a lease from now, as the server sees to
    /// when it is noted. A client that does not know the longest lease of all notes it for nothing.
    fn shorten(&mut self, left: i64) {
        let lease = self.shared.chosen.terms.lease();
        let is_too_long = Duration::from_millis(left.unsigned_abs()) > lease + SHORTENED;
        let now = Instant::now();
        if is_too_long && self.next_shortened <= now && self.note.is_none() {
            self.next_shortened = now + SHORTENED;
            self.note = Some(Note { has_jumped: false });
        }
    }

    /// The row of a lock was written before the clock was put back.
    pub(super) fn ends_too_late(&mut self, key: RowKey) {
        self.late.insert(key);
    }

    /// Whether something is to be put right.
    pub(super) fn repairs(&self) -> bool {
        self.note.is_some() || !self.late.is_empty()
    }

    pub(super) fn take_repair(&mut self) -> Option<Repair> {
        self.repairs().then(|| Repair {
            note: self.note.take(),
            late: mem::take(&mut self.late).into_iter().collect(),
        })
    }

    /// It was not done. Rows that end too late are seen again.
    pub(super) fn put_back(&mut self, repair: Option<Repair>) {
        self.note = self.note.or(repair.and_then(|repair| repair.note));
    }
}
