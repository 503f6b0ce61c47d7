//! Locks in a Redis server or cluster.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use lock_core::LockName;
use lock_core::redis::{RedisBackend, RedisBuilder};
use sha2::{Digest, Sha256};

use super::Store;
use crate::servers::{RedisCluster, RedisServer, sentinel, sentinels_url};

/// Short, and long enough for a machine that is busy.
const LEASE: Duration = Duration::from_secs(2);

/// For what does not lose a lock on a machine that is busier still.
const LONG_LEASE: Duration = Duration::from_secs(30);

/// Who locks in the stores: a user with the rights that the library asks for, and no other.
const USER: &str = "app:secret";

/// A server; every [`RedisBackend`] over it is a connection.
#[derive(Debug)]
pub struct RedisStore(Arc<RedisServer>);

/// A cluster of three masters.
#[derive(Debug)]
pub struct RedisClusterStore(Arc<RedisCluster>);

/// A server that a Sentinel names.
#[derive(Debug)]
pub struct RedisSentinelStore {
    server: RedisStore,
    sentinel: RedisServer,
}

/// The key of a lock, as it is documented.
#[must_use]
pub fn redis_key(namespace: &str, name: &LockName) -> String {
    let digest = Sha256::digest(format!("lock-redis-v1\0{namespace}\0{name}"));
    let stem = BASE32_NOPAD.encode(&digest[1..21]).to_lowercase();
    format!("lock:{{b{}}}:v1-{stem}", digest[0])
}

/// What the library says that a user needs, to one that may do nothing.
pub async fn redis_rights(refused: RedisBuilder, is_cluster: bool) -> Vec<String> {
    let error = refused.connect().await.unwrap_err().to_string();
    let words = |line: &str| line.split(' ').skip(3).map(str::to_owned).collect();
    let mut lines = error
        .split('`')
        .filter(|part| part.starts_with("ACL SETUSER"));
    let line = if is_cluster {
        lines.next_back()
    } else {
        lines.next()
    };
    words(line.unwrap_or_else(|| panic!("no line in: {error}")))
}

/// Makes a user of a server that has these rights and no others.
pub async fn redis_user(server: &RedisServer, user: &str, rights: &[impl AsRef<str>]) {
    let (name, password) = user.split_once(':').unwrap();
    let password = format!(">{password}");
    let mut command = vec!["ACL", "SETUSER", name, "reset", "on", &password];
    command.extend(rights.iter().map(AsRef::as_ref));
    let () = server.ask(&command).await.unwrap();
}

/// Lets the user of the stores run through the keys of a server.
async fn allow_scan(server: &RedisServer) {
    let (user, _) = USER.split_once(':').unwrap();
    let () = server
        .ask(&["ACL", "SETUSER", user, "+scan"])
        .await
        .unwrap();
}

impl RedisStore {
    /// The server.
    #[must_use]
    pub fn server(&self) -> &Arc<RedisServer> {
        &self.0
    }

    /// What the program `locker` is to open for the locks at this URL, with the lease of the suite.
    #[must_use]
    pub fn address_of(url: &str, quarantine: Duration) -> String {
        let (lease, quarantine) = (LEASE.as_millis(), quarantine.as_millis());
        format!("redis:{lease}:{quarantine}:{url}")
    }

    /// A backend with the lease of the suite, to choose more about.
    pub fn builder(url: &str) -> RedisBuilder {
        RedisBackend::builder(url).lease(LEASE)
    }
}

impl RedisClusterStore {
    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Arc<RedisCluster> {
        &self.0
    }
}

/// How many connections the user of the stores has.
async fn connections(server: &RedisServer) -> usize {
    let list: String = server.ask(&["CLIENT", "LIST"]).await.unwrap();
    let (user, _) = USER.split_once(':').unwrap();
    let of_user = format!(" user={user} ");
    list.lines().filter(|line| line.contains(&of_user)).count()
}

/// Without a quarantine: the server is new.
async fn connect(url: &str) -> RedisBackend {
    connect_for(url, LEASE).await
}

async fn connect_for(url: &str, lease: Duration) -> RedisBackend {
    let backend = RedisBackend::builder(url)
        .lease(lease)
        .quarantine(Duration::ZERO);
    backend.connect().await.unwrap()
}

impl Store for RedisStore {
    type Backend = RedisBackend;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[];
    const LEASE: Option<Duration> = Some(LEASE);
    const NOTICED_WITHIN: Duration = LEASE.checked_div(3).unwrap();
    const GRANTED_AFTER_A_KILL: Duration = LEASE;
    const KEEPS: bool = true;

