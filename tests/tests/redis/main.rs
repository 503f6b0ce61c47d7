//! Redis: what the suite of all backends does not see. Faults of the server and the network, what is
//! refused, what is under the keys, what waiting costs.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

mod faults;
mod keys;
mod lost_update;
mod refusals;
mod restarts;
mod support;
mod tls;
mod waiting;
