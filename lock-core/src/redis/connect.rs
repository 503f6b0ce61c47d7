//! A connection to one server, and whether that server can keep locks.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::io::AsyncDNSResolver;
use ::redis::io::tcp::TcpSettings;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, PushInfo, RedisError,
    RedisFuture, ServerErrorKind, Value, from_redis_value,
};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::certificates::Trust;
use super::connection_string::Target;
use super::options::NO_SENTINEL;
use super::rights::{Asked, says_not_permitted};
use super::settings::Settings;
use super::tls::TlsTrouble;
use crate::LockError;

/// The oldest server that does what the scripts need.
const OLDEST: (u32, u32) = (6, 2);
/// Channels that stay on their node.
const OLDEST_CLUSTER: (u32, u32) = (7, 0);

/// What a server is that does not know `HELLO`.
const NO_HELLO: &str = "does not speak RESP3: it is older than 6.0, or it does not know `HELLO`";

/// Nor has a Sentinel databases.
const NO_SELECT: &str = "does not have the command `SELECT`, so that there is no database but 0: is it a \
                         Sentinel, or is the command renamed? Name no database";

/// A client of the server of a connection string, in either of the forms that
/// [`RedisBackend::connect`](super::RedisBackend::connect) takes: for what else a service does with
/// that server, such as a cache. It connects when it is told to.
///
/// # Errors
///
/// [`Misconfigured`](crate::LockErrorKind::Misconfigured) when the string is wrong, or names the nodes
/// of a cluster, which have no client in common.
pub fn client(connection_string: &str) -> Result<Client, LockError> {
    let target = Target::parse(connection_string)?;
    target.warn_unless_verified();
    let [info] = &target.seeds[..] else {
        return Err(LockError::misconfigured(
            "the Redis connection string names several nodes; a client is one of a single server",
        ));
    };
    if target.certificates.name.is_some() {
        return Err(LockError::misconfigured(
            "the Redis connection string has `sslHost`, which a client of the driver does not keep: \
             connect by a name that is in the certificate",
        ));
    }
    choose_cryptography(info);
    let trust = Trust::read(&target.certificates)?;
    trust
        .client(info.clone())
        .map_err(|error| refused(info, error))
}

/// Where a connection tells what the server says unasked; an error when the receiver is gone.
pub(super) type Pushes = Box<dyn Fn(PushInfo) -> Result<(), ()> + Send + Sync>;

/// Opens a connection, with the credentials of now; what the server says unasked goes to `pushes`.
pub(super) async fn open(
    info: &ConnectionInfo,
    settings: &Settings,
    pushes: Option<Pushes>,
) -> Result<MultiplexedConnection, LockError> {
    let open = async |info| open_with(&info, settings, pushes).await;
    settings.logins.open(info, open).await
}

async fn open_with(
    info: &ConnectionInfo,
    settings: &Settings,
    pushes: Option<Pushes>,
) -> Result<MultiplexedConnection, LockError> {
    choose_cryptography(info);
    // A peer that does not acknowledge is gone before the lease is: no connection outlives it.
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_user_timeout(settings.lease);
    let info = info.clone().set_tcp_settings(tcp);
    let mut config = AsyncConnectionConfig::new()
        // Ours are around whole exchanges.
        .set_response_timeout(None)
        .set_connection_timeout(None);
    if let Some(pushes) = pushes {
        config = config.set_push_sender(pushes);
    }
    match timeout(settings.connect_timeout(), dial(&info, &config, settings)).await {
        Ok(connection) => connection,
        Err(_) => {
            let address = info.addr();
            let hint = match address {
                // Without it, a server waits for the end of what it takes for a command.
                ConnectionAddr::TcpTls { .. } => "; does it speak TLS on this port?",
                _ => "",
            };
            Err(LockError::unavailable(format!(
                "the Redis server at {address} did not answer in time{hint}"
            )))
        }
    }
}

