//! The layer as a service meets it: real axum routers, real sockets, the memory backend.
#![cfg_attr(
    not(feature = "axum"),
    allow(dead_code, reason = "routes are most of it")
)]

#[cfg(feature = "axum")]
mod answers;
#[cfg(feature = "axum")]
mod bodies;
#[cfg(feature = "console")]
mod console;
#[cfg(feature = "axum")]
mod detached;
#[cfg(feature = "axum")]
mod disconnects;
#[cfg(feature = "axum")]
mod exclusion;
mod generic;
#[cfg(feature = "axum")]
mod grpc;
#[cfg(feature = "axum")]
mod handlers;
#[cfg(feature = "axum")]
mod held_lock;
#[cfg(feature = "axum")]
mod holder;
#[cfg(feature = "axum")]
mod leaving;
#[cfg(feature = "axum")]
mod locked_router;
#[cfg(feature = "axum")]
mod mistakes;
#[cfg(feature = "axum")]
mod names;
#[cfg(feature = "axum")]
mod order;
#[cfg(feature = "axum")]
mod permits;
#[cfg(feature = "axum")]
mod placement;
#[cfg(feature = "axum")]
mod readers;
#[cfg(feature = "axum")]
mod refusals;
#[cfg(feature = "axum")]
mod releases;
mod replays;
mod support;
#[cfg(feature = "axum")]
mod table;
#[cfg(feature = "axum")]
mod timeouts;
