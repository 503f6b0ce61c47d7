//! The provider by configuration: which one, what is said about it, what is refused, how servers are.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

mod beside;
mod mark;
mod start;
mod support;
mod table;
