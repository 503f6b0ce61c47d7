//! Files, PostgreSQL or Redis.
//!
//! | | files | PostgreSQL | Redis |
//! |---|---|---|---|
//! | reach | the processes of one machine | whoever uses the database | whoever uses the server or cluster |
//! | to install | nothing | nothing, if there is a database | a server |
//! | connections of a process | none | 1 | 2 for each node |
//! | a crashed holder | free at once | free at once | free after the lease |
//! | a frozen or cut off holder | keeps its locks | free after the lease | free after the lease |
//! | the holder learns that it lost a lock | does not lose it | in milliseconds, from the server | with the next renewal (a third of the lease) |
//! | the server crashes and comes back | - | all locks are lost, and known to be | nobody is granted for one lease |
//! | fail-over to a replica | - | locks are lost, tokens grow on | may forget locks and quarantines; tokens grow by time |
//! | transactions | - | `lock_in_transaction`, `Fence` | - |
//! | limit | files | the server's lock table | memory |
//!
//! **Take PostgreSQL if you have it.** It knows at once when a session ends; the lock lives where
//! the data lives, so that they fail together. **Take Redis** where there is no PostgreSQL, where
//! locks are so many that the database should not see them, or where services with different databases
//! exclude each other. **Take files** on one machine, in tests and at the beginning; the code does not
//! change.
//!
//! Neither is a consensus system. What a server does to itself (an administrator who ends sessions,
//! a fail-over that loses the last second, a clock of Redis that is set) it does to its locks; that is
//! what [fencing](super::fencing) is for.
//!
//! One provider for a whole fleet: instances that lock in two places exclude nobody. Where a database
//! is configured, a mark in it makes the second kind refuse to start; see
//! [`LockSettings`](crate::LockSettings).
//!
//! # Passwords that change
//!
//! Tokens of IAM and secrets of a vault end while the process runs. Either `builder(url).credentials(|| async
//! { .. })`, which is asked at each connect, on [PostgreSQL](crate::postgres::PostgresBuilder::credentials) and
//! [Redis](crate::redis::RedisBuilder::credentials); or, for PostgreSQL, `from_pool` with a pool whose options
//! are set anew (`PgPool::set_connect_options`). A new password ends no connection. One that ends comes back with
//! it: PostgreSQL's locks are lost with their session, Redis' are renewed over the new connection. What the
//! server refused is shown to it again after 1 s, then less and less often, up to 10 s: no account is locked
//! for our attempts.
//!
//! # What it costs
//!
//! With the server on the same machine, which has two cores for the server and its clients; medians.
//! `cargo bench -p lock-tests` prints these rows for yours, beside the same work done by sqlx's
//! `PgAdvisoryLock` on a pool of 16 connections and by `rslock`, which has no tokens and polls.
//!
//! | | PostgreSQL | to `PgAdvisoryLock` | Redis | to `rslock` |
//! |---|---|---|---|---|
//! | acquire and release a second, 1 task | 7,800 | 1.2 x | 6,700 | 0.9 x |
//! | the same, 64 tasks | 102,000 | 5.3 x | 73,000 | 0.6 x |
//! | the same, 1,024 tasks | 370,000 | 19 x | 190,000 | 1.6 x |
//! | from a release to the grant in another process | 0.3 ms | | 0.4 ms | 100 ms |
//! | connections of a process | 1 | 16 | 2 | 1 |
//! | statements a second, 10,000 locks held | 1.6 | | 4.0 | |
//! | statements a second, 1,000 names awaited | 5.0 | | 6.2 | |
//!
//! One task alone waits for two round trips in each cycle, whatever it uses. Many tasks share them:
//! what they ask for while a statement is on its way goes together in the next.
