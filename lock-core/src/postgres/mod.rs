//! Locks in the PostgreSQL server that the service already has.
//!
//! A lock is a session-level advisory lock. All locks of a process live on one session, over one
//! connection, however many are held or waited for; a second connection exists for moments, when the
//! first is made. The server ends that one: its log says `idle-session timeout`, at FATAL, once for each
//! connect and reconnect, which is harmless.
//!
//! ```no_run
//! use std::time::Duration;
//! use lock_core::{LockError, LockProvider, postgres::PostgresBackend};
//!
//! # async fn f() -> Result<(), LockError> {
//! let locks = LockProvider::new(PostgresBackend::connect("postgres://app@localhost/shop").await?);
//! let guard = locks.lock("order:process:42")?.acquire(Duration::from_secs(5)).await?;
//! // .. no other holder processes order 42 ..
//! guard.release().await?;
//! # Ok(()) }
//! ```
//!
//! # What is promised
//!
//! - **A session is a lease.** The server ends a session that it has not heard of for a
//!   [lease](PostgresBuilder::lease), whether its client crashed, was frozen or is cut off. The client
//!   counts from before it asked and takes a margin off, so that its guards say that they are lost
//!   before another client is granted. Only an answer that the session itself gave counts: a proxy that
//!   moves the client to another session, or an error, extends nothing.
//! - **Loss is noticed.** The connection is read also while nothing is asked: a session that an
//!   administrator or a crash ends is lost within milliseconds, with all its locks. For those
//!   milliseconds, the server's own doing, another client can have a lock already;
//!   [fencing](Fence) is the answer.
//! - **A lock that is [kept](crate::LockPolicy::with_at_least)** stays a lock of its session after the release, since
//!   the server has no other clock for it: it is free when the process or the session ends.
//! - **A server that turns read-only is left.** Where a primary becomes a standby and keeps its connections open,
//!   as managed services do, the session is lost with the next heartbeat, a third of a lease later at most, as
//!   [`ReadOnly`](crate::LossReason::ReadOnly): another server grants its locks then.
//! - **No polling.** A waiter is registered on the server, by a shared lock on a second key. A
//!   release that finds a waiter registered notifies; one that does not costs nothing more. Locks of
//!   a session that died cause no notification: one statement for all who wait, a few times a second,
//!   finds them. A process that has waited for nothing in the last seconds does not LISTEN, so that
//!   releases cost the server nothing for each idle process.
//! - **Many commands, few statements.** What comes while a statement is under way goes in the next
//!   one, together.
//! - **Strangers cost time, and neither locks nor memory.** Any role that may connect to the database
//!   can notify the channel of the library: what is not a key that this process waits for is dropped
//!   as it comes, what arrives within some 10 ms and about a megabyte are kept at a time, and answers
//!   come after what the server has sent before them. A queue of notifications that is full (an open
//!   transaction that LISTENs keeps it so) stops no release: waiters try a few times a second.
//! - **What is no answer costs the session.** A server, or what stands before it, that does not keep
//!   to the protocol can have the driver panic: the locks are lost, and the next session is made. It
//!   can also have the driver reserve memory for a message of up to 4 GB: trust the way to it, or use
//!   TLS. (A program that is built with `panic = "abort"` ends.)
//! - **Tokens survive crashes and promotions.** See [`PostgresBuilder::token_epoch`] for moves to
//!   another server.
//!
//! # Forked children
//!
//! A child that goes on without `exec` has a copy of the socket, and none of the thread that uses it. Its
//! copies of guards release nothing, its acquires are not answered, and a guard that was copied is valid
//! until the lease that was known at the fork ends: leave them alone, and connect anew in the child. After a
//! crash of the parent the server does not see the connection end while a child has it open: the locks are
//! free when the lease of the session ends, and not before. `exec` closes the copies.
//!
//! # Behind a transaction pooler
//!
//! No session lock works there, and such a proxy is refused. [`LeaseTable`] keeps the locks as rows of a table
//! instead.
//!
//! # Work in the same database
//!
//! A write that must not happen after the lock was lost is refused by a [`Fence`]. Work that fits one
//! transaction can take the lock in it, by [`PostgresBackend::lock_in_transaction`]: then it cannot be
//! lost before the writes are.
//!
//! # What it needs
//!
//! PostgreSQL 14 or newer, the primary, without a proxy that shares sessions between clients
//! (transaction pooling), and one connection for each process. The address of a fleet leads to one primary
//! at a time: locks of two that run side by side do not exclude each other. One that leads to several is refused
//! where a process sees that, and a process that comes back to another database system than the one it
//! was on grants nothing until, for 10 s, none of its connections has led to the former. A name may have
//! several addresses: where one is silent, the next that answers is used. No table, no extension, no right that
//! PUBLIC does not have; [`GRANTS`] lists what a role needs where PUBLIC has lost it. Locks count
//! towards the server's lock table: see [`PostgresBuilder::max_held`]. An idle process holds three
//! shared advisory locks besides: the key of its lease, the pair that it alone has, and, where the
//! provider is chosen by settings, the mark of that provider.
//!
//! # Passwords that change
//!
//! [`PostgresBuilder::credentials`] is asked for user and password whenever a session is made, and
//! [`PostgresBackend::from_pool`] takes what `PgPool::set_connect_options` has set last. A new password
//! ends no session; one that is ended, or lost, comes back with the new one. Where the server refuses a
//! password, the same one is shown to it again after 1 s, and then after pauses that double up to 10 s,
//! so that no account is locked for it; another one is tried immediately.
//!
//! # Neighbours
//!
//! The sessions of the library look names up in `pg_catalog` alone, and what it runs in your
//! transactions names the schema of all that it uses: functions, operators and tables that another
//! role puts into your `search_path` are not run. A [`Fence`] belongs into a
//! [schema](Fence::schema) where only your roles may create tables.
//!
//! # Keys
//!
//! A name is a 64-bit key: the first 64 bits, big-endian, of SHA-256 over
//! `"lock-postgres-v1" NUL namespace NUL name`; the next 64 bits are the key of those who wait for it, and the next 32
//! bits before `0x57414e54` that of a writer which keeps readers out.
//! In `pg_locks`, `classid` is the upper half of a key, `objid` the lower half, `objsubid` 1. Two names
//! with one key, by chance one pair in 2^64, exclude each other.
//!
//! Another program can take the lock without this library: [`advisory_key`] gives the key, and says how. With
//! [`KeyScheme::Medallion`] the keys are those of .NET services that use DistributedLock.Postgres.

