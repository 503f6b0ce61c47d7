//! What a server says about itself, and whether it can keep locks.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ParsingError, Value, from_redis_value};

use super::connect::ask;
use super::options::HOW_SENTINELS;
use super::settings::Settings;
use crate::LockError;
use crate::checked::passed;
use crate::settings::ELSEWHERE;

/// The oldest server that does what the scripts need.
const OLDEST: (u32, u32) = (6, 2);
/// Channels that stay on their node.
const OLDEST_CLUSTER: (u32, u32) = (7, 0);

/// For how long at least a server remembers that it was a replica: it forgets it this long after its last
/// replica has left, unless its `repl-backlog-ttl` is another.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The time for which one process is a master without a break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reign {
    pub(super) run_id: String,
    /// The name of what it replicates to others: another after each promotion.
    pub(super) replication: String,
    /// How long it is a master at least, if it says so.
    pub(super) age: Option<Duration>,
}

/// What a server says about itself.
pub(super) struct About(String);

/// What kind of server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Single,
    Cluster,
    Sentinel,
}

impl About {
    /// Asks the server.
    pub(super) async fn of(
        connection: &mut MultiplexedConnection,
        settings: &Settings,
    ) -> Result<Self, LockError> {
        Self::by(connection, &::redis::cmd("INFO"), settings).await
    }

    /// Asks what the process is, and no more.
    pub(super) async fn process(
        connection: &mut MultiplexedConnection,
        settings: &Settings,
    ) -> Result<Self, LockError> {
        Self::by(connection, ::redis::cmd("INFO").arg("server"), settings).await
    }

    async fn by(
        connection: &mut MultiplexedConnection,
        info: &::redis::Cmd,
        settings: &Settings,
    ) -> Result<Self, LockError> {
        let info = ask(connection, info, settings, settings.connect_timeout()).await?;
        let info = from_redis_value(info).map_err(|error| {
            LockError::unavailable("the Redis server returned an unexpected reply to INFO")
                .with_source(error)
        })?;
        Ok(Self(info))
    }

    fn field(&self, name: &str) -> &str {
        let lines = self.0.lines();
        lines
            .filter_map(|line| line.trim_end().split_once(':'))
            .find_map(|(key, value)| (key == name).then_some(value))
            .unwrap_or_default()
    }

    /// By each of the fields that servers have for it.
    pub(super) fn mode(&self) -> Mode {
        let modes = [self.field("redis_mode"), self.field("server_mode")];
        if modes.contains(&"sentinel") {
            Mode::Sentinel
        } else if modes.contains(&"cluster") || self.field("cluster_enabled") == "1" {
            Mode::Cluster
        } else {
            Mode::Single
        }
    }

    /// Whose replica it is, as it says.
    pub(super) fn master(&self) -> Option<String> {
        let host = self.field("master_host");
        (!host.is_empty()).then(|| format!("{host}:{}", self.field("master_port")))
    }

    /// Whether it can be written to.
    pub(super) fn is_master(&self) -> bool {
        self.field("role") == "master"
    }

    /// What an error calls it: several servers can be behind one address.
    pub(super) fn name(&self) -> String {
        let id: String = self.run_id().chars().take(8).collect();
        format!(
            "the server `{id}` (its `run_id`), with port {},",
            self.field("tcp_port")
        )
    }

    /// Another after every start.
    pub(super) fn run_id(&self) -> &str {
        self.field("run_id")
    }

    /// Whether a master that is cut off from its replicas refuses writes.
    pub(super) fn needs_replicas(&self) -> bool {
        // The field is there if both of the settings for it are.
        !self.field("min_slaves_good_slaves").is_empty()
    }

    /// What this server is as a master, if it is one and says so.
    pub(super) fn reign(&self) -> Option<Reign> {
        let number = |name| self.field(name).parse::<i64>().ok();
        let [run_id, replication] = ["run_id", "master_replid"].map(|name| self.field(name));
        if !self.is_master() || run_id.is_empty() || replication.is_empty() {
            return None;
        }
        // Whole seconds, from a start in whole seconds.
        let up =
            number("uptime_in_seconds").and_then(|up| u64::try_from(up.saturating_sub(1)).ok());
        let up = Duration::from_secs(up.unwrap_or_default());
        let never_promoted = number("second_repl_offset") == Some(-1);
        Some(Reign {
            run_id: run_id.to_owned(),
            replication: replication.to_owned(),
            age: never_promoted.then_some(up.min(REMEMBERED)),
        })
    }
}

