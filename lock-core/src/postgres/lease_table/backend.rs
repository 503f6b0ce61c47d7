//! The backend: commands to the thread, and their answers.

use std::fmt;
use std::future::Future;
use std::mem;
use std::sync::Arc;

use sqlx::{Postgres, Transaction};

use super::fence::fence;
use super::key::RowKey;
use super::listing::list;
use super::protocol::KIND;
use super::shared::Opened;
use super::waiters::{Claim, Command, LeaseTableGrant, TableKey, Waiters};
use crate::backend::{Attempt, Backend, LockRequest, Providers};
use crate::server::leased::Caller;
use crate::{Holder, Listing, LockError, LockGuard, LockName, LossReason};

/// How many locks one request of a claim asks for at most.
const CLAIMED: usize = 1_024;

/// How often a claim asks for locks of which no answer says that they are held: a transaction of a user can have
/// locked their rows for long.
const LOOKS: usize = 5;

/// Locks as rows of a table in PostgreSQL: they work behind transaction poolers.
///
/// For a database that is reached through PgBouncer in transaction mode, Supavisor, RDS Proxy or the pooler of Neon,
/// where no client keeps the session that [`PostgresBackend`](crate::postgres::PostgresBackend) needs. Where there is
/// a direct address, that backend is faster, and notices losses within milliseconds.
///
/// ```no_run
/// use std::time::Duration;
/// use lock_core::{LockProvider, postgres::LeaseTable};
///
/// # async fn f(pool: &sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
/// let table = LeaseTable::connect("postgres://app@pooler.example:6432/shop").await?;
/// let locks = LockProvider::new(table.clone());
/// let guard = locks.lock("order:process:42")?.acquire(Duration::from_secs(5)).await?;
///
/// let mut tx = pool.begin().await?;
/// table.fence(&mut tx, &guard).await?;
/// // .. writes that no later holder can come before ..
/// tx.commit().await?;
/// guard.release().await?;
/// # Ok(()) }
/// ```
///
/// Clones share one table and its connections: keep one for [`fence`](Self::fence), and give another to the
/// provider.
///
/// # What is promised
///
/// - **A row is the lock.** It has an owner, and expires a [lease](super::LeaseTableBuilder::lease) after it was renewed last,
///   by the server's clock. The client counts from before it asked and takes a margin off. The row outlives
///   connections, the pooler and a restart of the server: guards stay valid over these for as long as they are
///   renewed in time.
/// - **Each request is one message and one transaction**, for all that many tasks ask for at a time, so that a pooler
///   cannot give the session to another client in between; and each transaction sets what it needs, whatever the
///   role or the database have set.
/// - **What comes late does nothing.** An acquire, a renewal or a token that reaches the server after the client has
///   given it up changes no row, and a lease that has ended is never revived.
/// - **A lock that is [kept](crate::LockPolicy::with_at_least)** is granted for that time where it is longer than the
///   lease, and its release leaves the row without an owner until then: nothing but the server is needed to keep it
///   closed.
/// - **A server that only reads now**, as a standby does to which an address leads, renews nothing: what is held is
///   lost at the end of its lease, as [`ReadOnly`](LossReason::ReadOnly), unless the primary is reached before.
/// - **A server that may have forgotten grants nothing for one lease**: one that was promoted, restored from a backup,
///   or restarted with `fsync = off`; and one whose clock has jumped. What it still knows is renewed meanwhile.
/// - **Tokens** are a column: each is greater than all earlier ones of the lock, also after the row was removed, and
///   after a promotion if the clocks of the two servers were less than 10 minutes apart.
///
/// # Readers
///
/// Their shares are in the row of the lock, each with a lease of its own; the row is of no owner that a writer is, and
/// expires with the last of them. Readers meet in the row: a request waits for those of others on it, where that of a
/// writer passes it over. A writer that waits has a place in the row, and readers that come later wait until it is
/// granted the lock or gives up, or for a lease after its process has crashed.
///
/// # Waiting
///
/// All waiters of a process are one statement, first after 50 ms and then after pauses that double up to 1 s; a
/// refusal and a release in the process begin anew, and a lock that ends without a release is asked for when it
/// ends. With [`listen_url`](super::LeaseTableBuilder::listen_url) a release is
/// notified to the processes that wait for it, within milliseconds; a release that no process waits for notifies
/// none.
///
/// # What it needs
///
/// PostgreSQL 14 or newer, the primary, and two connections at a time (three with `listen_url`). The table is made
/// when the first process connects; for a role that may not make it, the error has the SQL, for a migration. The
/// role needs SELECT, INSERT, UPDATE and DELETE on the table, which is not to be UNLOGGED, and belongs to one
/// version of this library, which its comment names; one of the version before readers is given the columns that it
/// lacks. Rows that were free for an hour are removed.
///
/// Sessions of the server keep the plans of the frequent statements, as prepared statements whose names begin with
/// `distributed_lock_`. A session that a pooler has just opened, or that was made to forget them, is taught them: now
/// and then its log has an error that says that such a statement does not exist.
///
/// # Who holds a lock
///
/// The row of a lock names it, its holder's [instance](super::LeaseTableBuilder::instance), and since when:
/// [`LockProvider::holder`](crate::LockProvider::holder), or in psql
/// `SELECT name, holder, acquired FROM distributed_lock_leases WHERE expires > clock_timestamp() AND owner IS NOT NULL`.
#[derive(Clone)]
pub struct LeaseTable {
    opened: Arc<Opened>,
    providers: Providers,
}