mod addresses;
mod backend;
mod builder;
mod checks;
mod companion;
mod connect;
mod connection_limits;
mod drain;
mod driver;
mod errors;
mod fence;
mod front;
mod grants;
mod held;
mod in_transaction;
mod key;
mod key_scheme;
#[doc(hidden)]
pub mod lease_table;
mod login;
mod login_options;
mod mark;
mod medallion;
mod place;
mod pooler_words;
mod refused_login;
mod registration;
mod relay;
mod rights;
mod session;
mod session_name;
mod setup_sql;
mod shared;
mod source;
mod sql;
mod sqlstate;
mod statement;
mod steps;
mod system;
mod terms;
mod tls;
mod token_column;
mod transaction;
mod trust;
mod url;
mod url_forms;
mod wire;

pub use backend::PostgresBackend;
pub use builder::PostgresBuilder;
pub use fence::Fence;
pub use grants::GRANTS;
#[doc(hidden)]
pub use held::PostgresGrant;
pub use key::{AdvisoryKey, UNLOCK_AND_NOTIFY, advisory_key, advisory_key_in};
pub use key_scheme::KeyScheme;
pub(crate) use lease_table::REGISTRATION as TABLE_REGISTRATION;
pub use lease_table::{LeaseTable, LeaseTableBuilder};
pub(crate) use registration::REGISTRATION;
pub use url::connect_options;
#[cfg(all(test, feature = "redis"))]
pub(crate) use url::parse as parse_url;

/// The driver whose types the signatures here have, in the version that they mean.
#[doc(no_inline)]
pub use ::sqlx;

/// What metrics and health call this backend.
const KIND: &str = "postgres";
