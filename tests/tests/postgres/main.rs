//! PostgreSQL, with a server of its own for each test.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "what does not hold in a test ends it"
)]

mod addresses;
mod bounds;
mod connection_strings;
mod credentials;
mod far;
mod fence;
mod fence_refusals;
mod former;
mod ghost;
mod grants;
mod holders;
mod idle;
mod keys;
mod lease_table;
mod limits;
mod load;
mod lock_table;
mod loss;
mod lost_update;
mod malformed;
mod medallion;
mod neighbour;
mod neighbours_names;
mod network;
mod notice;
mod notifications;
mod odd_databases;
mod outages;
mod panics;
mod pgpool;
mod poolers;
mod read_only;
mod readers;
mod reconnect;
mod refusals;
mod role_settings;
mod sessions;
mod shutdown;
mod statement_log;
mod statements;
mod support;
mod tls;
mod tls_refusals;
mod tokens;
mod transaction;
mod transaction_faults;
mod transaction_place;
mod transaction_settings;
mod two_primaries;
mod waiting;
