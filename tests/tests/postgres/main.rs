//! PostgreSQL, with a server of its own for each test.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "what does not hold in a test ends it"
)]

mod fence;
mod limits;
mod lost_update;
mod refusals;
mod sessions;
mod support;
mod tokens;
mod transaction;
mod transaction_faults;
mod transaction_place;
