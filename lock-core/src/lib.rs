//! Locks that work across the instances of a service.
//!
//! A lock has a name, such as `order:process:42`, and at most one valid [`LockGuard`] at a time,
//! across tasks, processes and, with a backend that spans them, machines. Where it is kept is the
//! backend's business:
//!
//! | backend | feature | reach |
//! |---|---|---|
#![cfg_attr(
    feature = "memory",
    doc = "| [`memory::MemoryBackend`] | `memory` | one process; the double for tests |"
)]
#![cfg_attr(
    feature = "file",
    doc = "| [`file::FileBackend`] | `file` | the processes of one machine, nothing installed |"
)]
#![cfg_attr(
    feature = "postgres",
    doc = "| [`postgres::PostgresBackend`] | `postgres` | all clients of the database |"
)]
#![cfg_attr(
    feature = "postgres",
    doc = "| [`postgres::LeaseTable`] | `postgres` | the same, also behind a transaction pooler |"
)]
#![cfg_attr(
    feature = "redis",
    doc = "| [`redis::RedisBackend`] | `redis` | all clients of a Redis server or cluster, also behind Sentinels |"
)]
//!
//! Others are made by implementing [`backend::Backend`].
//!
//! # Ways in
//!
//! Annotate a function:
//!
#![cfg_attr(
    all(feature = "macros", feature = "memory"),
    doc = r##"
```
use lock_core::{LockError, LockProvider, distributed_lock, memory::MemoryBackend};

#[distributed_lock("order:process:<id>")]
async fn process(locks: &LockProvider, id: u64) -> Result<u64, LockError> {
    Ok(id * 2) // no other caller processes this order now
}

# #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
let locks = LockProvider::new(MemoryBackend::new());
assert_eq!(process(&locks, 21).await?, 42);
# Ok(()) }
```"##
)]
//!
//! Add a layer to a route: the crate `lock-tower`. Lead: [`LockProvider::lead`].
//!
//! Or take a guard by hand:
//!
#![cfg_attr(
    feature = "memory",
    doc = r##"
```
use std::time::Duration;
use lock_core::{LockError, LockName, LockProvider, memory::MemoryBackend};

# #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
let locks = LockProvider::new(MemoryBackend::new());
let name = LockName::new("order", "process", 42)?;

let guard = locks.acquire(name, Duration::from_secs(5)).await?;
let total = guard.protect(async { 6 * 7 }).await?; // stopped if the lock is lost
guard.release().await?;
# assert_eq!(total, 42);
# Ok(()) }
```"##
)]
//!
//! # What is promised
//!
//! - **At most one valid guard per name.** A guard that may have expired says so before another client
//!   can hold the lock. Where callers ask for it, [readers](DistributedLock::shared) hold it together, and
//!   never beside a writer.
//! - **Nothing is stuck.** A holder that crashes, panics, is dropped or cancelled frees its locks; one
//!   that hangs is bounded by [`LockPolicy::with_max_hold`].
//! - **Loss is loud.** A lost lock fires [`LockGuard::lost`], turns [`LockGuard::is_valid`] false for
//!   good, and stops work under [`LockGuard::protect`] at its next await point. What that work has
//!   spawned, sent or blocks on goes on: storage that checks the
//!   [fencing token](LockGuard::fencing_token) refuses it.
//! - **Fail closed.** That another holds the lock and that the backend is down are different
//!   [kinds](LockErrorKind) of error. Neither runs the work.
//! - **Deadlines hold.** An acquire is over by its wait and one response timeout of the backend; dropping
//!   it at any point leaks nothing.
//! - **First come, first served** within a process. A thousand tasks that wait for one name are one
//!   waiter for the backend.
//!
//! The [`guide`] says which primitive is for which problem, and what to do when it does not work.
//!
//! Locks are not re-entrant. Prefer optimistic concurrency to update a single row, and a transaction for
//! work inside one database.
//!
//! # Features
//!
//! - `memory`, `file`, `macros` (default): locks of one process and of one machine, the attribute.
//! - `postgres`, `redis`: the backends with a server. With TLS by one of `tls-rustls-ring-webpki`,
//!   `tls-rustls-ring-native-roots`, `tls-rustls-aws-lc-rs` and `tls-native-tls`.
//! - `axum`: [`LockError`] as a response of handlers. `http`: the answers alone.
//! - `serde`: names, tokens, policies and settings in configuration and payloads.

// Which feature an item needs, in the documentation of docs.rs.
#![cfg_attr(docsrs, feature(doc_cfg))]

// The derive of our own macros names this crate.
#[cfg(test)]
extern crate self as lock_core;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod activity;
#[cfg(feature = "http")]
pub mod answer;
pub mod backend;
#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
mod checked;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod credentials;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod entropy;
mod error;
#[cfg(feature = "file")]
pub mod file;
mod guard;
pub mod guide;
#[cfg(any(
    feature = "memory",
    feature = "file",
    feature = "postgres",
    feature = "redis"
))]
mod hand_over;
mod health;
mod holder;
mod instance;
mod leader;
mod lease;
mod listing;
mod lock;
#[cfg(feature = "memory")]
pub mod memory;
mod name;
mod nesting;
mod observe;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod oneshot;
mod outage;
mod panics;
mod permits;
mod plain_text;
mod policy;
#[cfg(feature = "postgres")]
pub mod postgres;
mod provider;
mod queue;
#[cfg(feature = "redis")]
pub mod redis;
mod registration;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod server;
mod settings;
mod sync;
mod terms;
mod token;
mod trace;

pub use activity::{Activity, LabelActivity, LocalLock, RecentLoss};
#[cfg(any(feature = "postgres", feature = "redis"))]
pub use credentials::Credentials;
pub use error::{LockError, LockErrorKind};
pub use guard::{LockGuard, LockGuards, Lost};
pub use health::{Health, ServerHealth, ServerRole};
pub use holder::{Holder, LockMode};
pub use leader::{Leader, LeaderTerm};
pub use lease::LossReason;
pub use listing::{ListedLock, Listing};
pub use lock::DistributedLock;
#[cfg(feature = "macros")]
pub use lock_macros::{distributed_lock, lock_name};
pub use name::{LockName, LockTemplate};
pub use policy::LockPolicy;
pub use provider::{Acquire, LockProvider, LockProviderBuilder, Shutdown};
pub use settings::{LockSettings, ProviderKind};
pub use token::FencingToken;

/// What [`LockGuard::cancellation_token`] gives.
#[doc(no_inline)]
pub use tokio_util::sync::CancellationToken;
