//! Certificates for servers that speak TLS.

use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustix::process::getuid;

use super::keep::NOBODY;

/// An authority that nobody else knows. A server and its replicas have the same.
#[derive(Debug)]
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
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

    /// The files of a server at `localhost` and this address.
    pub(super) fn vouch(&self, directory: &Path, address: IpAddr) -> Certificates {
        self.vouch_in(directory, address, 1975..4096)
    }

    /// The same in these years.
    pub(super) fn vouch_in(
        &self,
        directory: &Path,
        address: IpAddr,
        years: Range<i32>,
    ) -> Certificates {
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), address.to_string()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = named("server of a test");
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
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
