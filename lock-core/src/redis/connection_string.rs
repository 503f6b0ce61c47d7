//! Where the server is, in the two forms that people have.
//!
//! - URLs: `redis://[user][:password@]host[:port][/database]`, `rediss://` for TLS, `valkey://` and
//!   `valkeys://` for the same, `unix:///path?db=..&user=..&pass=..`.
//! - `host:port,password=..,user=..,ssl=true,defaultDatabase=1,connectTimeout=5000`, as .NET writes
//!   it; several hosts are the nodes of one cluster, of which any can be asked.
//!
//! No error repeats what stands where a password can stand.

use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use ::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};
use url::Url;

use crate::server::exposed::warn_unless_local;
use crate::server::option;
use crate::{LockError, plain_text};

const PORT: u16 = 6379;
const TLS_PORT: u16 = 6380;

/// The options of the second form.
const OPTIONS: [&str; 6] = [
    "password",
    "user",
    "ssl",
    "defaultDatabase",
    "connectTimeout",
    "abortConnect",
];

/// Options of other clients, which errors may name.
const OF_OTHERS: [&str; 31] = [
    "allowAdmin",
    "asyncTimeout",
    "channelPrefix",
    "checkCertificateRevocation",
    "client_name",
    "configCheckSeconds",
    "connectRetry",
    "db",
    "decode_responses",
    "family",
    "health_check_interval",
    "heartbeatInterval",
    "keepAlive",
    "max_connections",
    "name",
    "pass",
    "pool_size",
    "proto",
    "proxy",
    "resolveDns",
    "retry_on_timeout",
    "serviceName",
    "setlib",
    "socket_timeout",
    "ssl_cert_reqs",
    "sslHost",
    "sslProtocols",
    "syncTimeout",
    "tieBreaker",
    "timeout",
    "version",
];

/// Schemes of other servers, which errors may name.
const OTHER_SCHEMES: [&str; 8] = [
    "http",
    "https",
    "mongodb",
    "mysql",
    "postgres",
    "postgresql",
    "redis+sentinel",
    "tcp",
];

/// What a connection string says. Its `Debug` shows no password.
#[derive(Clone)]
pub(super) struct Target {
    /// One, or several nodes of one cluster.
    pub(super) seeds: Vec<ConnectionInfo>,
    pub(super) connect_timeout: Option<Duration>,
}

