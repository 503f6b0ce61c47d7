//! Addresses that servers tell of each other, and those that a name has.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ::redis::{ConnectionAddr, ConnectionInfo};
use tokio::net::lookup_host;
use tokio::time::timeout;

/// How many addresses of a name are looked at.
const MOST: usize = 16;

/// The address of another node, reached as the one that was asked.
pub(super) fn address(asked: &ConnectionAddr, host: Option<String>, port: u16) -> ConnectionAddr {
    match asked.clone() {
        ConnectionAddr::TcpTls {
            host: known,
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host: host.unwrap_or(known),
            port,
            insecure,
            tls_params,
        },
        ConnectionAddr::Tcp(known, _) => ConnectionAddr::Tcp(host.unwrap_or(known), port),
        _ => ConnectionAddr::Tcp(host.unwrap_or_else(|| "127.0.0.1".to_owned()), port),
    }
}

/// Each address of a name that has several; of any other, and of one that is not known in time, none.
pub(super) async fn addresses_of(info: &ConnectionInfo, within: Duration) -> Vec<ConnectionInfo> {
    let (ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }) = info.addr()
    else {
        return Vec::new();
    };
    let Ok(Ok(found)) = timeout(within, lookup_host((host.as_str(), *port))).await else {
        return Vec::new();
    };
    let found: BTreeSet<_> = found.map(|address| address.ip()).collect();
    if found.len() < 2 {
        return Vec::new();
    }
    let of = |ip: IpAddr| address(info.addr(), Some(ip.to_string()), *port);
    let found = found.into_iter().take(MOST);
    found.map(|ip| info.clone().set_addr(of(ip))).collect()
}
