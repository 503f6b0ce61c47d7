//! Connections on which the server proves nothing: what listens at its address, or on the way to it, is
//! given the password.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};

/// A warning, once in a process for each server, unless the host is this machine.
pub(crate) fn warn_unless_local(host: &str, server: &str, how: &str, advice: &str) {
    static WARNED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    if is_local(host) {
        return;
    }
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.insert(format!("{server} {how}")) {
        tracing::warn!(
            "the connection to {server} is not verified ({how}): a server that answers in its place receives the password, and can grant one lock to several clients; {advice}"
        );
    }
}

/// Whether a connection to this host does not leave the machine, as far as its name tells: a socket's
/// path, a loopback address, or `localhost`.
pub(crate) fn is_local(host: &str) -> bool {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            let name = name.to_ascii_lowercase();
            name.starts_with('/') || name == "localhost" || name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_told_from_others_by_name() {
        for host in [
            "localhost",
            "LOCALHOST",
            "db.localhost",
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
            "/run/postgresql",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "db",
            "10.0.0.1",
            "localhost.example",
            "::2",
            "0.0.0.0",
            "192.0.2.1",
            "",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
