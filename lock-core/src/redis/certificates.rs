//! What TLS trusts, and what it proves to the server.

#[cfg(any(
    feature = "rustls-ring",
    feature = "tls-rustls-aws-lc-rs",
    feature = "tls-native-tls"
))]
mod files;

use std::net::IpAddr;
use std::path::PathBuf;

use ::redis::{ConnectionAddr, ConnectionInfo};

pub(super) use files::Trust;

/// What was chosen about TLS. The files are read at each connect, so that a certificate that is renewed
/// is taken without a restart.
#[derive(Clone, Debug, Default)]
pub(super) struct Certificates {
    /// Of the authorities that are trusted, in place of those of the machine.
    pub(super) ca_file: Option<PathBuf>,
    /// The certificate of the client, and its key, which can be in the same file.
    pub(super) client: Option<(PathBuf, PathBuf)>,
    /// What the certificate of a server has to be for, in place of its host.
    pub(super) name: Option<String>,
}

impl Certificates {
    /// Whether nothing was chosen.
    pub(super) fn is_empty(&self) -> bool {
        self.ca_file.is_none() && self.client.is_none() && self.name.is_none()
    }
}

/// The host of a server that is spoken to over TLS.
pub(super) fn host(info: &ConnectionInfo) -> Option<&str> {
    match info.addr() {
        ConnectionAddr::TcpTls { host, .. } => Some(host),
        _ => None,
    }
}

/// Whether it is no name.
pub(super) fn is_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}

/// Where there is no TLS.
#[cfg(not(any(
    feature = "rustls-ring",
    feature = "tls-rustls-aws-lc-rs",
    feature = "tls-native-tls"
)))]
mod files {
    use ::redis::{Client, ConnectionInfo, RedisResult};

    use super::Certificates;
    use crate::LockError;

    pub(in crate::redis) struct Trust;

    impl Trust {
        pub(in crate::redis) fn read(_: &Certificates) -> Result<Self, LockError> {
            Ok(Self)
        }

        pub(in crate::redis) fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
            Client::open(info)
        }
    }
}
