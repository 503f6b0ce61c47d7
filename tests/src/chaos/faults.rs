//! What goes wrong.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;

use super::fleet::Fleet;
use crate::checker::FaultRule;
use crate::{FileStore, Store};

/// A fault. A store adds its own: see [`Subject::faults`].
#[async_trait]
pub trait Fault: Debug + Send + Sync {
    /// What it is called in the history.
    fn name(&self) -> &'static str;

    /// What it does, and what may and must come of it, on a machine that adds nothing.
    fn rule(&self) -> FaultRule;

    /// Makes it happen, and returns when it is over and healed. It [begins](Fleet::begin) before
    /// anything can come of it, and [is over](super::Broken::over) once nothing more will.
    async fn inject(&self, fleet: &mut Fleet);
}

/// A process is killed, and replaced by a new one.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    /// Within which time its locks are granted.
    pub granted: Duration,
}

#[async_trait]
impl Fault for Kill {
    fn name(&self) -> &'static str {
        "kill"
    }

    fn rule(&self) -> FaultRule {
        FaultRule::kill(self.granted)
    }

    async fn inject(&self, fleet: &mut Fleet) {
        let victim = fleet.victim();
        let broken = fleet.begin(self.name(), victim);
        fleet.child(victim).kill().await;
        broken.over();
        fleet.replace(victim).await;
    }
}

/// A process stands still, for longer than a lease.
#[derive(Clone, Copy, Debug)]
pub struct Freeze {
    /// The lease of the store, if it has one.
    pub lease: Option<Duration>,
}

#[async_trait]
impl Fault for Freeze {
    fn name(&self) -> &'static str {
        "freeze"
    }

    fn rule(&self) -> FaultRule {
        FaultRule::freeze(self.lease)
    }

    async fn inject(&self, fleet: &mut Fleet) {
        let victim = fleet.victim();
        let broken = fleet.begin(self.name(), victim);
        fleet.child(victim).freeze().await;
        tokio::time::sleep(beyond(self.lease)).await;
        // It is over before the process can do anything again.
        broken.over();
        fleet.child(victim).thaw().await;
    }
}

/// Long enough to cost a lease.
pub(super) fn beyond(lease: Option<Duration>) -> Duration {
    lease.unwrap_or(Duration::from_millis(500)) + Duration::from_millis(700)
}

/// A store that a campaign can be led against. What it does not say is as for any store.
pub trait Subject: Store {
    /// What can go wrong.
    fn faults(&self) -> Vec<Box<dyn Fault>> {
        common::<Self>()
    }

    /// What the store keeps of clients that are gone, once nothing is held: a line each.
    fn left_over(&self) -> impl Future<Output = Vec<String>> + Send {
        std::future::ready(Vec::new())
    }
}

/// What can go wrong with the clients of any store.
#[must_use]
pub fn common<S: Store>() -> Vec<Box<dyn Fault>> {
    // For the machine, which starts a process at the same time.
    let granted = S::GRANTED_AFTER_A_KILL + Duration::from_millis(500);
    vec![
        Box::new(Kill { granted }),
        Box::new(Freeze { lease: S::LEASE }),
    ]
}

impl Subject for FileStore {}
