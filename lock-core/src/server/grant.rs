//! Locks that the driver of a backend has granted.

use std::mem;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::client::{Client, Releases, Reply};
use crate::LockError;
use crate::backend::Lease;

/// A granted lock: released once, by a call or by the drop, both through the queue of the driver.
pub(crate) struct ServerGrant<R: Releases> {
    client: Arc<Client<R>>,
    hold: R::Hold,
    lease: Lease,
    is_released: bool,
}

impl<R: Releases> ServerGrant<R> {
    pub(crate) const fn new(client: Arc<Client<R>>, hold: R::Hold, lease: Lease) -> Self {
        Self {
            client,
            hold,
            lease,
            is_released: false,
        }
    }

    pub(crate) const fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(crate) const fn hold(&self) -> &R::Hold {
        &self.hold
    }

    #[cfg(feature = "postgres")]
    pub(crate) const fn client(&self) -> &Arc<Client<R>> {
        &self.client
    }

    /// Fails if the lock was lost.
    pub(crate) fn check(&self) -> Result<(), LockError> {
        match self.lease.reason() {
            None => Ok(()),
            Some(reason) => Err(LockError::lost(reason.to_string())),
        }
    }

    /// Releases the lock, and waits for the answer. What is left of a lock that was lost is released as
    /// well, without waiting: the next acquire reports what is wrong with the server.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the release goes on when the future is dropped.
    pub(crate) async fn release(mut self) -> Result<(), LockError> {
        self.check()?;
        let (reply, answer) = oneshot::channel();
        self.start_release(Some(reply));
        let client = Arc::clone(&self.client);
        drop(self);
        client.answered(answer).await
    }

    /// Starts the release, once.
    fn start_release(&mut self, reply: Option<Reply<()>>) {
        if !mem::replace(&mut self.is_released, true) {
            let releases = &self.client.releases;
            let command = releases.release(&self.hold, &self.lease, reply);
            self.client.push(command);
        }
    }
}

impl<R: Releases> Drop for ServerGrant<R> {
    fn drop(&mut self) {
        self.start_release(None);
    }
}
