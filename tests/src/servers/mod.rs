//! Real servers, private to a test, that can be frozen, killed, restarted and cut off.
//!
//! - [`PostgresServer`] and its standbys, [`PgBouncer`] or [`Pgpool`] in front of them.
//! - [`RedisServer`] and its replicas, [`RedisCluster`], [`RedisSentinels`].
//! - [`Nginx`] in front of a server of HTTP, [`Chromedriver`] and the browser behind it.
//! - [`Proxy`], which delays, holds, swallows, changes and resets what goes through it.
//! - [`Lan`]: network namespaces with a router between them that can go silent.
//!
//! Every server listens on 127.0.0.1 (or in a namespace of its test), on a port that no other server
//! has, and keeps its data in a temporary directory. A small process, the *guardian*, is its parent:
//! when the test ends, however it ends, the guardian kills what it has started and removes what was
//! written. The program `guardian` is built with the tests and benches of this package.
//!
//! ```no_run
//! # async fn example() {
//! use lock_tests::servers::{PostgresServer, Server};
//!
//! let server = PostgresServer::with(&[("max_locks_per_transaction", "512")]).await;
//! server.freeze().await;
//! server.thaw().await;
//! server.kill().await;
//! server.restart().await;
//! # }
//! ```

mod certificates;
mod chromedriver;
mod clock;
mod daemon;
mod guardian;
mod keep;
mod lan;
mod nginx;
mod options;
mod pgbouncer;
mod pgpool;
mod port;
mod postgres;
mod processes;
mod proxy;
mod redis;
mod redis_cluster;
mod redis_sentinels;
mod template;
mod wiretap;

pub use chromedriver::Chromedriver;
pub use daemon::{Daemon, Server};
pub use keep::guard;
pub use lan::{Lan, NetworkNamespace};
pub use nginx::Nginx;
pub use options::ServerOptions;
pub use pgbouncer::PgBouncer;
pub use pgpool::Pgpool;
pub use port::Port;
pub use postgres::{PostgresOptions, PostgresServer};
pub use processes::{descendants, lives};
pub use proxy::{Direction, Proxy};
pub use redis::{RedisOptions, RedisServer};
pub use redis_cluster::RedisCluster;
pub use redis_sentinels::{RedisSentinels, sentinel, sentinels_url};
pub use wiretap::Wiretap;
