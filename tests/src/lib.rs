//! The whole, tested from outside: one suite for every backend, processes that are killed and
//! frozen, a backend with strings attached, crowds.
//!
//! - [`conformance!`] makes the suite of [`cases`] the tests of a [`Store`], one test a case. Another
//!   backend needs an implementation of that trait and a line in `tests/conformance/main.rs`.
//! - [`child`] starts processes of the program `locker` and talks with them.
//! - [`checker`] judges what clients of one or several processes did, by what they wrote down.
//! - [`chaos`] is a run of processes under stress with faults, for it to judge; [`faulty_backend`] is a
//!   backend that is broken on purpose, which it must find.
//! - [`address`] opens the locks that the programs of this crate work with.
//! - [`comparison`] measures locks beside those of a peer, for the benches.
//! - [`order`] is what the example service tells of an order, and how old that is.
//! - [`scripted_backend`] is a backend whose every answer a test can delay, withhold or forge.
//! - [`examples`] builds the programs of the examples.
//! - [`orders`] starts the example service and calls it.
//! - [`crowd_outlasts`] has thousands wait while what their lock lives on goes away.
//! - [`is_held`] tries a lock and leaves it as it was.
//! - [`Log`] keeps what the library logs.
//! - [`row`] is what a holder writes to, with a check of its token or without.
//! - [`lost_update`] is what a lock alone does not prevent, and a check of tokens does.
//! - [`servers`] starts real servers that can be frozen, killed and cut off.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "what does not hold in a test ends it"
)]

pub mod address;
pub mod cases;
pub mod chaos;
pub mod checker;
pub mod child;
pub mod comparison;
pub mod examples;
pub mod faulty_backend;
mod harness;
mod held;
mod inventory;
mod lateness;
mod log;
pub mod lost_update;
pub mod order;
pub mod orders;
mod outlasting;
#[cfg(doctest)]
mod readme;
pub mod row;
pub mod scripted_backend;
pub mod servers;
mod stores;
mod stress;
mod timing;
mod vault;

pub use harness::{Harness, run};
pub use held::is_held;
pub use inventory::Case;
pub use lateness::{Lateness, Queued};
pub use log::Log;
pub use outlasting::crowd_outlasts;
pub use stores::{
    AnyStore, DirectLeaseTableStore, FileStore, GrantedStore, LeaseTableStore, MemoryStore,
    OneBackend, PollingFileStore, PostgresStore, RedisClusterStore, RedisSentinelStore, RedisStore,
    Store, redis_key, redis_rights, redis_user,
};
pub use stress::{Storm, abandon, seed};
pub use timing::{boottime, doubling, eventually};
pub use vault::Vault;
