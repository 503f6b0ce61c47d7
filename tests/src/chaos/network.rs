//! What the network between clients and a server does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use super::faults::{Fault, beyond};
use super::fleet::Fleet;
use crate::Store;
use crate::checker::FaultRule;
use crate::servers::{Direction, Proxy};

/// Nothing arrives anywhere, for longer than a lease.
#[derive(Debug)]
pub(super) struct Blackhole {
    proxy: Arc<Proxy>,
    lasts: Duration,
}

impl Blackhole {
    /// For longer than the lease of the store.
    pub(super) fn beyond<S: Store>(proxy: &Arc<Proxy>) -> Self {
        Self {
            proxy: Arc::clone(proxy),
            lasts: beyond(S::LEASE),
        }
    }
}

#[async_trait]
impl Fault for Blackhole {
    fn name(&self) -> &'static str {
        "blackhole"
    }

    fn rule(&self) -> FaultRule {
        // Before its end: the lease is over by then.
        FaultRule::harmless().costs_locks(Duration::ZERO)
    }

    async fn inject(&self, fleet: &mut Fleet) {
        let broken = fleet.begin_for_all(self.name());
        self.proxy.swallow(Direction::ToServer);
        self.proxy.swallow(Direction::ToClient);
        sleep(self.lasts).await;
        broken.over();
        self.proxy.heal().await;
    }
}

/// All connections are reset.
#[derive(Debug)]
pub(super) struct Reset(Arc<Proxy>);

impl Reset {
    pub(super) fn of(proxy: &Arc<Proxy>) -> Self {
        Self(Arc::clone(proxy))
    }
}

/// Harmless where a lock does not end with its connection.
#[async_trait]
impl Fault for Reset {
    fn name(&self) -> &'static str {
        "reset"
    }

    fn rule(&self) -> FaultRule {
        FaultRule::harmless()
    }

    async fn inject(&self, fleet: &mut Fleet) {
        let broken = fleet.begin_for_all(self.name());
        self.0.reset();
        broken.over();
    }
}

/// Answers are lost to commands that were carried out, one after the other.
#[derive(Debug)]
pub(super) struct LostReply(Arc<Proxy>);

impl LostReply {
    pub(super) fn of(proxy: &Arc<Proxy>) -> Self {
        Self(Arc::clone(proxy))
    }
}

/// How many answers are lost, and how long apart.
const LOST: (u32, Duration) = (10, Duration::from_millis(50));

/// Harmless where a lock does not end with its connection.
#[async_trait]
impl Fault for LostReply {
    fn name(&self) -> &'static str {
        "lost-reply"
    }

    fn rule(&self) -> FaultRule {
        FaultRule::harmless()
    }

    async fn inject(&self, fleet: &mut Fleet) {
        let broken = fleet.begin_for_all(self.name());
        for _ in 0..LOST.0 {
            self.0.drop_next_reply();
            sleep(LOST.1).await;
        }
        self.0.heal().await;
        broken.over();
    }
}
