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
mod hosts;
mod scheme;
mod sentinels;
mod service;
mod url;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use ::redis::{ConnectionAddr, ConnectionInfo, ProtocolVersion};

use self::given::Given;
use self::hosts::{addresses, host};
pub(super) use self::service::Service;
use super::certificates::{Certificates, host as tls_host, is_address};
use crate::server::exposed::warn_unless_local;
use crate::{LockError, plain_text};

const PORT: u16 = 6379;
const TLS_PORT: u16 = 6380;

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
            url::parse(text)
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

/// Reads hosts and options with commas between them.
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

/// The same server, spoken to in RESP3.
pub(super) fn resp3(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info.redis_settings().clone();
    info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3))
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