impl Target {
    pub(super) fn new(info: ConnectionInfo) -> Self {
        Self {
            seeds: vec![info],
            connect_timeout: None,
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, LockError> {
        let text = plain_text::trimmed(text);
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        plain_text::check(text).map_err(|error| error.in_setting("the Redis connection string"))?;
        if text.contains("://") || text.starts_with("unix:") {
            url(text).map(Self::new)
        } else {
            options(text)
        }
    }
}

impl Target {
    /// A warning for each server on another machine that does not prove who it is.
    pub(super) fn warn_unless_verified(&self) {
        for seed in &self.seeds {
            let (host, how) = match seed.addr() {
                ConnectionAddr::Tcp(host, _) => (host, "without TLS"),
                ConnectionAddr::TcpTls {
                    host,
                    insecure: true,
                    ..
                } => (host, "insecure TLS"),
                _ => continue,
            };
            let server = format!("Redis at {}", seed.addr());
            let advice = "use rediss://, or ssl=true, with a certificate that this machine trusts";
            warn_unless_local(host, &server, how, advice);
        }
    }
}

/// The servers, for a log.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, seed) in self.seeds.iter().enumerate() {
            let separator = if n == 0 { "" } else { "," };
            write!(
                f,
                "{separator}{}/{}",
                seed.addr(),
                seed.redis_settings().db()
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds: Vec<_> = self
            .seeds
            .iter()
            .map(|seed| seed.addr().to_string())
            .collect();
        f.debug_struct("Target")
            .field("seeds", &seeds)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

fn wrong(what: impl fmt::Display) -> LockError {
    LockError::misconfigured(format!("the Redis connection string is wrong: {what}"))
}

/// An option that there is not, by its name if another client has it, else by its position: it can be
/// the rest of a password.
fn unknown(position: usize, option: &str, known: &[&str]) -> LockError {
    let of_others = OF_OTHERS.iter().chain(&OPTIONS);
    let named = of_others
        .copied()
        .find(|name| name.eq_ignore_ascii_case(option));
    let what = match named {
        Some(name) => format!("its option `{name}` is not one of {}", known.join(", ")),
        None => format!("it {}", option::unknown(position, option, known)),
    };
    wrong(format_args!(
        "{what}; if it is the rest of a password, that has \
         to be written as a URL, redis://:PASSWORD@HOST, with `,` as %2C, `=` as %3D and `&` as %26"
    ))
}

fn url(text: &str) -> Result<ConnectionInfo, LockError> {
    // `ParseError` says what is wrong without the text.
    let url = Url::parse(text).map_err(|error| wrong("it is not a URL").with_source(error))?;
    let known: &[&str] = match url.scheme() {
        "redis" | "rediss" | "valkey" | "valkeys" => &["protocol"],
        "unix" | "redis+unix" | "valkey+unix" => &["protocol", "db", "user", "pass"],
        scheme => {
            let named = OTHER_SCHEMES.iter().find(|other| **other == scheme);
            let shown = named.map_or("unknown".to_owned(), |scheme| format!("`{scheme}`"));
            return Err(wrong(format_args!(
                "its scheme is {shown}; known are redis, rediss, valkey, valkeys, unix"
            )));
        }
    };
    // Not shown: it is the rest of a password that has a `?`.
    if url.query().is_some_and(|query| query.contains('@')) {
        return Err(wrong(
            "it has a `@` after its `?`; write a `?` in a password as %3F, and a `@` in an option as %40",
        ));
    }
    if url.path().contains('@') {
        return Err(wrong(
            "it has a `@` after its `/`; write a `/` in a password as %2F",
        ));
    }
    for (n, (option, value)) in url.query_pairs().enumerate() {
        if !known.contains(&&*option) {
            return Err(unknown(n + 1, &option, known));
        }
        if option == "protocol" && !matches!(&*value, "3" | "resp3") {
            return Err(wrong("its `protocol` is not resp3, which locks need"));
        }
    }
    if url.fragment().is_some() {
        return Err(wrong(
            "it has a `#`; write a `#` in a password as %23, and remove `#insecure`: certificates are \
             verified",
        ));
    }
    if !matches!(url.scheme(), "redis" | "valkey") && url.scheme().ends_with('s') {
        require_tls()?;
    }
    // The driver's errors about URLs name no value.
    let info = url
        .into_connection_info()
        .map_err(|error| wrong("the driver does not take it").with_source(error))?;
    Ok(resp3(info))
}

fn options(text: &str) -> Result<Target, LockError> {
    let mut hosts = Vec::new();
    let (mut password, mut user, mut database) = (None, None, 0);
    let (mut tls, mut connect_timeout) = (false, None);
    let mut position = 0;
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let Some((option, value)) = part.split_once('=') else {
            // Not shown: it can be the rest of a password.
            if position > 0 {
                return Err(wrong(
                    "a part after its options has no `=`; hosts come first, and a password with a \
                     comma needs the form of a URL",
                ));
            }
            let given = host(part)?;
            // Nor here: a password without `password=`.
            if given.1.is_none() && !hosts.is_empty() {
                return Err(wrong(
                    "a part after its first host is neither `HOST:PORT` nor an option; each further host \
                     needs its port, and a password is written `password=..`",
                ));
            }
            hosts.push(given);
            continue;
        };
        position += 1;
        let value = value.trim();
        let option = option.trim();
        match option.to_ascii_lowercase().as_str() {
            "password" => password = Some(value),
            "user" => user = Some(value),
            "ssl" => tls = boolean("ssl", value)?,
            "defaultdatabase" => database = number("defaultDatabase", value)?,
            "connecttimeout" => {
                let millis = number("connectTimeout", value)?;
                connect_timeout = Some(Duration::from_millis(millis));
            }
            // Of the same meaning here as everywhere: it is never given up once connected.
            "abortconnect" => drop(boolean("abortConnect", value)?),
            _ => return Err(unknown(position, option, &OPTIONS)),
        }
    }
    if hosts.is_empty() {
        return Err(wrong("it names no host"));
    }
    if tls {
        require_tls()?;
    }
    let seeds = hosts.into_iter().map(|(host, port)| {
        let addr = if tls {
            ConnectionAddr::TcpTls {
                host,
                port: port.unwrap_or(TLS_PORT),
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, port.unwrap_or(PORT))
        };
        let info = addr
            .into_connection_info()
            .map_err(|error| wrong("the driver does not take it").with_source(error))?;
        let database = i64::try_from(database).map_err(|_| out_of_range("defaultDatabase"))?;
        let mut settings = info.redis_settings().clone().set_db(database);
        if let Some(user) = user {
            settings = settings.set_username(user);
        }
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        Ok(resp3(info.set_redis_settings(settings)))
    });
    Ok(Target {
        seeds: seeds.collect::<Result<_, LockError>>()?,
        connect_timeout,
    })
}

/// The same server, spoken to in RESP3.
pub(super) fn resp3(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info.redis_settings().clone();
    info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3))
}

