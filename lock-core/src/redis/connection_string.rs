//! Where the server is, in the two forms that people have.
//!
//! - URLs: `redis://[user][:password@]host[:port][/database]`, `rediss://` for TLS, `valkey://` and
//!   `valkeys://` for the same, `unix:///path?db=..&user=..&pass=..` or `unix://user:password@/path`.
//! - `host:port,password=..,user=..,ssl=true,defaultDatabase=1,connectTimeout=5000`, as .NET writes
//!   it; several hosts are the nodes of one cluster, of which any can be asked.
//!
//! Either can name Sentinels and the master that they are asked for, in place of servers.
//!
//! Both take the same options.
//!
//! No error repeats what stands where a password can stand.

mod given;
mod sentinels;
mod service;

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use ::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};
use url::Url;

use self::given::{Given, once};
pub(super) use self::service::Service;
use super::certificates::{Certificates, host as tls_host, is_address};
use super::options::{HOW_SENTINELS, NAME_THE_CA};
use crate::server::exposed::warn_unless_local;
use crate::server::hostless::without_host;
use crate::{LockError, plain_text};

const PORT: u16 = 6379;
const TLS_PORT: u16 = 6380;

const SCHEMES: [&str; 7] = [
    "redis",
    "redis+unix",
    "rediss",
    "unix",
    "valkey",
    "valkey+unix",
    "valkeys",
];

/// Schemes of other clients and servers, which errors may name.
const OTHER_SCHEMES: [&str; 16] = [
    "http",
    "https",
    "mongodb",
    "mysql",
    "postgres",
    "postgresql",
    "redis+cluster",
    "redis+socket",
    "redis+ssl",
    "redis+tls",
    "redis-cluster",
    "redis-socket",
    "socket",
    "tcp",
    "tls",
    "valkey-cluster",
];

/// Schemes by which clients ask Sentinels, and those that are written in their place to be parsed.
const SENTINEL_SCHEMES: [(&str, &str); 8] = [
    ("redis+sentinel", "redis"),
    ("redis-sentinel", "redis"),
    ("rediss+sentinel", "rediss"),
    ("rediss-sentinel", "rediss"),
    ("valkey+sentinel", "redis"),
    ("valkey-sentinel", "redis"),
    ("valkeys+sentinel", "rediss"),
    ("valkeys-sentinel", "rediss"),
];

/// Schemes of clients that ask Sentinels, and are written in a way that is not taken here.
const OTHER_SENTINEL_SCHEMES: [&str; 4] = [
    "redis+sentinels",
    "redis-sentinels",
    "sentinel",
    "sentinels",
];

/// What a connection string says. Its `Debug` shows no password.
#[derive(Clone)]
pub(super) struct Target {
    /// One server, or several nodes of one cluster; or Sentinels, with what their master is spoken to with.
    pub(super) seeds: Vec<ConnectionInfo>,
    /// What the Sentinels are asked for, where the seeds are such.
    pub(super) service: Option<Service>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) certificates: Certificates,
}

impl Target {
    pub(super) fn new(info: ConnectionInfo) -> Self {
        Self {
            seeds: vec![info],
            service: None,
            connect_timeout: None,
            certificates: Certificates::default(),
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, LockError> {
        let text = plain_text::trimmed(text);
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        plain_text::check(text).map_err(|error| error.in_setting("the Redis connection string"))?;
        if let Some(slip) = plain_text::slip(text) {
            return Err(wrong(format_args!("it {slip}")));
        }
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        if scheme.is_some_and(|scheme| scheme.chars().all(is_scheme)) || text.starts_with("unix:") {
            url(text)
        } else {
            options(text)
        }
    }

    /// Refuses certificates that nothing is done with, since it was not meant so.
    pub(super) fn check(&self) -> Result<(), LockError> {
        let has_tls = self.seeds.iter().any(|seed| tls_host(seed).is_some());
        if has_tls || self.certificates.is_empty() {
            return Ok(());
        }
        Err(LockError::misconfigured(
            "certificates or `sslHost` are given for Redis, and its connection string asks for no TLS: \
             write rediss://, or ssl=true",
        ))
    }

    /// What the certificate of this server can be for, beside its host: a cluster may name its nodes by
    /// addresses, and have certificates for the names of the connection string.
    pub(super) fn other_names(&self, server: &ConnectionInfo) -> Vec<String> {
        if self.certificates.name.is_some() || !tls_host(server).is_some_and(is_address) {
            return Vec::new();
        }
        let names = self.seeds.iter().filter_map(tls_host);
        let names: BTreeSet<_> = names.filter(|name| !is_address(name)).collect();
        names.into_iter().map(str::to_owned).collect()
    }

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
            let what = match self.service {
                Some(_) => "the Redis Sentinel",
                None => "Redis",
            };
            let server = format!("{what} at {}", seed.addr());
            let advice = "use rediss://, or ssl=true, with a certificate that this machine trusts";
            warn_unless_local(host, &server, how, advice);
        }
    }
}

