//! Addresses that servers tell of each other.

use ::redis::ConnectionAddr;

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
