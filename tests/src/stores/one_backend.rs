//! One backend object for several providers.

use std::future::Future;
use std::sync::Arc;

use lock_core::LockError;
use lock_core::backend::{Attempt, Backend, LockRequest, Providers};

/// A backend that is shared: its clones are one and the same connection.
#[derive(Debug)]
pub struct OneBackend<B>(Arc<B>);

impl<B> OneBackend<B> {
    /// A backend to share.
    #[must_use]
    pub fn new(backend: B) -> Self {
        Self(Arc::new(backend))
    }
}

// By hand: the backend need not be `Clone`.
impl<B> Clone for OneBackend<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: Backend> Backend for OneBackend<B> {
    type Grant = B::Grant;

    const KIND: &'static str = B::KIND;
    const IMMEDIATE: bool = B::IMMEDIATE;
    const SHARED: bool = B::SHARED;

    async fn try_acquire(&self, request: &LockRequest) -> Result<Attempt<B::Grant>, LockError> {
        self.0.try_acquire(request).await
    }

    async fn try_acquire_many(
        &self,
        requests: &[LockRequest],
        limit: usize,
    ) -> Result<Vec<(usize, B::Grant)>, LockError> {
        self.0.try_acquire_many(requests, limit).await
    }

    fn changed(&self, request: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        self.0.changed(request)
    }

    async fn health(&self) -> Result<(), LockError> {
        self.0.health().await
    }

    fn providers(&self) -> Option<&Providers> {
        self.0.providers()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
