//! The whole, tested from outside: one suite for every backend, processes that are killed and
//! frozen, a backend with strings attached, crowds.
//!
//! - [`conformance!`] makes the suite of [`cases`] the tests of a [`Store`], one test a case. Another
//!   backend needs an implementation of that trait and a line in `tests/conformance/main.rs`.
//! - [`child`] starts processes of the program `locker` and talks with them.
//! - [`history`] judges what several of them did, by times of the clock that they share.
//! - [`puppet`] is a backend whose every answer a test can delay, withhold or forge.
//! - [`orders`] starts the example service and calls it.
//! - [`servers`] starts real servers that can be frozen, killed and cut off.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "what does not hold in a test ends it"
)]

mod bed;
pub mod cases;
pub mod child;
pub mod history;
mod inventory;
pub mod orders;
pub mod puppet;
#[cfg(doctest)]
mod readme;
pub mod servers;
mod stores;
mod stress;
mod timing;

pub use bed::{Bed, run};
pub use inventory::Case;
pub use stores::{
    FileStore, MemoryStore, OneBackend, RedisClusterStore, RedisStore, Store, redis_key,
};
pub use stress::{Storm, abandon, seed};
pub use timing::{Lateness, boottime, eventually};
