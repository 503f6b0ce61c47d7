//! Locks as keys with leases: the requests of their users, what is held, and what releases it.
//!
//! One key per lock says who owns it, and lives for one lease unless it is renewed. What follows from that
//! is the same in each store, and is here and in the [driver](super::driver); how a store is asked is a
//! [protocol](super::protocol).

mod caller;
mod grant;
mod held;
mod key;
mod question;
mod release;
mod request;
mod token;

pub(crate) use caller::Caller;
pub(crate) use grant::{Client, HoldCommand, KeyGrant, KeyReleases};
pub(crate) use held::{Held, HeldLock};
#[cfg_attr(
    not(feature = "postgres"),
    allow(unreachable_pub, reason = "lease tables show it to tests")
)]
pub use key::Part;
pub(crate) use key::{LockKey, Owner};
pub(crate) use question::WhoHolds;
pub(crate) use release::Release;
pub(crate) use request::{Acquire, Answer, Claim, Command, Given, Probe, Reply, WaiterTable};
pub(crate) use token::Token;
