//! Locks that the driver of a backend has granted.

use std::sync::Arc;
use std::{mem, process};

use super::client::{Client, Releases, Reply};
use crate::LockError;
use crate::backend::Lease;
use crate::oneshot;

/// A granted lock: released once, by a call or by the drop, both through the queue of the driver.
pub(crate) struct ServerGrant<R: Releases> {
    client: Arc<Client<R>>,
    hold: R::Hold,
    lease: Lease,
    is_released: bool,
}

impl<R: Releases> ServerGrant<R> {
    pub(crate) fn new(client: Arc<Client<R>>, hold: R::Hold, lease: Lease) -> Self {
        Self {
            client,
            hold,
            lease,
            is_released: false,
        }
    }

    /// Whether it can serve another holder. Not in a forked child, whose parent has the lock.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.client.process == process::id()
    }

    pub(crate) const fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(crate) const fn hold(&self) -> &R::Hold {
        &self.hold
    }

    #[cfg(feature = "redis")]
    pub(crate) const fn hold_mut(&mut self) -> &mut R::Hold {
        &mut self.hold
    }

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

#[cfg(all(test, not(lock_model)))]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::server::Queues;

    /// Locks are numbers.
    struct Numbers;

    type Command = (u32, Option<Reply<()>>);

    impl Releases for Numbers {
        type Hold = u32;
        type Command = Command;

        fn release(&self, hold: &u32, _: &Lease, reply: Option<Reply<()>>) -> Command {
            (*hold, reply)
        }

        fn disconnected(&self) -> LockError {
            LockError::unavailable("the driver panicked")
        }
    }

    /// What a driver takes, and whether more can come.
    fn take(queues: &Queues<(), Command>) -> (Vec<Command>, bool) {
        let mut commands = Vec::new();
        let has_more = queues.take(&mut Vec::new(), &mut commands);
        (commands, has_more)
    }

    fn granted(queues: &Queues<(), Command>, lease: Lease) -> ServerGrant<Numbers> {
        ServerGrant::new(queues.client(Numbers), 7, lease)
    }

    #[test]
    fn the_last_grant_ends_the_driver_after_its_release() {
        let queues = Queues::default();
        let grant = granted(&queues, Lease::unbounded());
        assert!(matches!(take(&queues), (none, true) if none.is_empty()));
        drop(grant);
        let (commands, has_more) = take(&queues);
        assert!(matches!(commands[..], [(7, None)]) && !has_more);
    }

    #[test]
    fn a_release_that_is_cancelled_is_made_once() {
        let queues = Queues::default();
        let mut release = Box::pin(granted(&queues, Lease::unbounded()).release());
        assert!(release.as_mut().now_or_never().is_none());
        drop(release);
        assert!(matches!(take(&queues).0[..], [(7, Some(_))]));
    }

    #[test]
    fn a_lock_that_was_lost_is_released_without_waiting() {
        let queues = Queues::default();
        let lease = Lease::unbounded();
        lease.lose(crate::LossReason::Revoked);
        let released = granted(&queues, lease).release().now_or_never().unwrap();
        assert!(released.unwrap_err().is_lost());
        assert!(matches!(take(&queues).0[..], [(7, None)]));
    }

    #[test]
    fn a_driver_that_is_gone_is_reported_by_the_reason() {
        let queues = Queues::default();
        queues.abandon();
        let release = || {
            let released = granted(&queues, Lease::unbounded())
                .release()
                .now_or_never();
            released.unwrap().unwrap_err()
        };
        assert!(release().is_unavailable());
        queues.client(Numbers).stop();
        assert!(release().is_closed());
    }
}
