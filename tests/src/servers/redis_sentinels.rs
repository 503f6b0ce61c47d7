//! A Redis master, its replicas, and the Sentinels that put one of these in its place.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::daemon::Server;
use super::redis::{RedisOptions, RedisServer};
use crate::timing::eventually_within;

/// How long a server is silent until a Sentinel takes it for dead, in milliseconds.
const DOWN_AFTER: &str = "1000";

/// After what time a fail-over may follow another, halved, in milliseconds.
const FAILOVER_TIMEOUT: &str = "2000";

/// As long as Sentinels take for any of their work by their own rules where a machine stands still now and then: after a timer
/// that was late they only look on, for 30 s (TILT), and one who was not elected waits before it tries again.
const SENTINELS_ACT_WITHIN: Duration = Duration::from_secs(90);

/// After this time an order that has not been carried out was given up.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(10);

/// What the Sentinels call the master.
const MASTER: &str = "shop";

/// A master with two replicas, and three Sentinels, of which two have to agree.
#[derive(Debug)]
pub struct RedisSentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// Starts them; returns when every Sentinel knows the others and both replicas.
    pub async fn start() -> Self {
        Self::of(RedisServer::options(), &[]).await
    }

    /// Of servers with these options, and Sentinels with these settings, which speak TLS if the servers do.
    pub async fn of(options: RedisOptions, settings: &[(&str, &str)]) -> Self {
        let master = options.start().await;
        let (first, second) = tokio::join!(master.replica(), master.replica());
        let servers = vec![master, first, second];
        let sentinels = (0..3).map(|_| sentinel(&servers[0], 2, settings));
        let sentinels = join_all(sentinels).await;
        let this = Self { servers, sentinels };
        for sentinel in &this.sentinels {
            eventually_within(
                SENTINELS_ACT_WITHIN,
                "a Sentinel knows the others",
                async || {
                    let known: Vec<String> = this.known_by(sentinel).await;
                    let has =
                        |name: &str, value: &str| known.chunks(2).any(|pair| pair == [name, value]);
                    has("num-slaves", "2") && has("num-other-sentinels", "2")
                },
            )
            .await;
        }
        this
    }

    async fn known_by(&self, sentinel: &RedisServer) -> Vec<String> {
        let asked = sentinel.ask(&["SENTINEL", "MASTER", MASTER]).await;
        asked.unwrap()
    }

    /// A connection string that names all Sentinels.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_for("")
    }

    /// The same with `user:password` of the servers.
    #[must_use]
    pub fn url_for(&self, credentials: &str) -> String {
        sentinels_url(&self.sentinels, credentials)
    }

    /// The Sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// The servers: first the one that was the master at the start.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// The server that all Sentinels which run name as the master, and that is one.
    pub async fn master(&self) -> &RedisServer {
        let found = Mutex::new(None);
        eventually_within(
            SENTINELS_ACT_WITHIN,
            "all Sentinels name one master",
            async || {
                let named = self.named().await;
                *found.lock().unwrap() = named;
                named.is_some()
            },
        )
        .await;
        found.into_inner().unwrap().unwrap()
    }

    async fn named(&self) -> Option<&RedisServer> {
        let mut named = None;
        for sentinel in &self.sentinels {
            if sentinel.daemon().pid().is_none() {
                continue;
            }
            let port = master_named_by(sentinel).await;
            if named.is_some_and(|named| named != port) {
                return None;
            }
            named = Some(port);
        }
        let mut servers = self.servers.iter();
        let server = servers.find(|server| Some(server.port()) == named)?;
        (server.daemon().pid().is_some() && is_master(server).await).then_some(server)
    }

    /// Orders a fail-over, as an administrator does; gives the new master as soon as the Sentinel that leads
    /// it names that. The former one lives on, as a master for a while.
    pub async fn fail_over(&self) -> &RedisServer {
        let running = |sentinel: &&RedisServer| sentinel.daemon().pid().is_some();
        let sentinel = self.sentinels.iter().find(running).unwrap();
        let before = master_named_by(sentinel).await;
        let order = async || {
            eventually_within(
                SENTINELS_ACT_WITHIN,
                "a fail-over is possible",
                async || {
                    // Refused while there is no replica that can be promoted, or another is under way.
                    let order = ["SENTINEL", "FAILOVER", MASTER];
                    sentinel.ask::<String>(&order).await.is_ok()
                },
            )
            .await;
        };
        order().await;
        let ordered = Mutex::new(Instant::now());
        eventually_within(SENTINELS_ACT_WITHIN, "another is the master", async || {
            if master_named_by(sentinel).await != before {
                return true;
            }
            // An order is given up where no replica has been heard of lately, or the one that was chosen is slow.
            if ordered.lock().unwrap().elapsed() > GIVEN_UP_AFTER {
                order().await;
                *ordered.lock().unwrap() = Instant::now();
            }
            false
        })
        .await;
        let port = master_named_by(sentinel).await;
        let mut servers = self.servers.iter();
        servers.find(|server| server.port() == port).unwrap()
    }

    /// Returns when another than this server is the master, as all Sentinels say.
    pub async fn until_replaced(&self, former: &RedisServer) {
        eventually_within(SENTINELS_ACT_WITHIN, "another is the master", async || {
            let master = self.named().await;
            master.is_some_and(|master| master.port() != former.port())
        })
        .await;
    }

    /// Returns when this server is a replica, which a Sentinel makes it some 10 s after it was replaced.
    pub async fn until_demoted(&self, former: &RedisServer) {
        eventually_within(SENTINELS_ACT_WITHIN, "it is a replica", async || {
            !is_master(former).await
        })
        .await;
    }

    /// Returns when the master has a replica that can take its place.
    pub async fn until_replicated(&self) {
        eventually_within(
            SENTINELS_ACT_WITHIN,
            "the master has a replica",
            async || {
                // Another each time: on a busy machine the Sentinels replace one that lives.
                let Some(master) = self.named().await else {
                    return false;
                };
                let info = master.ask::<String>(&["INFO", "replication"]).await;
                info.is_ok_and(|info| info.contains("state=online"))
            },
        )
        .await;
    }
}

