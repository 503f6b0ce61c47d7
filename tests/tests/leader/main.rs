//! Leadership: one process, and three of them with the leader killed, frozen and cut off.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

mod campaigning;
mod current;
mod ending;
mod leading;
mod parliament;
mod processes;
mod rounds;
