//! When what is held is renewed: all of it together, three times per lease.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::users::Users;
use crate::server::leased::{HeldLock, Part};
use crate::server::protocol::Protocol;

/// How many requests' worth of leases are on their way: a request that waits behind others is late by their
/// time, and one that is late is refused. Not how many requests, of which a cluster has one for each bucket.
const IN_FLIGHT: usize = 4;

pub(super) struct Renewals<P: Protocol> {
    heartbeat: Duration,
    /// When all are due.
    next: Instant,
    /// When those are that were not renewed.
    again: Option<Instant>,
    /// How many leases are asked for and not answered yet.
    asking: usize,
    /// By lane, what is to be sent when others are answered.
    waiting: VecDeque<(usize, Vec<HeldLock<P::Key>>)>,
}

impl<P: Protocol> Renewals<P> {
    pub(super) fn new(heartbeat: Duration) -> Self {
        Self {
            heartbeat,
            next: Instant::now() + heartbeat,
            again: None,
            asking: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Collects what is due.
    pub(super) fn collect(&mut self, users: &Users<P::Waiters>, protocol: &mut P) {
        let now = Instant::now();
        let all = self.next <= now;
        if !all && self.again.is_none_or(|again| again > now) {
            return;
        }
        let mut locks = users.held.all();
        if all {
            self.next = now + self.heartbeat;
        } else {
            // What was renewed a heartbeat ago or earlier: the others were answered.
            let left = users.terms.lease() - users.terms.margin() - self.heartbeat;
            locks.retain(|lock| {
                lock.lease
                    .remaining()
                    .is_some_and(|remaining| remaining <= left)
            });
        }
        self.again = None;
        // What still waits is among these, or was granted so lately that the next round does.
        self.waiting.clear();
        // Those that end first go first: where a round takes longer than a heartbeat, this one begins
        // with what the last one has not come to.
        locks.sort_by_cached_key(|lock| lock.lease.remaining());
        let mut unfilled: Vec<[Option<usize>; 2]> = vec![[None; 2]; protocol.lanes()];
        for lock in locks {
            let lane = protocol.lane_of(&lock.key);
            // A request with readers can wait for those of other processes, and writers do not wait with it.
            let last = &mut unfilled[lane][usize::from(lock.owner.part == Part::Share)];
            let at = last.filter(|at| self.waiting[*at].1.len() < P::RENEWED);
            let at = at.unwrap_or_else(|| {
                self.waiting.push_back((lane, Vec::new()));
                self.waiting.len() - 1
            });
            *last = Some(at);
            self.waiting[at].1.push(lock);
        }
        protocol.renewing(|lane| unfilled[lane].iter().any(Option::is_some));
    }

    /// What can be sent now; its [answer](Self::answered) is awaited.
    pub(super) fn take(&mut self) -> Option<(usize, Vec<HeldLock<P::Key>>)> {
        if self.asking >= IN_FLIGHT * P::RENEWED {
            return None;
        }
        self.waiting.pop_front()
    }

    /// So many leases are asked for.
    pub(super) const fn sent(&mut self, locks: usize) {
        self.asking += locks;
    }

    /// So many have an answer, or will have none.
    pub(super) const fn answered(&mut self, locks: usize) {
        self.asking -= locks;
    }

    /// All are due now.
    pub(super) fn hurry(&mut self) {
        self.next = Instant::now();
    }

    /// Some were not renewed: soon, and until the leases end.
    pub(super) fn again_soon(&mut self) {
        self.again_by(Instant::now() + self.heartbeat / 8);
    }

    /// There is a connection again, or there can be one at this time: what was not renewed does not wait
    /// for its timer. Connections that are cut more often than that would let every lease end.
    pub(super) fn when_connected(&mut self, at: Instant) {
        if self.again.is_some() {
            self.again_by(at);
        }
    }

    fn again_by(&mut self, at: Instant) {
        self.again = Some(self.again.map_or(at, |again| again.min(at)));
    }

    /// Whether some were not renewed.
    pub(super) const fn lacks_some(&self) -> bool {
        self.again.is_some()
    }

    /// When some are due next.
    pub(super) fn next(&self, holds_some: bool) -> Option<Instant> {
        let all = holds_some.then_some(self.next);
        all.into_iter().chain(self.again).min()
    }
}
