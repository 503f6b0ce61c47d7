//! Locks by their address, as the programs of this crate get them.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::num::ParseIntError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lock_core::backend::{Attempt, Backend, Grant, Lease, LockRequest, Providers};
use lock_core::file::FileBackend;
use lock_core::postgres::{LeaseTable, PostgresBackend};
use lock_core::redis::RedisBackend;
use lock_core::{LockError, LockName, LockProvider};

/// Locks that were opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What they are asked for through.
    pub locks: LockProvider,
    /// The leases of what was granted.
    pub leases: Leases,
}

impl Opened {
    /// The locks of a backend.
    #[must_use]
    pub fn over<B: Backend>(backend: B) -> Self {
        let leases = Leases::default();
        let locks = LockProvider::new(Watched {
            backend,
            leases: leases.clone(),
        });
        Self { locks, leases }
    }
}

/// Opens the locks at an address: `file:DIRECTORY`, `polled-file:DIRECTORY`, `postgres:LEASE_MS:URL`,
/// `table:LEASE_MS:URL`, `listening-table:LEASE_MS:URL`, or `redis:LEASE_MS:QUARANTINE_MS:URL`.
///
/// # Errors
///
/// The address is of no kind that is known, or the backend cannot be opened.
pub async fn open(address: &str) -> Result<Opened, Box<dyn Error + Send + Sync>> {
    match address.split_once(':') {
        Some(("file", directory)) => Ok(Opened::over(FileBackend::open(directory)?)),
        Some(("polled-file", directory)) => {
            let backend = FileBackend::builder(directory).polling(true);
            Ok(Opened::over(backend.open()?))
        }
        Some(("postgres", rest)) => {
            let (lease, url) = rest.split_once(':').ok_or("postgres:LEASE_MS:URL")?;
            let backend = PostgresBackend::builder(url).lease(millis(lease)?);
            Ok(Opened::over(backend.connect().await?))
        }
        Some(("table", rest)) => {
            let (lease, url) = rest.split_once(':').ok_or("table:LEASE_MS:URL")?;
            let backend = LeaseTable::builder(url).lease(millis(lease)?);
            Ok(Opened::over(backend.connect().await?))
        }
        Some(("listening-table", rest)) => {
            let (lease, url) = (rest.split_once(':')).ok_or("listening-table:LEASE_MS:URL")?;
            let backend = LeaseTable::builder(url).lease(millis(lease)?);
            Ok(Opened::over(backend.listen_url(url).connect().await?))
        }
        Some(("redis", rest)) => {
            let mut parts = rest.splitn(3, ':');
            let (Some(lease), Some(quarantine), Some(url)) =
                (parts.next(), parts.next(), parts.next())
            else {
                return Err("redis:LEASE_MS:QUARANTINE_MS:URL".into());
            };
            let backend = RedisBackend::builder(url)
                .lease(millis(lease)?)
                .quarantine(millis(quarantine)?);
            Ok(Opened::over(backend.connect().await?))
        }
        _ => Err(format!("unknown address `{address}`").into()),
    }
}

fn millis(number: &str) -> Result<Duration, ParseIntError> {
    number.parse().map(Duration::from_millis)
}

/// What guards do not tell: until when their locks are theirs. The latest lease of each name, since
/// a provider has one writer of a name at a time. Of several readers it is that of the last, which ends last.
#[derive(Clone, Default)]
pub struct Leases(Arc<Mutex<HashMap<LockName, Lease>>>);

impl Leases {
    /// The lease of who was granted this lock last.
    #[must_use]
    pub fn of(&self, name: &LockName) -> Option<Lease> {
        let leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        leases.get(name).cloned()
    }

    fn keep(&self, name: &LockName, grant: &impl Grant) {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        leases.insert(name.clone(), grant.lease().clone());
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").finish_non_exhaustive()
    }
}

/// A backend whose leases are kept for who wants to see them.
struct Watched<B> {
    backend: B,
    leases: Leases,
}

impl<B: Backend> Backend for Watched<B> {
    type Grant = B::Grant;

    const KIND: &'static str = B::KIND;
    const IMMEDIATE: bool = B::IMMEDIATE;
    const SHARED: bool = B::SHARED;

    async fn try_acquire(&self, request: &LockRequest) -> Result<Attempt<B::Grant>, LockError> {
        let attempt = self.backend.try_acquire(request).await?;
        if let Attempt::Granted(grant) = &attempt {
            self.leases.keep(request.name(), grant);
        }
        Ok(attempt)
    }

    async fn try_acquire_many(
        &self,
        requests: &[LockRequest],
        limit: usize,
    ) -> Result<Vec<(usize, B::Grant)>, LockError> {
        let granted = self.backend.try_acquire_many(requests, limit).await?;
        for (position, grant) in &granted {
            self.leases.keep(requests[*position].name(), grant);
        }
        Ok(granted)
    }

    fn changed(&self, request: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        self.backend.changed(request)
    }

    async fn health(&self) -> Result<(), LockError> {
        self.backend.health().await
    }

    fn providers(&self) -> Option<&Providers> {
        self.backend.providers()
    }

    async fn close(&self) {
        self.backend.close().await;
    }
}