/// A connection string that names these Sentinels.
#[must_use]
pub fn sentinels_url(sentinels: &[RedisServer], credentials: &str) -> String {
    let hosts = sentinels.iter().map(|server| server.address().to_string());
    let hosts = hosts.collect::<Vec<_>>().join(",");
    let scheme = match sentinels[0].url().starts_with("rediss") {
        true => "rediss+sentinel",
        false => "redis+sentinel",
    };
    let at = if credentials.is_empty() { "" } else { "@" };
    format!("{scheme}://{credentials}{at}{hosts}/{MASTER}")
}

/// A Sentinel of this master, which it takes for dead when so many say that it is.
pub async fn sentinel(
    master: &RedisServer,
    quorum: usize,
    settings: &[(&str, &str)],
) -> RedisServer {
    let down_after = format!("down-after-milliseconds {MASTER} {DOWN_AFTER}");
    let timeout = format!("failover-timeout {MASTER} {FAILOVER_TIMEOUT}");
    let mut options = master.sentinel(quorum, MASTER);
    if let Some(password) = master.password() {
        let password = format!("auth-pass {MASTER} {password}");
        options = options.setting("sentinel", &password);
    }
    options
        .setting("sentinel", &down_after)
        .setting("sentinel", &timeout)
        .settings(settings)
        .start()
        .await
}

/// The port of what a Sentinel names.
async fn master_named_by(sentinel: &RedisServer) -> u16 {
    let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
    let (_, port): (String, u16) = sentinel.ask(&question).await.unwrap();
    port
}

async fn is_master(server: &RedisServer) -> bool {
    // One that is frozen, or being killed, is none.
    let info = server.ask::<String>(&["INFO", "replication"]).await;
    info.is_ok_and(|info| info.contains("role:master"))
}
