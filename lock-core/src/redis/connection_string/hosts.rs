//! Hosts and their ports, as both forms have them.

use std::net::Ipv6Addr;

use ::redis::ConnectionAddr;

use super::wrong;
use crate::LockError;

/// A host, and its port if it has one.
pub(super) type Host = (String, Option<u16>);

/// Addresses of these; of those without a port, with this one.
pub(super) fn addresses(hosts: Vec<Host>, tls: bool, default_port: u16) -> Vec<ConnectionAddr> {
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

/// Reads `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`.
pub(super) fn host(text: &str) -> Result<Host, LockError> {
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