    async fn open() -> Self {
        let server = RedisServer::start().await;
        redis_user(&server, USER, &[""; 0]).await;
        let rights = redis_rights(RedisBackend::builder(&server.url_for(USER)), false).await;
        redis_user(&server, USER, &rights).await;
        Self(Arc::new(server))
    }

    async fn backend(&self) -> RedisBackend {
        connect(&self.0.url_for(USER)).await
    }

    async fn long_lived(&self) -> RedisBackend {
        connect_for(&self.0.url_for(USER), LONG_LEASE).await
    }

    async fn lose(&self, name: &LockName) {
        let deleted: u32 = self.0.ask(&["DEL", &redis_key("", name)]).await.unwrap();
        assert_eq!(deleted, 1, "a lock that is to be lost is held");
    }

    async fn lose_all(&self) {
        let () = self.0.ask(&["FLUSHALL"]).await.unwrap();
    }

    async fn allow_listing(&self) {
        allow_scan(&self.0).await;
    }

    async fn open_connections(&self) -> usize {
        connections(&self.0).await
    }

    fn address(&self) -> Option<String> {
        Some(RedisStore::address_of(
            &self.0.url_for(USER),
            Duration::ZERO,
        ))
    }
}

impl Store for RedisClusterStore {
    type Backend = RedisBackend;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[];
    const LEASE: Option<Duration> = Some(LEASE);
    const NOTICED_WITHIN: Duration = RedisStore::NOTICED_WITHIN;
    const GRANTED_AFTER_A_KILL: Duration = LEASE;
    const KEEPS: bool = true;

    async fn open() -> Self {
        let cluster = RedisCluster::patient().await;
        for node in cluster.nodes() {
            redis_user(node, USER, &[""; 0]).await;
        }
        let url = cluster.nodes()[0].url_for(USER);
        let rights = redis_rights(RedisBackend::builder(&url), true).await;
        for node in cluster.nodes() {
            redis_user(node, USER, &rights).await;
        }
        Self(Arc::new(cluster))
    }

    async fn backend(&self) -> RedisBackend {
        connect(&self.0.nodes()[0].url_for(USER)).await
    }

    async fn long_lived(&self) -> RedisBackend {
        connect_for(&self.0.nodes()[0].url_for(USER), LONG_LEASE).await
    }

    async fn lose(&self, name: &LockName) {
        let mut deleted = 0;
        for node in self.0.nodes() {
            // The others say where it is.
            deleted += node
                .ask::<u32>(&["DEL", &redis_key("", name)])
                .await
                .unwrap_or(0);
        }
        assert_eq!(deleted, 1, "a lock that is to be lost is held");
    }

    async fn lose_all(&self) {
        for node in self.0.nodes() {
            let () = node.ask(&["FLUSHALL"]).await.unwrap();
        }
    }

    async fn allow_listing(&self) {
        for node in self.0.nodes() {
            allow_scan(node).await;
        }
    }

    async fn open_connections(&self) -> usize {
        let mut all = 0;
        for node in self.0.nodes() {
            all += connections(node).await;
        }
        all
    }

    fn address(&self) -> Option<String> {
        Some(RedisStore::address_of(
            &self.0.nodes()[0].url_for(USER),
            Duration::ZERO,
        ))
    }
}

impl RedisSentinelStore {
    fn url(&self) -> String {
        sentinels_url(slice::from_ref(&self.sentinel), USER)
    }
}

impl Store for RedisSentinelStore {
    type Backend = RedisBackend;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[];
    const LEASE: Option<Duration> = RedisStore::LEASE;
    const NOTICED_WITHIN: Duration = RedisStore::NOTICED_WITHIN;
    const GRANTED_AFTER_A_KILL: Duration = RedisStore::GRANTED_AFTER_A_KILL;
    const KEEPS: bool = true;

    async fn open() -> Self {
        let server = RedisStore::open().await;
        let sentinel = sentinel(server.server(), 1, &[]).await;
        Self { server, sentinel }
    }

    async fn backend(&self) -> RedisBackend {
        connect(&self.url()).await
    }

    async fn long_lived(&self) -> RedisBackend {
        connect_for(&self.url(), LONG_LEASE).await
    }

    async fn lose(&self, name: &LockName) {
        self.server.lose(name).await;
    }

    async fn lose_all(&self) {
        self.server.lose_all().await;
    }

    async fn allow_listing(&self) {
        self.server.allow_listing().await;
    }

    async fn open_connections(&self) -> usize {
        self.server.open_connections().await
    }

    fn address(&self) -> Option<String> {
        Some(RedisStore::address_of(&self.url(), Duration::ZERO))
    }
}
