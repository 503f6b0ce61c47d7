//! Redis: what the suite of all backends does not see. Faults of the server and the network, what is
//! refused, what is under the keys, what waiting costs.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

mod addresses;
mod at_least;
mod balancers;
mod claims;
mod clock;
mod cluster;
mod corruption;
mod credentials;
mod earlier;
mod far;
mod faults;
mod health;
mod holders;
mod input;
mod instances;
mod keys;
mod listeners;
mod listing;
mod lost_update;
mod neighbours;
mod outages;
mod panics;
mod readers;
mod refusals;
mod refused_writes;
mod renewals;
mod replicas;
mod resharding;
mod restarts;
mod sentinels;
mod shutdown;
mod silence;
mod support;
mod tls;
mod tokens;
mod waiting;
