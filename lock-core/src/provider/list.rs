//! What is held in the store.

use std::time::{Duration, Instant};

use tokio::task::coop::consume_budget;
use tokio::time::timeout;

use super::LockProvider;
use crate::{Listing, LockError};

/// A Redis server looks through all of its keys, also those of others, some at a time.
const WITHIN: Duration = Duration::from_secs(30);

impl LockProvider {
    /// Asks the store what is held in it, by whichever process and in all namespaces; no more than `limit`
    /// locks. Takes no lock, and waits for no holder.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// # let guard = locks.acquire("report:rebuild:2026", Duration::ZERO).await?;
    /// let held = locks.list(100).await?;
    /// for lock in held.locks() {
    ///     println!("{} by {:?}", lock.key(), lock.holder().instance());
    /// }
    /// assert!(held.is_complete() && held.locks().len() == 1);
    /// # Ok(()) }
    /// ```
    ///
    /// It is for operators: it protects nothing, what it says can be over by the time that it is read, and it
    /// costs what reading the whole store costs.
    ///
    /// - PostgreSQL: a statement over `pg_locks` on the session of the locks. It lists all advisory locks that
    ///   are held exclusively in the database, also those of programs without this library, and those that
    ///   are held in transactions. The server cancels it after half a lease, and after a second at most: the locks of this
    ///   process wait for it meanwhile.
    /// - The lease table: a statement over the rows, over a connection for this call. It alone has names. It waits for
    ///   500 ms where another session has locked the table, and the server cancels it after 30 s.
    /// - Redis: a `SCAN` (in a script) over the keys of each master, over a connection for this call, and `ZRANGE` for
    ///   those who hold a shared lock. The user needs `+scan +zrange`, of which locks that are not shared need neither.
    /// - Files: a look at each file in the directory.
    ///
    /// A lease table, a Redis server and a directory are read for one call of this process at a time, over one backend.
    ///
    /// A lock that is [kept](crate::LockPolicy::with_at_least) after its release is listed as one that is held. One that
    /// several [read](crate::DistributedLock::shared) is listed once for each reader that the store tells from the others.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the store did not answer, or took longer than
    /// 30 s or than is said above; [`Misconfigured`](crate::LockErrorKind::Misconfigured) when the role has no right to know, or the
    /// [backend](crate::backend::Backend::list) does not tell; [`Closed`](crate::LockErrorKind::Closed) after a
    /// shutdown.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. A caller that leaves ends no statement of a server: that of the lease table goes on until its
    /// 30 s are over, and that of PostgreSQL for its second.
    ///
    /// # Panics
    ///
    /// When it is polled outside a tokio runtime with its timers and I/O enabled.
    pub async fn list(&self, limit: usize) -> Result<Listing, LockError> {
        // It can be answered without a wait.
        consume_budget().await;
        if self.shared.is_closing() {
            return Err(LockError::closed());
        }
        let asked = Instant::now();
        let answer = timeout(WITHIN, self.shared.backend.list(limit)).await;
        answer.unwrap_or_else(|_| Err(LockError::unanswered_since(asked, WITHIN)))
    }
}
