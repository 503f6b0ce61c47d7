//! Poolers, replicas, eviction, rolling updates, shutdown.
//!
//! # PostgreSQL
//!
//! - **The primary**, PostgreSQL 14 or newer. A standby is refused at connect, since its locks exclude
//!   nobody on the primary.
//! - **No transaction pooling.** Behind a pooler that gives one session to several clients in turns,
//!   two clients hold one lock. It is refused at connect. Give the locks a port of the pooler that
//!   pools by session, or the server itself: one connection for each process is all they need, and a
//!   second one while they connect, for which the pool needs room when many start at a time.
//!   PgBouncer needs `ignore_startup_parameters = extra_float_digits`, as for all of sqlx, and has to
//!   reset sessions (`server_reset_query = DISCARD ALL`, its default): one that hands sessions on as
//!   they are gives the locks of a client that left to a stranger. It is refused where that shows.
//! - **The lock table** is shared by the whole server, and its other clients fail when it is full. A
//!   process holds a quarter of it at most, `max_locks_per_transaction * max_connections / 4` (1,600
//!   on a fresh server), and is refused beyond. For `n` locks at once in one process set
//!   `max_locks_per_transaction` to `4 * n / max_connections` or more.
//! - **Rights**: those that every role has on a server as it is installed. No table, no extension;
//!   `Fence` has one table, which its user may write. See [`security`](super::security).
//! - **Monitoring**: the session is called `distributed_lock` in `pg_stat_activity`, and mostly idle.
//!   Do not let a tool end idle sessions; `idle_session_timeout` is set for the session itself.
//!
//! - **Far away** it works up to a round trip of 300 ms and more: connecting takes 13 of them. Give a lease of
//!   many round trips; the default of 30 s has them.
//!
//! # Redis
//!
//! - **`maxmemory-policy noeviction`**. A server that evicts keys evicts locks, and is refused
//!   unless that is allowed explicitly.
//! - **A master.** A read-only replica is refused. With asynchronous replication a fail-over forgets
//!   what was not replicated; `replicas(n)` waits for so many of them before a lock is granted, and
//!   fencing remains the answer for the rest.
//! - **One address for a single server.** Several addresses are the nodes of one cluster; that they are is
//!   checked at the start. A master and its replicas are no such list, and a Sentinel is not asked: give
//!   the master by a name that follows it in a fail-over.
//! - **Tokens** run up to ten minutes ahead of the server's clock after a fail-over, more after several in a
//!   row, so that they grow also where the new master's clock is behind.
//! - **Restarts.** A server that restarted has forgotten locks whose holders still work. Nobody is
//!   granted a lock until one lease has passed. Plan for it: a shorter lease is a shorter pause.
//! - **First use.** A new namespace on a server that took over from another, or in a cluster with a master that
//!   is down or was promoted, can wait for one lease: nothing is known of earlier locks there.
//! - **Resharding.** A slot that is moved keeps its locks, and no acquire waits for a lease if every master has
//!   been one for that long. Masters that were just started or promoted shorten nothing: reshard a lease after
//!   a fail-over. Do not assign slots without their keys, and do not remove a master that was emptied
//!   within a lease of its start. While a slot is half moved, its locks are `Unavailable`.
//! - **Time.** Leases count on the server's clock: let it be slewed, not set.
//! - **Two masters.** `REPLICAOF NO ONE` on a replica while the old master lives makes two servers that
//!   each grant the lock: stop the old master, or move its clients, first. `min-replicas-to-write` makes a
//!   master that lost its replicas refuse writes, and `stop-writes-on-bgsave-error` one that cannot save
//!   (`MISCONF`): acquires are then `Unavailable`, and what is held is lost with its lease.
//!
//! # Virtual machines and containers
//!
//! Leases are measured on a clock that runs while the machine sleeps. No clock of a guest sees that a
//! virtual machine was paused, or restored from a snapshot: its first writes after that can be too
//! late. Fence what matters. A container with a CPU quota can be stopped for long enough to lose a
//! short lease.
//!
//! Lock *files* reach as far as their directory: each container, each `PrivateTmp=` service and each
//! user has another one unless you give them the same.
//!
//! # Rolling updates
//!
//! Old and new instances exclude each other as long as they agree on the server, the namespace, the
//! secret of hashed names and the names themselves. A release that renames a lock runs for a while
//! beside one that uses the old name: take both, in one attribute, for one release.
//!
//! # Shutdown
//!
//! ```
//! # use std::time::Duration;
//! # use lock_core::LockProvider;
//! # async fn f(locks: LockProvider, serve: impl Future<Output = ()>, signal: impl Future<Output = ()>) {
//! // `serve` stops accepting at the signal and lets requests finish.
//! let release = async {
//!     signal.await;
//!     locks.shutdown(Duration::from_secs(20)).await;
//! };
//! tokio::join!(serve, release);
//! # }
//! ```
//!
//! At the signal, beside the server's own shutdown: new acquires and those that wait are refused (503,
//! so that the client retries with another instance), holders have the grace to finish, the rest is
//! declared lost, which stops its work, and unlocked. After the server's shutdown it would be too late:
//! each request that waits for a lock is served first, one after the other, up to five minutes each with
//! `long_operation`. Without any, PostgreSQL frees the locks when the connection closes, but Redis
//! keeps them for the rest of their lease, half a minute of refusals after each deployment. Choose a
//! grace shorter than the time after which the orchestrator kills.
//!
//! A shutdown closes the connections of the backend as well, whatever clones of the provider live: in tests,
//! call it before `DROP DATABASE`.
//!
//! After a refusal, a connection with an unread body stays open for up to 5 s: allow for it in a graceful
//! shutdown. Uploads that wait for a lock take at most `read_ahead` (128 KiB) of memory each, and one frame.
//! CORS belongs outside the lock.
//!
//! # Probes
//!
//! `lock_tower::health` has routes for them. Liveness never asks a server: restarting an instance does
//! not repair a database. Readiness does; whether trouble of a *shared* server is to take all instances
//! out of rotation at once is your choice.