/// The servers, for a log.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(service) = &self.service {
            write!(f, "{} of Sentinels ", service.master)?;
        }
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
            .field("service", &self.service)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

fn wrong(what: impl fmt::Display) -> LockError {
    LockError::misconfigured(format!("the Redis connection string is wrong: {what}"))
}

/// Refuses a scheme of another kind: before the rest is looked at, which is written in other ways there.
/// Gives what to parse in its place where it is one of Sentinels.
fn check_scheme(text: &str) -> Result<Option<&'static str>, LockError> {
    let scheme = text.split(':').next().unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    if SCHEMES.contains(&scheme.as_str()) {
        return Ok(None);
    }
    if let Some((_, plain)) = SENTINEL_SCHEMES.iter().find(|(name, _)| *name == scheme) {
        return Ok(Some(plain));
    }
    let listed = |names: &[&'static str]| names.iter().copied().find(|name| *name == scheme);
    if let Some(scheme) = listed(&OTHER_SENTINEL_SCHEMES) {
        return Err(wrong(format_args!(
            "its scheme `{scheme}` is one of Sentinel that is not taken: {HOW_SENTINELS}"
        )));
    }
    let shown = listed(&OTHER_SCHEMES).map_or("unknown".to_owned(), |name| format!("`{name}`"));
    Err(wrong(format_args!(
        "its scheme is {shown}; known are redis, rediss, valkey, valkeys, unix, redis+sentinel, \
         rediss+sentinel"
    )))
}