fn host(text: &str) -> Result<(String, Option<u16>), LockError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest
            .split_once(']')
            .ok_or_else(|| wrong("its `[` is not closed"))?;
        host.parse::<Ipv6Addr>()
            .map_err(|error| wrong("what its brackets hold is no address").with_source(error))?;
        match rest {
            "" => (host, None),
            _ => (host, Some(rest.strip_prefix(':').unwrap_or_default())),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(is_host) {
        return Err(wrong("a host in it is no name or address"));
    }
    let port = port
        .map(|port| {
            port.parse()
                .map_err(|_| wrong("the port of a host is no number up to 65535"))
        })
        .transpose()?;
    Ok((host.to_owned(), port))
}

fn boolean(option: &str, value: &str) -> Result<bool, LockError> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong(format_args!(
            "its `{option}` is neither true nor false"
        ))),
    }
}

fn number(option: &str, value: &str) -> Result<u64, LockError> {
    value.parse().map_err(|_| out_of_range(option))
}

fn out_of_range(option: &str) -> LockError {
    wrong(format_args!("its `{option}` is no number that fits"))
}

fn require_tls() -> Result<(), LockError> {
    if cfg!(any(
        feature = "rustls-ring",
        feature = "tls-rustls-aws-lc-rs",
        feature = "tls-native-tls"
    )) {
        return Ok(());
    }
    Err(LockError::misconfigured(
        "the Redis connection string asks for TLS, and `lock-core` was built without: enable one of \
         its features `tls-..`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ConnectionInfo {
        Target::parse(text).unwrap().seeds.remove(0)
    }

    fn error(text: &str) -> String {
        let error = Target::parse(text).unwrap_err();
        assert!(error.is_misconfigured());
        format!("{error} {error:?}")
    }

    #[test]
    fn the_rest_of_a_password_is_not_told_as_an_option() {
        let said = error("redis://app:9?hunter2@cache.example");
        assert!(said.contains("%3F") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn both_forms_say_the_same() {
        let pairs = [
            ("redis://cache.example", "cache.example"),
            ("redis://cache.example:7000", "cache.example:7000"),
            (
                "redis://app:s=ecret@cache.example:7000/2",
                "cache.example:7000,user=app,password=s=ecret,defaultDatabase=2",
            ),
            ("valkey://[::1]:7000", "[::1]:7000,abortConnect=False"),
        ];
        for (url, options) in pairs {
            let (url, options) = (parse(url), parse(options));
            assert_eq!(url.addr(), options.addr());
            let settings = |info: &ConnectionInfo| {
                let info = info.redis_settings();
                let text = |text: Option<&str>| text.map(str::to_owned);
                (info.db(), text(info.username()), text(info.password()))
            };
            assert_eq!(settings(&url), settings(&options));
            assert_eq!(options.redis_settings().protocol(), ProtocolVersion::RESP3);
            assert_eq!(url.redis_settings().protocol(), ProtocolVersion::RESP3);
        }
    }

    #[test]
    fn a_socket_is_a_path_with_options() {
        let info = parse("unix:///run/redis.sock?db=3&user=app&pass=secret");
        assert_eq!(info.addr(), &ConnectionAddr::Unix("/run/redis.sock".into()));
        assert_eq!(info.redis_settings().db(), 3);
        assert_eq!(info.redis_settings().password(), Some("secret"));
    }

    #[test]
    fn several_hosts_are_the_nodes_of_a_cluster() {
        let target =
            Target::parse("a:7000, b:7001 ,c:6379,connectTimeout=1500,password=x").unwrap();
        let hosts: Vec<_> = target
            .seeds
            .iter()
            .map(|seed| seed.addr().to_string())
            .collect();
        assert_eq!(hosts, ["a:7000", "b:7001", "c:6379"]);
        assert_eq!(target.connect_timeout, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn an_unknown_option_is_an_error_that_names_it() {
        assert!(error("redis://host?ssl=true").contains("`ssl`"));
        assert!(error("redis://host/?proto=3").contains("`proto`"));
        assert!(error("host,tieBreaker=x").contains("`tieBreaker`"));
        assert!(error("http://host").contains("`http`"));
    }

    #[test]
    fn the_rest_of_a_password_with_a_comma_is_told_as_such() {
        for text in [
            "host,password=hun,ter=2",
            "host,password=hun,7er=2,ssl=true",
            "host,password=hun,t r=2",
            "unix:///run/redis.sock?pass=hun&7er=2",
        ] {
            let said = error(text);
            assert!(
                said.contains("rest of a password") && said.contains("%2C"),
                "{said}"
            );
            for part in ["hun", "7er", "t r", "=2"] {
                assert!(!said.contains(part), "{said}");
            }
        }
        let written = parse("redis://:hun%2Cter%3D2@host");
        assert_eq!(written.redis_settings().password(), Some("hun,ter=2"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("", "empty"),
            ("   ", "empty"),
            ("password=x", "no host"),
            ("host:port", "port"),
            ("host:70000", "port"),
            ("host,password=s,ecret", "needs the form of a URL"),
            ("host:7000,s3cret", "`password=..`"),
            ("[::1", "not closed"),
            ("ho st", "no name or address"),
            ("host,ssl=yes", "`ssl`"),
            ("host,defaultDatabase=one", "`defaultDatabase`"),
            ("host,connectTimeout=-1", "`connectTimeout`"),
            ("redis://host?protocol=2", "resp3"),
            ("redis://host/one", "driver does not take it"),
            ("redis://", "driver does not take it"),
            ("redis://host:port", "not a URL"),
            ("redis://host#insecure", "`#`"),
        ] {
            assert!(error(text).contains(says), "{text}: {}", error(text));
        }
    }

    #[test]
    fn no_error_and_no_debug_shows_a_password() {
        for text in [
            "redis://:hunter2@host:port",
            "redis://app:hunter2@host?ssl=true",
            "redis://app:hunter2@host/one",
            "http://app:hunter2@host",
            "host,password=x,hunter2",
            "host,password=hunter2,nonsense=1",
            "hunter2@host:6379",
            "unix:///run/redis.sock?pass=hunter2&x=1",
        ] {
            assert!(!error(text).contains("hunter2"), "{text}");
        }
        let target = Target::parse("redis://app:hunter2@host").unwrap();
        assert!(!format!("{target:?}").contains("hunter2"));
    }

    #[cfg(not(any(
        feature = "rustls-ring",
        feature = "tls-rustls-aws-lc-rs",
        feature = "tls-native-tls"
    )))]
    #[test]
    fn without_a_feature_for_tls_the_refusal_says_so() {
        for text in ["rediss://host", "valkeys://host", "host,ssl=true"] {
            assert!(error(text).contains("built without"), "{text}");
        }
    }
}