/// What a server answers to `TIME`, in microseconds since 1970.
pub(super) fn time_of(answer: Value) -> Result<u64, ParsingError> {
    let (seconds, micros): (u64, u64) = from_redis_value(answer)?;
    Ok(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

/// Refuses a server that cannot keep locks.
pub(super) fn judge(about: &About, settings: &Settings) -> Result<(), LockError> {
    let field = |name| about.field(name);
    let is_cluster = match about.mode() {
        Mode::Single => false,
        Mode::Cluster => true,
        Mode::Sentinel => {
            return Err(LockError::misconfigured(format!(
                "the address is that of a Redis Sentinel, which keeps no locks itself: {HOW_SENTINELS}"
            )));
        }
    };
    let version = field("redis_version");
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or_default());
    let (major, minor) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let oldest = if is_cluster { OLDEST_CLUSTER } else { OLDEST };
    if (major, minor) < oldest {
        let (major, minor) = oldest;
        let what = if is_cluster { "cluster" } else { "server" };
        return Err(LockError::misconfigured(format!(
            "the Redis {what} is of version {version}; locks need {major}.{minor} or newer, {ELSEWHERE}"
        )));
    }
    if !about.is_master() {
        let master = match about.master() {
            Some(master) => format!("its master (`{master}`, as it says)"),
            None => "its master".to_owned(),
        };
        if settings.target.service.is_some() {
            // They have named it, and another is the master by now or will be.
            return Err(LockError::unavailable(format!(
                "the Redis server is a read-only replica of {master}"
            )));
        }
        return Err(LockError::misconfigured(format!(
            "the Redis server is a read-only replica; connect to {master}, by a name that follows it in a \
             fail-over"
        )));
    }
    if !matches!(field("loading"), "0" | "") {
        return Err(LockError::unavailable(
            "the Redis server is loading its data",
        ));
    }
    let policy = field("maxmemory_policy");
    if policy != "noeviction" && !settings.allow_eviction {
        return Err(LockError::misconfigured(format!(
            "the Redis server evicts keys when its memory is full (`maxmemory-policy` is \
             `{policy}`), and with them locks that are held: set it to `noeviction` (`CONFIG SET maxmemory-policy noeviction`, and in \
             redis.conf or at the provider), {ELSEWHERE}; a program can allow it with `allow_eviction(true)`"
        )));
    }
    let kind = if is_cluster {
        "a node of a cluster"
    } else {
        "a single server"
    };
    passed!("server", "Redis {version}, a master, {kind}");
    passed!("eviction", "`maxmemory-policy` is `{policy}`");
    let replicas = match (field("connected_slaves"), about.needs_replicas()) {
        (count, true) => format!("{count}; a master that is cut off from them refuses writes"),
        ("" | "0", false) => "none".to_owned(),
        (count, false) => format!(
            "{count}; after a fail-over locks that were granted last can be held twice, which fencing tokens \
             show (`min-replicas-to-write`, or `replicas` of the library)"
        ),
    };
    passed!("replicas", "{replicas}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n\
        # Memory\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\nloading:0\r\n\
        # Replication\r\nrole:master\r\n";

    fn verdict(from: &str, to: &str) -> Result<bool, String> {
        let settings = Settings::of("host");
        assert!(INFO.contains(from));
        let about = About(INFO.replace(from, to));
        judge(&about, &settings)
            .map(|()| about.mode() == Mode::Cluster)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_that_can_keep_locks_is_taken() {
        assert_eq!(verdict("7.0.15", "6.2.0"), Ok(false));
        assert_eq!(verdict("standalone", "cluster"), Ok(true));
        assert_eq!(
            verdict("redis_mode:standalone", "server_mode:cluster"),
            Ok(true)
        );
        assert_eq!(
            verdict("role:master", "role:master\r\ncluster_enabled:1"),
            Ok(true)
        );
        assert_eq!(verdict("loading:0\r\n", ""), Ok(false));
    }

    #[test]
    fn a_server_that_says_impossible_numbers_is_a_master_of_no_age() {
        for up in [i64::MIN, -1, 0, 1] {
            let about = About(format!(
                "role:master\r\nrun_id:ab\r\nmaster_replid:cd\r\nsecond_repl_offset:-1\r\n\
                 uptime_in_seconds:{up}\r\n"
            ));
            assert_eq!(about.reign().unwrap().age, Some(Duration::ZERO), "{up}");
        }
    }

    #[test]
    fn a_server_that_cannot_is_refused_with_the_reason() {
        for (from, to, reason) in [
            ("7.0.15", "6.0.16", "version 6.0.16; locks need 6.2"),
            (
                "7.0.15\r\nredis_mode:standalone",
                "6.2.7\r\nredis_mode:cluster",
                "locks need 7.0",
            ),
            ("standalone", "sentinel", "Redis Sentinel"),
            ("role:master", "role:slave", "read-only replica"),
            ("loading:0", "loading:1", "loading its data"),
            ("noeviction", "allkeys-lru", "`allkeys-lru`"),
            ("redis_version", "other_version", "locks need 6.2"),
        ] {
            let error = verdict(from, to).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
