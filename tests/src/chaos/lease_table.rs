//! Locks in a table behind a pooler under stress: what the network, the pooler and the server do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lock_core::LockName;
use lock_core::postgres::LeaseTable;
use tokio::time::sleep;

use super::faults::{Fault, Subject, common};
use super::fleet::Fleet;
use super::network::{Blackhole, LostReply, Reset};
use crate::checker::FaultRule;
use crate::servers::{Proxy, Server};
use crate::{LeaseTableStore, Store};

const LEASE: Duration = LeaseTableStore::LEASE.unwrap();

/// A server whose clients come through a proxy, and a pooler in transaction mode.
#[derive(Debug)]
pub struct ChaosLeaseTable {
    store: Arc<LeaseTableStore>,
    proxy: Arc<Proxy>,
}

impl Store for ChaosLeaseTable {
    type Backend = LeaseTable;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[];
    const LEASE: Option<Duration> = Some(LEASE);
    const NOTICED_WITHIN: Duration = LeaseTableStore::NOTICED_WITHIN;
    const GRANTED_AFTER_A_KILL: Duration = LeaseTableStore::GRANTED_AFTER_A_KILL;

    async fn open() -> Self {
        let store = Arc::new(LeaseTableStore::open().await);
        let proxy = Arc::new(Proxy::to(store.pooler().address()).await);
        Self { store, proxy }
    }

    /// Not through the proxy.
    async fn backend(&self) -> LeaseTable {
        self.store.backend().await
    }

    async fn lose(&self, name: &LockName) {
        self.store.lose(name).await;
    }

    async fn lose_all(&self) {
        self.store.lose_all().await;
    }

    async fn open_connections(&self) -> usize {
        self.store.open_connections().await
    }

    fn address(&self) -> Option<String> {
        Some(self.proxy.url(&self.store.address()?))
    }
}

impl Subject for ChaosLeaseTable {
    fn faults(&self) -> Vec<Box<dyn Fault>> {
        let mut faults = common::<Self>();
        for restarted in [Restarted::Pooler, Restarted::Server, Restarted::Sessions] {
            let store = Arc::clone(&self.store);
            faults.push(Box::new(Restart { store, restarted }));
        }
        faults.push(Box::new(Blackhole::beyond::<Self>(&self.proxy)));
        faults.push(Box::new(Reset::of(&self.proxy)));
        faults.push(Box::new(LostReply::of(&self.proxy)));
        faults
    }

    /// Locks in the table without a holder.
    async fn left_over(&self) -> Vec<String> {
        let left = sqlx::query_scalar(
            "SELECT name FROM distributed_lock_leases \
             WHERE owner IS NOT NULL AND expires > clock_timestamp()",
        );
        left.fetch_all(self.store.pool()).await.unwrap()
    }
}

/// What comes up again.
#[derive(Clone, Copy, Debug)]
enum Restarted {
    Pooler,
    /// Which does not sync its disk: it grants nothing for a lease after that.
    Server,
    /// Those that the pooler has on the server.
    Sessions,
}

/// A lock is a row, and no connection.
#[derive(Debug)]
struct Restart {
    store: Arc<LeaseTableStore>,
    restarted: Restarted,
}

#[async_trait]
impl Fault for Restart {
    fn name(&self) -> &'static str {
        match self.restarted {
            Restarted::Pooler => "restart-pooler",
            Restarted::Server => "restart-server",
            Restarted::Sessions => "terminate-sessions",
        }
    }

    fn rule(&self) -> FaultRule {
        match self.restarted {
            // On a busy machine it takes as long as a lease.
            Restarted::Server => FaultRule::harmless().may_cost_locks(),
            Restarted::Pooler | Restarted::Sessions => FaultRule::harmless(),
        }
    }

    async fn inject(&self, fleet: &mut Fleet) {
        let broken = fleet.begin_for_all(self.name());
        match self.restarted {
            Restarted::Pooler => {
                self.store.pooler().kill().await;
                self.store.pooler().restart().await;
            }
            Restarted::Server => {
                self.store.server().kill().await;
                self.store.server().restart().await;
                sleep(LEASE).await;
            }
            Restarted::Sessions => {
                let ended = sqlx::query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE backend_type = 'client backend' AND application_name <> 'looking'",
                );
                ended.execute(self.store.pool()).await.unwrap();
            }
        }
        broken.over();
    }
}
