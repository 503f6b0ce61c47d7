//! Leases: everything that is held is renewed together, three times per lease.

use std::collections::VecDeque;
use std::time::Duration;

use ::redis::Value;
use tokio::time::Instant;

use super::nodes::{Link, Via};
use super::{Done, Driver};
use crate::outage::SoFar;
use crate::redis::KIND;
use crate::redis::clock::Jump;
use crate::redis::command::HeldLock;
use crate::redis::key::millis;
use crate::redis::scripts::{Failure, RENEW};
use crate::{LossReason, observe};

/// How many leases one call renews: more would keep the server from others for long.
const MAX_RENEWED: usize = 256;

/// How many of them are on their way: a call that waits behind others is late by their time, and one
/// that is late is refused. Not how many calls, of which a cluster has one for each bucket.
const MAX_ASKED: usize = 4 * MAX_RENEWED;

/// Before a renewal that had no answer is sent over another connection.
const SOON: Duration = Duration::from_millis(10);

/// When there is something to renew.
pub(super) struct Renewals {
    /// Of everything.
    pub(super) next: Instant,
    /// Of what was not renewed.
    pub(super) again: Option<Instant>,
    /// How many leases are asked for and not answered yet.
    asking: usize,
    /// By lane, what is to be sent when others are answered.
    waiting: VecDeque<(usize, Vec<HeldLock>)>,
}

impl Renewals {
    pub(super) fn new(heartbeat: Duration) -> Self {
        Self {
            next: Instant::now() + heartbeat,
            again: None,
            asking: 0,
            waiting: VecDeque::new(),
        }
    }
}

impl Driver {
    /// Starts the renewals that are due.
    pub(super) fn renew(&mut self) {
        self.collect_renewals();
        while self.renewals.asking < MAX_ASKED
            && let Some((lane, locks)) = self.renewals.waiting.pop_front()
        {
            self.renew_some(lane, locks);
        }
    }

    fn collect_renewals(&mut self) {
        let now = Instant::now();
        let heartbeat = self.shared.settings.heartbeat();
        let all = self.renewals.next <= now;
        if !all && self.renewals.again.is_none_or(|again| again > now) {
            return;
        }
        let mut locks = self.shared.held.all();
        if all {
            self.renewals.next = now + heartbeat;
        } else {
            // What was renewed a heartbeat ago or earlier: the others were answered.
            let left = self.shared.settings.lease - self.shared.settings.margin() - heartbeat;
            locks.retain(|lock| {
                lock.lease
                    .remaining()
                    .is_some_and(|remaining| remaining <= left)
            });
        }
        self.renewals.again = None;
        // What still waits is among these, or was granted so lately that the next round does.
        self.renewals.waiting.clear();
        // Those that end first go first: where a round takes longer than a heartbeat, this one begins
        // with what the last one has not come to.
        locks.sort_by_cached_key(|lock| lock.lease.remaining());
        let mut unfilled: Vec<Option<usize>> = vec![None; self.lanes.len()];
        for lock in locks {
            let lane = self.lane_of(lock.key.bucket);
            let waiting = &mut self.renewals.waiting;
            let at = unfilled[lane].filter(|at| waiting[*at].1.len() < MAX_RENEWED);
            let at = at.unwrap_or_else(|| {
                waiting.push_back((lane, Vec::new()));
                waiting.len() - 1
            });
            unfilled[lane] = Some(at);
            waiting[at].1.push(lock);
        }
        // What was not renewed in time is lost, which has a line of its own.
        for (at, node) in self.nodes.iter_mut().enumerate() {
            let mut lanes = self.renewals.waiting.iter().map(|(lane, _)| *lane);
            if lanes.all(|lane| self.lanes[lane].node != at) {
                node.unrenewed.over(|_| ());
            }
        }
    }

