//! What the library does in front of a backend that is slow, silent, broken or about to end. Time
//! stands still here unless a test waits, so that its bounds are exact.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "what does not hold in a test ends it"
)]

mod answers;
mod at_least;
mod by_name;
mod cancel;
mod cooperation;
mod courtesy;
mod hand_over;
mod holder;
mod holding;
mod line;
mod overtime;
mod permits;
mod protecting;
mod readers;
mod several;
mod shutdown;
mod stress;
mod support;
mod wakers;
