//! What backends with a server share: everything but their protocols.
//!
//! Each has a thread of its own with a runtime: neither a blocked worker of the application nor the end of
//! one of its runtimes loses a lock.
//!
//! ```text
//! backend --- requests ---> +--------+ ---> server
//!         <-- replies ----- | driver |
//! grant ----- releases ---> +--------+ <--- wake-ups
//!                               |
//! waiter <--- parked grants --- +
//! ```
//!
//! - [`Queues`] are the two queues, and [`Client`] is what their users hold: the last one that is dropped
//!   ends the driver.
//! - [`ServerGrant`] is a granted lock, which is released through the second queue.
//! - [`Waiters`] are callers that wait for a lock, and grants that the driver acquired for them.
//! - [`worker`] starts the thread and reports its end; [`Stop`] asks for that.
//! - [`LeaseTerms`] are the times that follow from a lease.
//! - [`BackOff`] is the pauses between attempts that fail.
//! - [`AdaptiveSpin`] keeps the thread from sleeping while answers come fast.
//!
//! A store that has a key with a lease for each lock needs no driver of its own: `driver` is the loop,
//! `leased` what it is asked for and what it grants, and `protocol` how the store is asked.

#[cfg(any(
    feature = "postgres",
    feature = "rustls-ring",
    feature = "tls-rustls-aws-lc-rs",
    feature = "tls-native-tls"
))]
pub(crate) mod authorities;
mod back_off;
mod client;
#[cfg(feature = "redis")]
pub(crate) mod driver;
pub(crate) mod exposed;
mod grant;
pub(crate) mod hostless;
mod inbox;
#[cfg(feature = "redis")]
pub(crate) mod leased;
#[cfg(feature = "redis")]
pub(crate) mod link;
pub(crate) mod option;
#[cfg(feature = "redis")]
pub(crate) mod protocol;
mod spin;
mod stop;
mod terms;
pub(crate) mod tls_trouble;
mod waiters;
pub(crate) mod worker;

pub(crate) use back_off::BackOff;
#[cfg(feature = "postgres")]
pub(crate) use client::{Client, Releases};
pub(crate) use client::{Queues, Reply};
#[cfg(feature = "postgres")]
pub(crate) use grant::ServerGrant;
pub(crate) use spin::AdaptiveSpin;
#[cfg(feature = "postgres")]
pub(crate) use stop::Stop;
pub(crate) use terms::LeaseTerms;
#[cfg(feature = "redis")]
pub(crate) use terms::PATIENCE;
#[cfg(feature = "redis")]
pub(crate) use waiters::Waiter;
pub(crate) use waiters::Waiters;