fn url(text: &str) -> Result<Target, LockError> {
    let (text, mut sentinels) = match check_scheme(text)? {
        Some(scheme) => {
            let (text, hosts) = sentinels::take_hosts(text)?;
            let (_, rest) = text.split_once(':').unwrap_or_default();
            (format!("{scheme}:{rest}"), hosts)
        }
        None => (text.to_owned(), Vec::new()),
    };
    let is_socket = text
        .split(':')
        .next()
        .is_some_and(|scheme| scheme.ends_with("unix"));
    let hostless = is_socket.then(|| without_host(&text)).flatten();
    let text = hostless.unwrap_or(text);
    // `ParseError` says what is wrong without the text.
    let mut url = Url::parse(&text).map_err(|error| {
        wrong(
            "it is not a URL; write redis://USER:PASSWORD@HOST:PORT/DATABASE, with special characters of \
             the password percent-encoded: `/` as %2F, `?` as %3F, `#` as %23, `@` as %40, `%` as %25; \
             several nodes of a cluster are written HOST:PORT,HOST:PORT,password=..,ssl=true",
        )
        .with_source(error)
    })?;
    let has_tls = matches!(url.scheme(), "rediss" | "valkeys");
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
    match url.fragment() {
        Some("insecure") => {
            return Err(wrong(format_args!(
                "its `#insecure` cannot be kept: {NAME_THE_CA}"
            )));
        }
        Some(_) => {
            return Err(wrong(
                "it has a `#`; write a `#` in a password as %23, and the master that Sentinels are asked for \
                 after their hosts: redis+sentinel://HOST,HOST/MASTER",
            ));
        }
        None => {}
    }
    if url.host_str().is_some_and(|host| host.contains(',')) {
        return Err(wrong(
            "it names several hosts; write the nodes of a cluster as HOST:PORT,HOST:PORT,password=..",
        ));
    }
    if has_tls {
        require_tls()?;
    }
    let mut given = Given::default();
    for (n, (option, value)) in url.query_pairs().enumerate() {
        given.take(n + 1, &option, &value)?;
    }
    if !sentinels.is_empty() {
        sentinels::take_path(&mut url, &mut given)?;
        if given.master.is_none() {
            return Err(wrong(format_args!(
                "it names Sentinels, and no master to ask them for: {HOW_SENTINELS}"
            )));
        }
    } else if given.master.is_some() {
        let host = url.host_str().filter(|_| !is_socket);
        let host = host.ok_or_else(|| wrong("it names a master, and no Sentinel to ask for it"))?;
        // In brackets, as an address of IPv6 is in either form.
        sentinels.push((self::host(host)?.0, url.port()));
    }
    let has_path = !matches!(url.path(), "" | "/");
    if has_path && !is_socket && url.path().trim_matches('/').parse::<u32>().is_err() {
        return Err(wrong(
            "its database, which stands after the host, is no number; write a socket as unix:///PATH",
        ));
    }
    url.set_query(None);
    // The driver's errors about URLs name no value.
    let info = url
        .into_connection_info()
        .map_err(|error| wrong("the driver does not take it").with_source(error))?;
    let redis = info.redis_settings();
    let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    once(&mut given.user, text(redis.username()), "user")?;
    once(&mut given.password, text(redis.password()), "password")?;
    if has_path && !is_socket {
        once(&mut given.database, Some(redis.db()), "db")?;
    }
    if given.tls.is_some_and(|tls| tls != has_tls) {
        return Err(wrong(
            "its option `ssl` and its scheme say two things; write rediss:// for TLS, redis:// without it",
        ));
    }
    if sentinels.is_empty() {
        return given.target(vec![info.addr().clone()]);
    }
    let addresses = addresses(sentinels, has_tls, sentinels::PORT);
    given.target(addresses)
}

fn options(text: &str) -> Result<Target, LockError> {
    if text.starts_with('/') {
        return Err(wrong("it is a path; write a socket as unix:///PATH"));
    }
    let mut hosts = Vec::new();
    let mut given = Given::default();
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
            let host = host(part)?;
            // Nor here: a password without `password=`.
            if host.1.is_none() && !hosts.is_empty() {
                return Err(wrong(
                    "a part after its first host is neither `HOST:PORT` nor an option; each further host \
                     needs its port, and a password is written `password=..`",
                ));
            }
            hosts.push(host);
            continue;
        };
        position += 1;
        given.take(position, option.trim(), value.trim())?;
    }
    if hosts.is_empty() {
        return Err(wrong("it names no host"));
    }
    let tls = given.tls == Some(true);
    if tls {
        require_tls()?;
    }
    let port = match (&given.master, tls) {
        (Some(_), _) => sentinels::PORT,
        (None, true) => TLS_PORT,
        (None, false) => PORT,
    };
    let addresses = addresses(hosts, tls, port);
    given.target(addresses)
}

/// A host, and its port if it has one.
type Host = (String, Option<u16>);

fn addresses(hosts: Vec<Host>, tls: bool, default_port: u16) -> Vec<ConnectionAddr> {
    let hosts = hosts.into_iter();
    let hosts = hosts.map(|(host, port)| (host, port.unwrap_or(default_port)));
    let address = |(host, port)| match tls {
        true => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        },
        false => ConnectionAddr::Tcp(host, port),
    };
    hosts.map(address).collect()
}

/// The same server, spoken to in RESP3.
pub(super) fn resp3(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info.redis_settings().clone();
    info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3))
}

fn host(text: &str) -> Result<Host, LockError> {
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
            port.parse().map_err(|_| {
                wrong(
                    "the port of a host is no number up to 65535 (a URL has `//` after its scheme)",
                )
            })
        })
        .transpose()?;
    Ok((host.to_owned(), port))
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
mod tests;
