//! What a server is started with, of whatever kind it is.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use rustix::process::Signal;

use super::certificates::{Authority, Certificates, Kind};
use super::clock::WallClock;
use super::daemon::{Daemon, daemon_command};
use super::guardian::Guardian;
use super::lan::NetworkNamespace;

/// How a server is started: what all have, and what its kind has of its own.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions<K> {
    pub(super) settings: Vec<(String, String)>,
    namespace: Option<NetworkNamespace>,
    tls: Option<Arc<Authority>>,
    certificate: Kind,
    wants_certificate: bool,
    has_clock: bool,
    pub(super) kind: K,
}

impl<K> ServerOptions<K> {
    /// A setting of the server's configuration file; the last of several counts.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Several of them.
    #[must_use]
    pub fn settings(self, settings: &[(&str, &str)]) -> Self {
        settings
            .iter()
            .fold(self, |options, (name, value)| options.setting(name, value))
    }

    /// It has a wall clock of its own: see [`put_clock`](super::Server::put_clock).
    #[must_use]
    pub fn own_clock(mut self) -> Self {
        self.has_clock = true;
        self
    }

    /// Starts it inside a network namespace, on the address of that.
    #[must_use]
    pub fn inside(mut self, namespace: &NetworkNamespace) -> Self {
        self.namespace = Some(namespace.clone());
        self
    }

    /// Over TCP it speaks TLS and nothing else.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls.get_or_insert_with(|| Arc::new(Authority::new()));
        self
    }

    /// TLS with a certificate that has expired.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.certificate = Kind::InYears(2001, 2002);
        self.tls()
    }

    /// TLS with a certificate for `localhost`, and not for the address.
    #[must_use]
    pub fn named_localhost(mut self) -> Self {
        self.certificate = Kind::OfName;
        self.tls()
    }

    /// TLS with clients that show a certificate of the same authority.
    #[must_use]
    pub fn certificates_of_clients(mut self) -> Self {
        self.wants_certificate = true;
        self.tls()
    }

    pub(super) fn wants_certificate(&self) -> bool {
        self.wants_certificate
    }

    pub(super) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) fn address(&self) -> IpAddr {
        let namespace = self.namespace.as_ref();
        namespace.map_or(Ipv4Addr::LOCALHOST.into(), NetworkNamespace::address)
    }

    pub(super) fn namespace_name(&self) -> Option<&str> {
        self.namespace.as_ref().map(NetworkNamespace::name)
    }

    /// A server that is not running yet, of this command line, where and with the clock that it is to have.
    pub(super) async fn daemon(
        &self,
        guardian: Guardian,
        command: Vec<String>,
        stop: Signal,
    ) -> Daemon {
        let clock = match self.has_clock {
            true => Some(WallClock::new(&guardian).await),
            false => None,
        };
        let command = match &clock {
            Some(clock) => clock.of(command),
            None => command,
        };
        let command = daemon_command(command, self.namespace_name());
        Daemon::new(guardian, command, stop).with_clock(clock)
    }

    pub(super) fn authority(&self) -> Option<&Authority> {
        self.tls.as_deref()
    }

    /// Writes what TLS needs to the directory.
    pub(super) fn certificates(&self, directory: &Path) -> Option<Certificates> {
        let authority = self.tls.as_ref()?;
        Some(authority.vouch(directory, self.address(), self.certificate))
    }

    /// The settings that every server of the kind has, and then those of this one.
    pub(super) fn settings_after<'a>(
        &'a self,
        common: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let own = self.settings.iter();
        let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
        common.iter().copied().chain(own)
    }
}
