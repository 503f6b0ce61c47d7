//! What the library does in front of a backend that is slow, silent, broken or about to end. Time
//! stands still here unless a test waits, so that its bounds are exact.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "what does not hold in a test ends it"
)]

mod answers;
mod by_name;
mod cancel;
mod cooperation;
mod courtesy;
mod hand_over;
mod holder;
mod holding;
mod line;
mod overtime;
mod several;
mod shutdown;
mod stress;
mod support;
mod wakers;
