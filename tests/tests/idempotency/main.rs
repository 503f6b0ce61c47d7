//! Idempotency keys: services on real sockets, the stores on real servers, processes that are killed.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

mod bodies;
mod campaign;
mod clocks;
mod concurrency;
mod crashes;
mod faults;
mod handlers;
mod outages;
mod pooler;
mod postgres;
mod redis;
mod requests;
mod settings;
mod store_in;
mod stores;
mod support;
