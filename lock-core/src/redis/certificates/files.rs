//! The files of certificates and keys.

use std::fs;
use std::path::Path;

use ::redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult,
    TlsCertificates,
};

use super::Certificates;
use crate::LockError;
use crate::server::authorities::{self, CERTIFICATE};

const KEY: &str = "PRIVATE KEY-----";

/// What the files have.
pub(in crate::redis) struct Trust(Option<TlsCertificates>);

impl Trust {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// Misconfigured, without a path: what stands in its place can be the rest of a password.
    pub(in crate::redis) fn read(certificates: &Certificates) -> Result<Self, LockError> {
        let root_cert = match &certificates.ca_file {
            Some(file) => Some(part(file, "`ca_file` or `ssl_ca_certs`", CERTIFICATE)?),
            // Where the driver takes those of the machine, it looks at the environment itself.
            None if cfg!(feature = "tls-rustls-ring-webpki") => authorities::of_environment()?,
            None => None,
        };
        let client_tls = match &certificates.client {
            Some((file, key)) => Some(ClientTlsConfig {
                client_cert: part(file, "`client_certificate` or `ssl_certfile`", CERTIFICATE)?,
                client_key: part(key, "`client_certificate` or `ssl_keyfile`", KEY)?,
            }),
            None => None,
        };
        let is_needed = root_cert.is_some() || client_tls.is_some();
        Ok(Self(is_needed.then_some(TlsCertificates {
            client_tls,
            root_cert,
        })))
    }

    /// A client that trusts and proves this.
    pub(in crate::redis) fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        let (Some(certificates), ConnectionAddr::TcpTls { .. }) = (&self.0, info.addr()) else {
            return Client::open(info);
        };
        // Without the driver's error, which can quote a line of a key.
        Client::build_with_tls(info, certificates.clone()).map_err(|_| {
            RedisError::from((
                ErrorKind::InvalidClientConfig,
                "a certificate or a key is not whole, or not of PKCS #8, PKCS #1 or SEC 1",
            ))
        })
    }
}

/// The text of a file that has such a part.
fn part(file: &Path, named: &str, part: &str) -> Result<Vec<u8>, LockError> {
    let text = fs::read(file).map_err(|error| {
        LockError::misconfigured(format!(
            "the file for TLS to Redis that {named} names cannot be read"
        ))
        .with_source(error)
    })?;
    let has = |part: &str| {
        text.windows(part.len())
            .any(|bytes| bytes == part.as_bytes())
    };
    if !has(part) || has("BEGIN ENCRYPTED") {
        let what = if part == KEY {
            "key without a password"
        } else {
            "certificate"
        };
        return Err(LockError::misconfigured(format!(
            "the file for TLS to Redis that {named} names has no {what} in PEM"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_none_is_told_by_what_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let cert = file("hunter2.crt", CERTIFICATE);
        let key = file("hunter2.key", "-----BEGIN PRIVATE KEY-----");
        let locked = file("hunter2.locked", "-----BEGIN ENCRYPTED PRIVATE KEY-----");
        let gone = dir.path().join("hunter2");
        for (ca_file, client, says) in [
            (Some(&gone), None, "`ssl_ca_certs` names cannot be read"),
            (Some(&key), None, "`ssl_ca_certs` names has no certificate"),
            (None, Some((&gone, &key)), "`ssl_certfile` names cannot"),
            (None, Some((&cert, &gone)), "`ssl_keyfile` names cannot"),
            (None, Some((&cert, &cert)), "names has no key"),
            (None, Some((&cert, &locked)), "key without a password"),
        ] {
            let certificates = Certificates {
                ca_file: ca_file.cloned(),
                client: client.map(|(file, key)| (file.clone(), key.clone())),
                name: None,
            };
            let error = Trust::read(&certificates).err().unwrap();
            assert!(
                error.is_misconfigured() && error.to_string().contains(says),
                "{error}"
            );
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