/// Connects by each of the names that the certificate can be for.
async fn dial(
    info: &ConnectionInfo,
    config: &AsyncConnectionConfig,
    settings: &Settings,
) -> Result<MultiplexedConnection, LockError> {
    let target = &settings.target;
    let trust = Trust::read(&target.certificates)?;
    let mut name = target.certificates.name.clone();
    let mut others = target.other_names(info).into_iter();
    loop {
        let (called, config) = match &name {
            Some(name) => called(name, info, config),
            None => (info.clone(), config.clone()),
        };
        let client = trust.client(called).map_err(|error| refused(info, error))?;
        match client
            .get_multiplexed_async_connection_with_config(&config)
            .await
        {
            Err(error) if says_not_permitted(&error.to_string()) => {
                let asked = Asked {
                    settings,
                    is_cluster: None,
                    command: "SELECT",
                };
                return Err(asked.not_permitted(&error.to_string(), error));
            }
            Err(error) if TlsTrouble::of(&error) == Some(TlsTrouble::OtherName) => {
                let Some(other) = others.next() else {
                    return Err(refused(info, error));
                };
                name = Some(other);
            }
            connected => return connected.map_err(|error| refused(info, error)),
        }
    }
}

/// The same server, whose certificate is for this name.
fn called(
    name: &str,
    info: &ConnectionInfo,
    config: &AsyncConnectionConfig,
) -> (ConnectionInfo, AsyncConnectionConfig) {
    let ConnectionAddr::TcpTls {
        host,
        port,
        insecure,
        tls_params,
    } = info.addr().clone()
    else {
        return (info.clone(), config.clone());
    };
    let address = ConnectionAddr::TcpTls {
        host: name.to_owned(),
        port,
        insecure,
        tls_params,
    };
    let config = config.clone().set_dns_resolver(Host(host));
    (info.clone().set_addr(address), config)
}

/// Looks this host up, whatever the server is called.
struct Host(String);

impl AsyncDNSResolver for Host {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = lookup_host((self.0.as_str(), port)).await?;
            Ok(Box::new(found) as Box<_>)
        })
    }
}

/// The driver panics when rustls has no provider of cryptography or a choice between two.
#[cfg(any(feature = "rustls-ring", feature = "tls-rustls-aws-lc-rs"))]
fn choose_cryptography(info: &ConnectionInfo) {
    use rustls::crypto::CryptoProvider;

    if matches!(info.addr(), ConnectionAddr::TcpTls { .. })
        && CryptoProvider::get_default().is_none()
    {
        #[cfg(feature = "rustls-ring")]
        let provider = rustls::crypto::ring::default_provider();
        #[cfg(not(feature = "rustls-ring"))]
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        // An error is another's choice, made meanwhile.
        let _ = provider.install_default();
    }
}

#[cfg(not(any(feature = "rustls-ring", feature = "tls-rustls-aws-lc-rs")))]
fn choose_cryptography(_: &ConnectionInfo) {}

const REFUSED_USER: &str =
    "refused the user or the password; correct them in the connection string";

const WANTS_PASSWORD: &str =
    "wants a password; give one: redis://:PASSWORD@HOST or HOST:PORT,password=PASSWORD";

/// Whether a server does not let in this user with this password. By our words: those of the server are
/// not kept where the password may be among them.
pub(super) fn is_login_refused(error: &LockError) -> bool {
    let said = error.to_string();
    error.is_misconfigured() && (said.contains(REFUSED_USER) || said.contains(WANTS_PASSWORD))
}

/// Why there is no connection.
fn refused(info: &ConnectionInfo, error: RedisError) -> LockError {
    let at = |what: &str| format!("the Redis server at {} {what}", info.addr());
    let code = error.code().unwrap_or_default();
    if let Some(trouble) = TlsTrouble::of(&error) {
        return LockError::misconfigured(at(trouble.sentence()))
            .with_source(without_password(info, error));
    }
    // Its reason is often lost with the connection.
    if has_hung_up(&error) {
        return LockError::unavailable(at(
            "hangs up; does it want TLS, or has it as many clients as its `maxclients` allows?",
        ))
        .with_source(without_password(info, error));
    }
    let said = error.detail().unwrap_or_default();
    let wrong = match error.kind() {
        _ if info.redis_settings().password().is_none()
            && (code == "NOAUTH" || error.to_string().contains("NOAUTH")) =>
        {
            Some(WANTS_PASSWORD)
        }
        ErrorKind::AuthenticationFailed => Some(REFUSED_USER),
        _ if matches!(code, "WRONGPASS" | "NOAUTH") => Some(REFUSED_USER),
        ErrorKind::RESP3NotSupported => Some(NO_HELLO),
        // The first word after it is the command.
        _ if let Some((_, command)) = said.split_once("unknown command ") => {
            let is_select = command
                .get(1..7)
                .is_some_and(|word| word.eq_ignore_ascii_case("select"));
            Some(if is_select { NO_SELECT } else { NO_HELLO })
        }
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Some(
            "does not speak the protocol of Redis: is it another service, or does it want TLS?",
        ),
        ErrorKind::InvalidClientConfig => Some("cannot be connected to with these settings"),
        ErrorKind::Server(ServerErrorKind::ResponseError) => Some(
            "refused the database: a cluster has number 0 alone, another server as many as its \
             `databases` says",
        ),
        _ => None,
    };
    match wrong {
        Some(wrong) => LockError::misconfigured(at(wrong)),
        None => LockError::unavailable(at(
            "cannot be connected to; start it, or correct its address",
        )),
    }
    .with_source(without_password(info, error))
}