    fn renew_some(&mut self, lane: usize, locks: Vec<HeldLock>) {
        let Some((mut connection, via)) = self.connection(lane) else {
            // Asked for by `connection`, now or when it may be; a failure of it is one of ours.
            self.renew_again();
            if let Link::Down { retry_at } = self.nodes[self.lanes[lane].node].link {
                self.renew_when_connected(retry_at);
            }
            return;
        };
        let settings = &self.shared.settings;
        let within = settings.answer_within();
        let sent = self.shared.clock.now();
        let lane_of = &self.lanes[lane];
        let not_after = self.nodes[lane_of.node].clock.not_after(sent, within);
        let mut call = RENEW.call(1 + locks.len(), 2 + locks.len());
        call.arg(lane_of.server_key.as_str());
        for lock in &locks {
            call.arg(&*lock.key.text);
        }
        call.arg(not_after).arg(millis(settings.lease));
        for lock in &locks {
            call.arg(&lock.owner.text()[..]);
        }
        self.renewals.asking += locks.len();
        self.calls.push(Box::pin(async move {
            let answer = RENEW.invoke(&mut connection, call, within).await;
            // The time alone: it came too late.
            let is_whole = |values: &Vec<_>| [1, locks.len() + 1].contains(&values.len());
            let answer = answer.and_then(|values| match is_whole(&values) {
                true => Ok(values),
                false => Err(Failure::Nonsense),
            });
            Done::Renewed {
                lane,
                via,
                sent,
                locks,
                answer,
            }
        }));
    }

    pub(super) fn renewed(
        &mut self,
        lane: usize,
        via: Via,
        sent: Duration,
        locks: Vec<HeldLock>,
        answer: Result<Vec<Value>, Failure>,
    ) {
        self.renewals.asking -= locks.len();
        let values = match answer {
            Ok(values) => values,
            Err(failure) => {
                let node = &mut self.nodes[via.node];
                node.unrenewed.failed(|SoFar { failures, lasting }| {
                    tracing::warn!(
                        server = %node.info.addr(), reason = %failure, locks = locks.len(), failures, lasting,
                        "leases in Redis were not renewed; they are tried again until they end"
                    );
                });
                if failure.is_elsewhere() {
                    self.look_for_nodes(lane, &failure);
                }
                self.renew_again();
                if matches!(failure, Failure::Unknown(_)) {
                    // Its connection was left: this makes another.
                    self.renew_when_connected(Instant::now() + SOON);
                }
                return;
            }
        };
        let mut values = values.into_iter();
        let Some(Value::Int(time)) = values.next() else {
            return self.renew_again();
        };
        if self.saw_time(via, sent, time.unsigned_abs()) == Some(Jump::Forward) {
            // All of them are lost.
            return;
        }
        let until = self.valid_until(via, sent);
        let mut headroom: Option<Duration> = None;
        for lock in locks {
            match values.next() {
                // Of a master that was left: it means nothing.
                Some(Value::Int(0)) if !self.is_of_master(via) => self.renew_again(),
                Some(Value::Int(1)) if !self.carries_over(&lock, via) => {
                    lock.lease.lose(LossReason::Expired);
                    self.shared.held.remove(lock.owner);
                }
                Some(Value::Int(0)) => {
                    lock.lease.lose(LossReason::Revoked);
                    self.shared.held.remove(lock.owner);
                }
                Some(Value::Int(1)) => {
                    let left = lock.lease.remaining();
                    headroom = headroom.into_iter().chain(left).min();
                    lock.lease.extend(until);
                    if lock.server != via.server {
                        self.shared.held.moved_to(via.server, lock.owner);
                    }
                }
                // Too late by the server's clock, which we know now; or nothing that says that it was
                // renewed.
                _ => self.renew_again(),
            }
        }
        if let Some(headroom) = headroom {
            let node = &mut self.nodes[via.node];
            node.unrenewed.over(|lasted| {
                tracing::info!(server = %node.info.addr(), ?lasted, "leases in Redis are renewed again");
            });
            observe::renew_headroom(KIND, headroom);
        }
    }

    /// Soon, and until the leases end.
    pub(super) fn renew_again(&mut self) {
        self.renew_by(Instant::now() + self.shared.settings.heartbeat() / 8);
    }

    /// There is a connection again, or there can be one at this time: what was not renewed does not wait
    /// for its timer. Connections that are cut more often than that would let every lease end.
    pub(super) fn renew_when_connected(&mut self, at: Instant) {
        if self.renewals.again.is_some() {
            self.renew_by(at);
        }
    }

    fn renew_by(&mut self, at: Instant) {
        self.renewals.again = Some(self.renewals.again.map_or(at, |again| again.min(at)));
    }

    /// A server's clock was put forward: leases on it may have ended early.
    pub(super) fn jumped(&mut self, node: usize) {
        tracing::error!("the clock of the Redis server was put forward: its locks are lost");
        let lanes = &self.lanes;
        let lane_of = |bucket: u8| &lanes[usize::from(bucket) % lanes.len()];
        self.shared
            .held
            .lose(LossReason::Expired, |key| lane_of(key.bucket).node == node);
        for lane in &mut self.lanes {
            lane.jumped |= lane.node == node;
        }
    }
}
