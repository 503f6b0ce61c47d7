//! Locks as rows of a table, for servers that are reached through a transaction pooler.
//!
//! - [`RowKey`] is what a lock is known by; `literal` writes values into statements.
//! - `sql` is what a request does in the server, `ask` makes a `request` of many locks, `statements` has their plans
//!   kept, and `session` sends it and reads the answer.
//! - [`Setup`] makes the table, and refuses what is not it.
//! - [`fence()`] keeps the row in a transaction of the caller's.
//!
//! # Why at most one holds a lock
//!
//! A row is taken only by a statement that has locked it exclusively (`FOR UPDATE`) and then finds it free, by
//! the server's clock: no owner, or expired. It is renewed and released only where it has the caller's
//! owner, a number that is never used twice, and renewed only while it has not expired. A client counts on it
//! from before it sent the request, for a lease less a margin, and the row expires a lease after the server
//! has looked at its clock, which is later. A request that reaches the server after its *not after* does
//! nothing.
//!
//! Readers are rows as well, of an owner that no acquire is, which list whose the shares are: why there is none
//! beside a writer, `sql/shares.rs` argues, and `sql/places.rs` how a writer that waits keeps them out.
//!
//! A lock that is kept after its release has an owner of zeros, which no acquire is: so it is neither free nor
//! renewed, and ends by itself.
//!
//! Rows outlive a restart. A server that may lack some, since it was promoted, restored or does not sync, has
//! another identity than its own row says: none is granted there for the longest lease. So is it where a
//! client has seen the clock of the server jump.
//!
//! # Why a statement is whole
//!
//! The driver of PostgreSQL sends a prepared statement in two exchanges, and between them a transaction
//! pooler may give the session to another client: then that client's statement runs with these values. So
//! each request is one message of the simple protocol, whose statements are one transaction: they reach one
//! session, together, and after an error none of them has done anything. That holds for those that a session was
//! taught by `PREPARE` of SQL as well: they are named, with their values, in the same message.
//!
//! # Waking waiters
//!
//! NOTIFY goes through a pooler, LISTEN does not. A process with a direct connection listens over that, and marks
//! rows that its waiters are refused as *awaited*; the release of such a row notifies in its own transaction. A
//! process without one polls. Rows that end without a release are looked at when they end.

mod as_it_is;
mod ask;
mod backend;
mod builder;
mod checks;
mod connections;
mod direct;
mod fence;
mod identity;
mod key;
mod listening;
mod listing;
mod literal;
mod mark;
mod names;
mod places;
mod poll;
mod protocol;
mod registration;
mod request;
mod session;
mod setup;
mod shared;
mod sql;
mod statements;
mod sweeps;
mod thread;
mod unanswered;
mod upkeep;
mod waiters;
mod watch;

pub use ask::{Ask, Hold, Part, Wish};
pub use backend::LeaseTable;
pub use builder::LeaseTableBuilder;
pub use fence::fence;
pub use key::RowKey;
pub(super) use names::{COMMENT, TABLE};
pub(crate) use registration::REGISTRATION;
pub use request::Request;
pub use session::{Acquired, Answer, Failure, Released, Server, run};
pub use setup::{Setup, Table};
pub use sql::Lease;
pub use waiters::LeaseTableGrant;
