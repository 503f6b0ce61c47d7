//! Several locks at once.
//!
//! # Together
//!
//! Locks that are needed together are taken together: sorted, each once, all or none, so that two
//! callers never wait for each other.
//!
#![cfg_attr(
    feature = "memory",
    doc = r##"
```
use lock_core::{LockError, LockName, LockPolicy, LockProvider, memory::MemoryBackend};

# #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
# let locks = LockProvider::new(MemoryBackend::new());
let accounts = [LockName::new("account", "transfer", 7)?, LockName::new("account", "transfer", 3)?];
let guards = locks.acquire_all(accounts, LockPolicy::user_request()).await?;
guards.protect(async { /* move the money */ }).await?;
# guards.release().await }
```"##
)]
//!
//! # One inside of another
//!
//! - **A lock is not re-entrant.** A task that asks for a lock which it holds waits for itself until
//!   the wait is over. Take the lock in the outer function, and give the inner one the guard, or
//!   split it into one that locks and one that is called by it.
//! - **One order everywhere.** Where a job locks `report:build:<id>` and inside of it
//!   `account:balance:<id>`, nobody may do it the other way round: two that do wait for each other until
//!   one wait is over. The order goes by templates: two *accounts* are taken by `acquire_all`.
//! - In debug builds a watch reports both mistakes at `warn`, once each, when they are made and not
//!   only when two callers meet: [`lock_order_watch`](crate::LockProviderBuilder::lock_order_watch)
//!   switches it.
//! - A wait for an inner lock holds up everybody who waits for the outer one. Make it short.
