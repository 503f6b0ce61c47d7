//! What the suite needs of a backend besides the backend itself.

mod any;
mod file;
mod granted;
mod lease_table;
mod memory;
mod one_backend;
mod postgres;
mod redis;

use std::future::Future;
use std::time::Duration;

use lock_core::backend::Backend;
use lock_core::{LockName, LockProvider};

pub use any::AnyStore;
pub use file::{FileStore, PollingFileStore};
pub use granted::GrantedStore;
pub use lease_table::{DirectLeaseTableStore, LeaseTableStore};
pub use memory::MemoryStore;
pub use one_backend::OneBackend;
pub use postgres::PostgresStore;
pub use redis::{
    RedisClusterStore, RedisSentinelStore, RedisStore, redis_key, redis_rights, redis_user,
};

/// A place where locks are kept, for one test alone; for a backend with a server, an empty corner
/// of it.
pub trait Store: Send + Sync + Sized + 'static {
    /// What it is asked through.
    type Backend: Backend;

    /// Cases that do not apply, by name, each with the reason.
    const NOT_FOR: &'static [(&'static str, &'static str)];

    /// How long the lease of a holder is that has fallen silent; `None` if holders need not
    /// be heard of.
    const LEASE: Option<Duration>;

    /// How long it may take until a holder learns that its lock was taken away.
    const NOTICED_WITHIN: Duration;

    /// How long it may take until the lock of a killed process is granted.
    const GRANTED_AFTER_A_KILL: Duration;

    /// Whether readers are listed beside writers.
    const LISTS_READERS: bool = true;

    /// Whether the store itself keeps a lock that is to be kept, also when its process has ended.
    const KEEPS: bool = false;

    /// Whether a backend grants nothing any more once it was closed; one that keeps nothing open has
    /// nothing to close.
    const STAYS_CLOSED: bool = true;

    /// A new store without locks.
    fn open() -> impl Future<Output = Self> + Send;

    /// A connection of its own, as another process would make it.
    fn backend(&self) -> impl Future<Output = Self::Backend> + Send;

    /// As [`backend`](Self::backend), with a lease that no machine is too busy to renew.
    fn long_lived(&self) -> impl Future<Output = Self::Backend> + Send {
        self.backend()
    }

    /// A provider over a connection of its own.
    fn client(&self) -> impl Future<Output = LockProvider> + Send {
        async { LockProvider::new(self.backend().await) }
    }

    /// Takes a lock away behind its holder's back.
    fn lose(&self, name: &LockName) -> impl Future<Output = ()> + Send;

    /// Takes away all locks of all clients together, as the end of their connections does.
    fn lose_all(&self) -> impl Future<Output = ()> + Send;

    /// Gives the clients the right to list what is held, where locks do not need it.
    fn allow_listing(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// How many connections, and the like, of backends there are.
    fn open_connections(&self) -> impl Future<Output = usize> + Send;

    /// What the program `locker` is to open for the same locks; `None` where processes cannot share
    /// them.
    fn address(&self) -> Option<String>;
}
