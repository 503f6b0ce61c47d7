//! What backends with a server share.
//!
//! Each has a thread of its own with a runtime: neither a blocked worker of the application nor the
//! end of one of its runtimes loses a lock. Callers leave [commands](Inbox) for it, and wait at a
//! [board](Board).

mod awake;
mod board;
pub(crate) mod exposed;
mod inbox;
pub(crate) mod option;
mod stop;

pub(crate) use awake::Patience;
#[cfg(feature = "redis")]
pub(crate) use board::Watch;
pub(crate) use board::{Board, Host};
pub(crate) use inbox::Inbox;
pub(crate) use stop::Stop;
