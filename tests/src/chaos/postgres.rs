//! A PostgreSQL server under stress: what its administrator and the network do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lock_core::LockName;
use lock_core::postgres::PostgresBackend;
use sqlx::PgPool;
use tokio::time::sleep;

use super::faults::{Fault, Subject, common};
use super::fleet::Fleet;
use super::network::Blackhole;
use crate::checker::FaultRule;
use crate::servers::Proxy;
use crate::{PostgresStore, Queued, Store};

/// A server whose clients come through a proxy.
#[derive(Debug)]
pub struct ChaosPostgres {
    store: PostgresStore,
    proxy: Arc<Proxy>,
}

/// Within which time a session that the server ends is noticed.
const NOTICED: Duration = Duration::from_millis(50);

/// For how long afterwards a busy machine is watched that delays the news.
const WATCHED: Duration = Duration::from_millis(200);

impl Store for ChaosPostgres {
    type Backend = PostgresBackend;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[];
    const LEASE: Option<Duration> = PostgresStore::LEASE;
    const NOTICED_WITHIN: Duration = PostgresStore::NOTICED_WITHIN;
    const GRANTED_AFTER_A_KILL: Duration = PostgresStore::GRANTED_AFTER_A_KILL;

    async fn open() -> Self {
        let store = PostgresStore::open().await;
        let proxy = Arc::new(Proxy::to(store.server.address()).await);
        Self { store, proxy }
    }

    /// Not through the proxy.
    async fn backend(&self) -> PostgresBackend {
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

impl Subject for ChaosPostgres {
    fn faults(&self) -> Vec<Box<dyn Fault>> {
        let mut faults = common::<Self>();
        let pool = || self.store.pool.clone();
        faults.push(Box::new(Terminate {
            pool: pool(),
            all: false,
            queued: Mutex::default(),
        }));
        faults.push(Box::new(Terminate {
            pool: pool(),
            all: true,
            queued: Mutex::default(),
        }));
        faults.push(Box::new(Blackhole::beyond::<Self>(&self.proxy)));
        faults
    }

    /// Locks in the server without a holder.
    async fn left_over(&self) -> Vec<String> {
        let left = sqlx::query_scalar(
            "SELECT format('%s %s of %s', mode, objid, pid) FROM pg_locks \
             WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'",
        );
        left.fetch_all(&self.store.pool).await.unwrap()
    }
}

/// An administrator ends a session, or all of them.
#[derive(Debug)]
struct Terminate {
    pool: PgPool,
    all: bool,
    /// The longest that one of the processes has waited for a processor meanwhile: a holder that does
    /// not run cannot hear of it.
    queued: Mutex<Duration>,
}

impl Terminate {
    fn queued(&self) -> Duration {
        *self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn was_queued(&self, queued: Duration) {
        let mut longest = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        *longest = queued.max(*longest);
    }
}

#[async_trait]
impl Fault for Terminate {
    fn name(&self) -> &'static str {
        if self.all {
            "terminate-all"
        } else {
            "terminate"
        }
    }

    fn rule(&self) -> FaultRule {
        let rule = FaultRule::dropped_by_the_server(NOTICED + self.queued());
        // Whose session it was is not known.
        if self.all {
            rule
        } else {
            rule.may_cost_locks()
        }
    }

    async fn inject(&self, fleet: &mut Fleet) {
        let queued = Queued::here_and_there();
        let broken = fleet.begin_for_all(self.name());
        let end = sqlx::query_scalar::<_, i32>(
            "SELECT pid FROM (SELECT pid FROM pg_stat_activity \
             WHERE application_name ~ '^distributed_lock( |$)' ORDER BY random() LIMIT $1) AS a \
             WHERE pg_terminate_backend(pid)",
        );
        let limit = if self.all { 1_000_i64 } else { 1 };
        let told: Vec<i32> = end.bind(limit).fetch_all(&self.pool).await.unwrap();
        assert!(!told.is_empty(), "there are sessions");
        // On a busy machine a session lives on for a while after it was terminated.
        let gone = sqlx::query("SELECT pg_terminate_backend(pid, 10000) FROM unnest($1) AS pid");
        gone.bind(told).execute(&self.pool).await.unwrap();
        broken.over();
        sleep(WATCHED).await;
        self.was_queued(queued.longest_since());
    }
}
