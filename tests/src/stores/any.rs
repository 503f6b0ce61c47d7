//! A store whose type is not known.

use std::time::Duration;

use async_trait::async_trait;
use lock_core::backend::Backend;
use lock_core::{LockName, LockProvider, LockProviderBuilder};

use super::{OneBackend, Store};

/// A [`Store`] whose type a case does not know: so a case is compiled once, and not once for each store.
#[async_trait]
pub trait AnyStore: Send + Sync {
    /// See [`Store::LEASE`].
    fn lease(&self) -> Option<Duration>;

    /// See [`Store::NOTICED_WITHIN`].
    fn noticed_within(&self) -> Duration;

    /// See [`Store::GRANTED_AFTER_A_KILL`].
    fn granted_after_a_kill(&self) -> Duration;

    /// See [`Backend::SHARED`].
    fn has_readers(&self) -> bool;

    /// See [`Store::LISTS_READERS`].
    fn lists_readers(&self) -> bool;

    /// See [`Store::KEEPS`].
    fn keeps(&self) -> bool;

    /// See [`Store::STAYS_CLOSED`].
    fn stays_closed(&self) -> bool;

    /// A provider to be, over [a connection of its own](Store::backend).
    async fn provider(&self) -> LockProviderBuilder;

    /// The same with [a lease that no machine is too busy to renew](Store::long_lived).
    async fn long_lived_provider(&self) -> LockProviderBuilder;

    /// Makes providers over one and the same connection.
    async fn providers_of_one_backend(&self) -> Box<dyn Fn() -> LockProvider + Send + Sync>;

    /// See [`Store::lose`].
    async fn lose(&self, name: &LockName);

    /// See [`Store::lose_all`].
    async fn lose_all(&self);

    /// See [`Store::allow_listing`].
    async fn allow_listing(&self);

    /// See [`Store::open_connections`].
    async fn open_connections(&self) -> usize;

    /// See [`Store::address`].
    fn address(&self) -> Option<String>;
}

#[async_trait]
impl<S: Store> AnyStore for S {
    fn lease(&self) -> Option<Duration> {
        S::LEASE
    }

    fn noticed_within(&self) -> Duration {
        S::NOTICED_WITHIN
    }

    fn granted_after_a_kill(&self) -> Duration {
        S::GRANTED_AFTER_A_KILL
    }

    fn has_readers(&self) -> bool {
        S::Backend::SHARED
    }

    fn lists_readers(&self) -> bool {
        S::LISTS_READERS
    }

    fn keeps(&self) -> bool {
        S::KEEPS
    }

    fn stays_closed(&self) -> bool {
        S::STAYS_CLOSED
    }

    async fn provider(&self) -> LockProviderBuilder {
        LockProvider::builder(self.backend().await)
    }

    async fn long_lived_provider(&self) -> LockProviderBuilder {
        LockProvider::builder(self.long_lived().await)
    }

    async fn providers_of_one_backend(&self) -> Box<dyn Fn() -> LockProvider + Send + Sync> {
        let backend = OneBackend::new(self.backend().await);
        Box::new(move || LockProvider::new(backend.clone()))
    }

    async fn lose(&self, name: &LockName) {
        Store::lose(self, name).await;
    }

    async fn lose_all(&self) {
        Store::lose_all(self).await;
    }

    async fn allow_listing(&self) {
        Store::allow_listing(self).await;
    }

    async fn open_connections(&self) -> usize {
        Store::open_connections(self).await
    }

    fn address(&self) -> Option<String> {
        Store::address(self)
    }
}
