//! The provider by configuration: which one, with which lease and table, what is said about it, what is refused, how
//! servers are.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

mod beside;
mod lease;
mod mark;
mod start;
mod support;
mod table;