/// Whether the server took the connection, and ended it; by the words, since the driver shows neither
/// the kind nor the type of what it had from the network.
fn has_hung_up(error: &RedisError) -> bool {
    let said = error.to_string().to_lowercase();
    [
        "max number of clients",
        "reset by peer",
        "broken pipe",
        "end of file",
    ]
    .iter()
    .any(|words| said.contains(words))
}

/// What the driver and the server say. A server repeats what it does not understand, and the
/// password, or the beginning of it, is sent along with `HELLO`.
fn without_password(info: &ConnectionInfo, error: RedisError) -> Box<dyn Error + Send + Sync> {
    let said = format!("{error} {error:?}");
    let password = info.redis_settings().password().unwrap_or_default();
    let beginning: String = password.chars().take(4).collect();
    if said.contains("with args") || (!password.is_empty() && said.contains(&beginning)) {
        return "its own words are not shown: the password may be among them".into();
    }
    error.into()
}

/// Asks within the bound of one answer.
pub(super) async fn ask(
    connection: &mut MultiplexedConnection,
    command: &::redis::Cmd,
    settings: &Settings,
    within: Duration,
) -> Result<Value, LockError> {
    let failed = |error| {
        let words = command.args_iter().map_while(|word| match word {
            ::redis::Arg::Simple(word) => str::from_utf8(word).ok(),
            _ => None,
        });
        let words: Vec<_> = words.collect();
        let asked = Asked {
            settings,
            is_cluster: (words.first() == Some(&"CLUSTER")).then_some(true),
            command: &words.join(" "),
        };
        asked.failed(error, "the Redis server refused a question")
    };
    match timeout(within, connection.send_packed_command(command)).await {
        Ok(answer) => answer.and_then(Value::extract_error).map_err(failed),
        Err(_) => Err(LockError::unanswered()),
    }
}

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
            LockError::unavailable("the Redis server answered nonsense").with_source(error)
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

    /// Another after every start.
    pub(super) fn run_id(&self) -> &str {
        self.field("run_id")
    }

    /// What this server is as a master, if it is one and says so.
    pub(super) fn reign(&self) -> Option<Reign> {
        let number = |name| self.field(name).parse::<i64>().ok();
        let [run_id, replication] = ["run_id", "master_replid"].map(|name| self.field(name));
        if self.field("role") != "master" || run_id.is_empty() || replication.is_empty() {
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

/// Refuses a server that cannot keep locks.
pub(super) fn judge(about: &About, settings: &Settings) -> Result<(), LockError> {
    let field = |name| about.field(name);
    let is_cluster = match about.mode() {
        Mode::Single => false,
        Mode::Cluster => true,
        Mode::Sentinel => {
            return Err(LockError::misconfigured(format!(
                "the address is that of a Redis Sentinel, which keeps no locks itself: {NO_SENTINEL}"
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
            "the Redis {what} is of version {version}; locks need {major}.{minor} or newer"
        )));
    }
    if field("role") != "master" {
        let master = match about.master() {
            Some(master) => format!("its master (`{master}`, as it says)"),
            None => "its master".to_owned(),
        };
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
             `{policy}`), and with them locks that are held: set it to `noeviction`, or allow it \
             with `allow_eviction(true)`"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::builder::RedisBuilder;
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n\
        # Memory\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\nloading:0\r\n\
        # Replication\r\nrole:master\r\n";

    fn verdict(from: &str, to: &str) -> Result<bool, String> {
        let settings = RedisBuilder::parse("host").settings().unwrap();
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
