//! Certificates for servers that speak TLS.

use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustix::process::getuid;

use super::keep::NOBODY;

/// An authority that no other server knows. A server and its replicas have the same.
#[derive(Debug)]
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// What a certificate of a server is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// In order, for `localhost` and the address.
    #[default]
    Good,
    /// For `localhost` alone.
    OfName,
    /// Valid from the beginning of one year to that of another.
    InYears(i32, i32),
}

/// The files of a server that an authority vouches for.
#[derive(Debug)]
pub(super) struct Certificates {
    /// What a client has to trust.
    pub(super) authority: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = named("authority of a test");
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// The files of a server at `localhost` and, unless its certificate is for that name alone, this
    /// address.
    pub(super) fn vouch(&self, directory: &Path, address: IpAddr, of: Kind) -> Certificates {
        let key = KeyPair::generate().unwrap();
        let mut names = vec!["localhost".to_owned(), address.to_string()];
        names.truncate(if of == Kind::OfName { 1 } else { 2 });
        let mut params = CertificateParams::new(names).unwrap();
        if let Kind::InYears(from, to) = of {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        }
        params.distinguished_name = named("server of a test");
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let files = Certificates {
            authority: directory.join("authority.crt"),
            certificate: directory.join("server.crt"),
            key: directory.join("server.key"),
        };
        fs::write(&files.authority, &self.certificate).unwrap();
        fs::write(&files.certificate, certificate).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        // Servers refuse a key that others can read.
        fs::set_permissions(&files.key, Permissions::from_mode(0o600)).unwrap();
        if getuid().is_root() {
            chown(&files.key, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        files
    }

    /// The files of a client with this name: its certificate and its key.
    pub(super) fn introduce(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let file = |kind| directory.join(format!("{name}.{kind}"));
        fs::write(file("crt"), certificate).unwrap();
        fs::write(file("key"), key.serialize_pem()).unwrap();
        (file("crt"), file("key"))
    }
}

/// A certificate that has the name of its issuer counts as its own.
fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
