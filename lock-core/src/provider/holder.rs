//! Who holds a lock.

use std::time::Instant;

use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use super::LockProvider;
use crate::{Holder, LockError, LockName};

impl LockProvider {
    /// Asks the store who holds the lock of this name, in whichever process; `None` while it is free. Takes no
    /// lock, and waits for no holder.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// # let guard = locks.acquire("report:rebuild:2026", Duration::ZERO).await?;
    /// match locks.holder("report:rebuild:2026").await? {
    ///     Some(holder) => println!(
    ///         "rebuilt by {} since {:?}",
    ///         holder.instance().unwrap_or("an instance that does not say"),
    ///         holder.since(),
    ///     ),
    ///     None => println!("not rebuilt now"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// It is what the store says, for people and for finding the instance to ask; it protects nothing:
    ///
    /// - A lock that is released, and granted to another, while this is asked is answered as either. So is
    ///   one that was granted for a waiter which had left, in the moment until it is given back.
    /// - A holder that has crashed is named until its lock is free: for PostgreSQL and files until its
    ///   connection or process is gone, for Redis until its lease has ended.
    /// - An instance that was started anew under the same name is not told from the one before.
    /// - Of several [readers](crate::DistributedLock::shared) any is named.
    /// - A lock with permits is as many locks as it has [slots](crate::DistributedLock::slots): ask for these, or for
    ///   any of them by [`DistributedLock::holder`](crate::DistributedLock::holder).
    /// - A child that was forked, and goes on with the file locks of its parent, is named as its parent; what
    ///   it acquires by itself is its own.
    /// - A store that has forgotten its locks, as a Redis server that was started anew, answers that they are
    ///   free; it grants none of them until their leases have ended.
    ///
    /// It is a round trip to the store, one for all who ask together. Of PostgreSQL it reads `pg_locks` on the
    /// session of the locks: ask as people do, and not for each request of a busy route. The server cancels that after
    /// half a lease, and after a second at most: the locks of this process wait for it meanwhile.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](crate::LockErrorKind::InvalidName) when the text is not a lock name,
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the store did not answer within the response
    /// timeout, [`Misconfigured`](crate::LockErrorKind::Misconfigured) when the role has no right to know, or
    /// the [backend](crate::backend::Backend::holder) does not tell,
    /// [`Closed`](crate::LockErrorKind::Closed) after a shutdown.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. A statement that a server has already runs to its end.
    ///
    /// # Panics
    ///
    /// When it is polled outside a tokio runtime with its timers enabled.
    pub async fn holder<N>(&self, name: N) -> Result<Option<Holder>, LockError>
    where
        N: TryInto<LockName, Error: Into<LockError>>,
    {
        // It can be answered without a wait.
        consume_budget().await;
        let name = name.try_into().map_err(Into::into)?;
        let shared = &self.shared;
        if shared.is_closing() {
            return Err(LockError::closed().with_lock(&name));
        }
        let (asked, within) = (Instant::now(), shared.response_timeout);
        let answer = timeout(within, shared.backend.holder(name.clone())).await;
        let answer = answer.unwrap_or_else(|_| Err(LockError::unanswered_since(asked, within)));
        answer.map_err(|error| error.with_lock(&name))
    }
}
