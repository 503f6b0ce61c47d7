//! The guide: what to lock, how, and what to do when it does not work.
//!
//! | page | |
//! |---|---|
//! | [`guarantees`] | what the locks promise, and what they do not |
//! | [`timeouts`] | how long to wait, how long to hold |
//! | [`naming`] | names, values in them, sensitive data |
//! | [`nesting`] | several locks held together |
//! | [`fencing`] | what to do about work that was too late |
//! | [`servers`] | files, PostgreSQL or Redis; what they cost |
//! | [`security`] | TLS, neighbours on the server, least rights, secrets |
//! | [`deployment`] | poolers, replicas, eviction, rolling updates, shutdown |
//! | [`troubleshooting`] | symptom, cause, remedy |
//!
//! # Which primitive for which problem
//!
//! | problem | primitive |
//! |---|---|
//! | two requests change one row | none of these: optimistic concurrency, `UPDATE .. WHERE version = $2` |
//! | work inside one database | none of these: a transaction, `SELECT .. FOR UPDATE`, a unique constraint |
//! | the same work in a transaction *and* under guards elsewhere | `PostgresBackend::lock_in_transaction` |
//! | something must happen once, however often it is asked for | an idempotency key; a lock keeps two from doing it at the same time only |
//! | a function that one caller at a time may be in | `#[distributed_lock("order:process:<id>")]` |
//! | the same for a route, also where the handler is not yours | the layers of the crate `lock-tower` |
//! | a job that every instance starts, never two at a time | `#[distributed_lock("job:cleanup-tokens", skip)]` |
//! | a job that is to run once for each tick in the whole fleet | a leader with a timer; a lock alone lets an instance whose timer is later run it again |
//! | one instance is to do something for as long as it lives | [`LockProvider::lead`](crate::LockProvider::lead); [`leader`](crate::LockProvider::leader) for a status page |
//! | two accounts, three files: all or none | [`LockProvider::acquire_all`](crate::LockProvider::acquire_all), or several templates in one attribute |
//! | many workers share a list of things to do | [`LockProvider::claim`](crate::LockProvider::claim) |
//! | a lock that outlives a function: a stream, an upgrade, a spawned task | a [`LockGuard`](crate::LockGuard) by hand |
//! | a thousand requests a second for one name | a queue, or an owner for each partition; a lock would be a slow queue |
//!
//! A lock is right for what spans systems or takes long: charging a card and writing it down, one
//! report at a time, one instance that sends what an outbox holds.

#[doc = include_str!("deployment.md")]
pub mod deployment {}
#[doc = include_str!("fencing.md")]
pub mod fencing {}
#[doc = include_str!("guarantees.md")]
pub mod guarantees {}
#[doc = include_str!("naming.md")]
pub mod naming {}
#[doc = include_str!("nesting.md")]
pub mod nesting {}
#[doc = include_str!("security.md")]
///
#[doc = concat!("```sql\n", include_str!("../postgres/grants.sql"), "```")]
pub mod security {}
#[doc = include_str!("servers.md")]
pub mod servers {}
#[doc = include_str!("timeouts.md")]
pub mod timeouts {}
#[doc = include_str!("troubleshooting.md")]
pub mod troubleshooting {}
