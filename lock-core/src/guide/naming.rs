//! Names, values in them, sensitive data.
//!
//! `{entity}:{operation}:{id}` for work on something, `job:{name}` for work of which there is only
//! one: `order:process:42`, `payment:refund:7`, `job:cleanup-tokens`.
//!
//! - Name the operation that must not happen twice at the same time, and not the table. Two operations
//!   that exclude each other share a name: `account:balance:<id>` for both deposit and withdrawal.
//! - Entity, operation and job: lower-case letters, digits, `_`, `.`, `-`. At most 100 bytes in all.
//! - A value is escaped, so that none can name another lock, whatever a user sends. One that is too
//!   long is shortened, with a hash. An empty value is an error.
//! - Values are compared as text: where `1` and `01`, or `A@b.c` and `a@b.c`, are the same thing to
//!   you, make them the same text first.
//!
//! ```
//! use lock_core::{LockError, LockName};
//!
//! # fn main() -> Result<(), LockError> {
//! let name = LockName::new("order", "process", 42)?;
//! assert_eq!(name.to_string(), "order:process:42");
//! let hostile = LockName::new("user", "login", "a:b")?;
//! assert_eq!(hostile.to_string(), "user:login:a%3Ab");
//! # Ok(()) }
//! ```
//!
//! # Sensitive data
//!
//! Metrics, errors, and log lines above `debug` show the template (`user:login:<email>`) or the first
//! two parts, and never the value. Servers and lock files see a hash of the name, which confirms a guess to
//! those who can read them; log lines at `debug` show the name itself. Hash what is not to be guessed:
//!
#![cfg_attr(
    feature = "macros",
    doc = r##"
```
use lock_core::{LockError, distributed_lock};

#[distributed_lock("user:login:<email:hashed>")]
async fn log_in(email: &str) -> Result<(), LockError> {
    Ok(())
}
```"##
)]
//!
//! Hashes are keyed by `LOCK_NAME_SECRET`. Without it they keep values out of sight, but whoever knows
//! an address can compute its hash. All instances need the same secret: with two secrets there are
//! two locks. So change it as you would move to another server: stop all, then start all.
//!
//! # Two applications on one server
//!
//! `order:process:42` of one application is that of another as well, unless they have different
//! namespaces (`LOCK_NAMESPACE`). Instances of one application need the same.