impl LeaseTable {
    pub(super) fn new(opened: Opened) -> Self {
        Self {
            opened: Arc::new(opened),
            providers: Providers::default(),
        }
    }

    /// Keeps the lock of this guard from the next holder until the transaction ends, which is in the database of
    /// the table. Fails if the lock is lost.
    ///
    /// What the transaction writes is committed before any other holder is granted the lock, although the lease
    /// may end meanwhile. The guard can be renewed and released while the transaction is open.
    ///
    /// # Errors
    ///
    /// [`Lost`](crate::LockErrorKind::Lost): nothing of the transaction should be written.
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured): the transaction is over, or read-only.
    /// [`Unavailable`](crate::LockErrorKind::Unavailable): the server refused or did not answer.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: roll the transaction back when the future was dropped. Dropping the transaction does
    /// that.
    pub async fn fence(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        guard: &LockGuard,
    ) -> Result<(), LockError> {
        let shared = &self.opened.shared;
        let token = guard.fencing_token().await?.get();
        // The next holder in this process has to ask the server, too.
        guard.tie();
        let epoch = u64::from(shared.chosen.token_epoch) << 56;
        let token = i64::try_from(token.saturating_sub(epoch)).unwrap_or(i64::MAX);
        let key = RowKey::new(&shared.chosen.namespace, guard.name());
        let fenced = fence(&self.opened.table, tx, key, token).await;
        fenced.map_err(|error| error.with_lock(guard.name()))
    }

    fn key(&self, name: &LockName) -> TableKey {
        TableKey::new(&self.opened.shared.chosen.namespace, name)
    }

    fn caller(&self) -> Caller<'_, Waiters> {
        Caller {
            requests: &self.opened.shared.queues.requests,
            client: &self.opened.client,
        }
    }
}

impl Backend for LeaseTable {
    type Grant = LeaseTableGrant;

    const KIND: &'static str = KIND;

    const SHARED: bool = true;

    async fn try_acquire(
        &self,
        request: &LockRequest,
    ) -> Result<Attempt<LeaseTableGrant>, LockError> {
        let key = self.key(request.name());
        // What the driver has acquired for the waiters.
        if let Some(grant) = self.opened.shared.waiters.take_for(&key, request) {
            return Ok(Attempt::Granted(grant));
        }
        self.caller().try_acquire(key, request).await
    }

    async fn try_acquire_many(
        &self,
        requests: &[LockRequest],
        limit: usize,
    ) -> Result<Vec<(usize, LeaseTableGrant)>, LockError> {
        let caller = self.caller();
        let mut granted = Vec::new();
        for (chunk, requests) in requests.chunks(CLAIMED).enumerate() {
            let mut unknown: Vec<_> = (0..requests.len()).collect();
            // Rows that another transaction takes or makes are passed over: for as long as this claim wants one
            // of them, others may be free.
            for _ in 0..LOOKS {
                if granted.len() >= limit || unknown.is_empty() {
                    break;
                }
                let asked = unknown.iter().map(|at| {
                    let request = &requests[*at];
                    caller.acquire(self.key(request.name()), request)
                });
                let (acquires, answers): (Vec<_>, Vec<_>) = asked.unzip();
                let limit = limit - granted.len();
                let claim = Claim { acquires, limit };
                caller.requests.push(Command::Claim(claim));
                for (at, answer) in mem::take(&mut unknown).into_iter().zip(answers) {
                    match caller.client.answered(answer).await? {
                        Attempt::Granted(grant) => granted.push((chunk * CLAIMED + at, grant)),
                        Attempt::Held { retry_in: None } => unknown.push(at),
                        Attempt::Held { .. } => {}
                    }
                }
            }
        }
        Ok(granted)
    }

    fn changed(&self, request: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        let waiters = &self.opened.shared.waiters;
        waiters.register(self.key(request.name()), request.mode())
    }

    async fn holder(&self, name: &LockName) -> Result<Option<Holder>, LockError> {
        self.caller().holder(self.key(name)).await
    }

    async fn list(&self, limit: usize) -> Result<Listing, LockError> {
        let held = list(&self.opened, limit).await?;
        Ok(Listing::new(held, limit))
    }

    fn instance(&self) -> Option<String> {
        Some(self.opened.shared.holder.clone())
    }

    async fn health(&self) -> Result<(), LockError> {
        self.caller().health().await
    }

    fn providers(&self) -> Option<&Providers> {
        Some(&self.providers)
    }

    async fn close(&self) {
        let Opened { shared, client, .. } = &*self.opened;
        client.stop();
        // What is not released by now ends with its lease.
        shared.held.lose(LossReason::Shutdown, |_| true);
        client.finished().await;
    }
}

impl fmt::Debug for LeaseTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseTable")
            .field("table", &self.opened.table)
            .field("namespace", &self.opened.shared.chosen.namespace)
            .finish_non_exhaustive()
    }
}
