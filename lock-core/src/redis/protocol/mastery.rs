//! Sentinels are asked all the time whether the server is the master still: see
//! [the module of those](crate::redis::sentinel) for what that is good for.

use std::sync::Arc;
use std::time::Duration;

use ::redis::ConnectionAddr;
use tokio::time::Instant;

use super::nodes::Nodes;
use super::{Done, Effects};
use crate::redis::command::HeldLock;
use crate::redis::shared::Shared;
use crate::server::protocol::Effect;

/// Between two questions at most.
const EVERY: Duration = Duration::from_secs(1);

/// What is known of the only node's being the master.
pub(super) struct Mastery {
    shared: Arc<Shared>,
    /// When Sentinels were last asked, and named no other; on CLOCK_BOOTTIME.
    as_of: Duration,
    next: Instant,
    is_asking: bool,
}

impl Mastery {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            as_of: Duration::ZERO,
            next: Instant::now(),
            is_asking: false,
        }
    }

    /// When a lease ends that was asked for then, over a connection to the master as it is known now, or not.
    /// It counts from no later than the server was known to be the master: one that was left extends nothing.
    pub(super) fn valid_until(&self, sent: Duration, is_of_master: bool) -> Duration {
        let settings = &self.shared.settings;
        if self.shared.sentinels.is_none() {
            return settings.valid_until(sent);
        }
        if !is_of_master {
            return Duration::ZERO;
        }
        settings.valid_until(sent.min(self.as_of))
    }

    /// Sentinels, asked at this time, have named the server that was connected to.
    pub(super) fn is_master_as_of(&mut self, asked: Duration) {
        self.as_of = self.as_of.max(asked);
    }

    /// How long ago the Sentinels were asked, where there are some.
    fn age(&self) -> Option<Duration> {
        self.shared.sentinels.as_ref()?;
        Some(self.shared.clock.now().saturating_sub(self.as_of))
    }

    /// Whether what is known is so old that a lease would be short, or over: this process stood still.
    pub(super) fn is_old(&self) -> bool {
        self.age()
            .is_some_and(|age| age > 2 * self.shared.settings.heartbeat())
    }

    /// Whether what is granted now may be held. Another process can have carried the lock over to a new
    /// master, where it is renewed, while its copy here has ended: see [`carries_over`](Self::carries_over).
    pub(super) fn may_grant(&self) -> bool {
        let heartbeat = self.shared.settings.heartbeat();
        !self.shared.split.is_on() && self.age().is_none_or(|age| age <= heartbeat)
    }

    /// Whether a lease that this server has renewed, and another one before, goes on.
    ///
    /// The copy of it at the former master has an end that nothing moves any more, and that master can grant
    /// the lock from then on: to a process that asked the Sentinels a heartbeat ago or less
    /// ([`may_grant`](Self::may_grant)), so before a heartbeat after the first of them named the new one. A
    /// lease that had a heartbeat left when it came here ends there later than that.
    pub(super) fn carries_over(&self, lock: &HeldLock, server: u64) -> bool {
        let left = lock.lease.remaining();
        self.shared.sentinels.is_none()
            || lock.server == server
            || left.is_some_and(|left| left >= self.shared.settings.heartbeat())
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let is_due = self.shared.sentinels.is_some() && !self.is_asking;
        is_due.then_some(self.next)
    }

    /// Asks the Sentinels, if it is time. Where there is no connection one is made, also for nothing that is
    /// asked for: to be subscribed at the server that grants.
    pub(super) fn watch(&mut self, nodes: &mut Nodes, effects: &mut Effects) {
        if self.next().is_none_or(|at| at > Instant::now()) {
            return;
        }
        let settings = &self.shared.settings;
        // So that what is known is not older than a heartbeat, also where a Sentinel is silent.
        let heartbeat = settings.heartbeat();
        let (pause, within) = (heartbeat / 4, settings.answer_within().min(heartbeat / 2));
        self.next = Instant::now() + pause.min(EVERY);
        if nodes.is_up(0) {
            self.is_asking = true;
            let than = nodes.address(0).clone();
            let shared = Arc::clone(&self.shared);
            effects.push(Effect::call(async move {
                let asked = shared.clock.now();
                let another = match &shared.sentinels {
                    Some(sentinels) => sentinels.name_another(&than, within).await,
                    None => false,
                };
                Done::Watched {
                    asked,
                    than,
                    another,
                }
            }));
        } else {
            let _ = nodes.connection(0, effects);
        }
    }

    pub(super) fn watched(
        &mut self,
        asked: Duration,
        than: &ConnectionAddr,
        another: bool,
        nodes: &mut Nodes,
        effects: &mut Effects,
    ) {
        self.is_asking = false;
        if nodes.address(0) != than || !nodes.is_up(0) {
            return;
        }
        if !another {
            return self.is_master_as_of(asked);
        }
        tracing::warn!(
            former = %than,
            "Redis Sentinels name another master: held locks are renewed there, and no lock is granted until those that it may lack have expired"
        );
        nodes.disconnect(0);
        effects.push(Effect::RenewAll);
        self.next = Instant::now();
    }
}
