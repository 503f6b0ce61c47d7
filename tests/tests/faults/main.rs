//! What only the locks in PostgreSQL show: faults of the network, the server and the client, and
//! what the library asks of a server.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

mod input;
mod keys;
mod limits;
mod loss;
mod statements;
mod support;
mod waiting;
