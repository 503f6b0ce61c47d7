//! Why there is no TLS with a server, each cause in a sentence that says what to do.

use std::error::Error;

use crate::LockError;
use crate::server::tls_trouble::TlsTrouble;

/// What comes of a handshake that failed, or of what it needs.
pub(super) fn refused(error: &(dyn Error + 'static)) -> LockError {
    LockError::misconfigured(cause(error).unwrap_or(
        "TLS does not work with what listens there; see that it is a PostgreSQL server, make sslmode, \
         the certificates and the server agree, and build with one of the `tls-*` features",
    ))
}

/// Whether an error of the connection is one of TLS: an alert can come after the handshake.
pub(super) fn is_trouble(error: &(dyn Error + 'static)) -> bool {
    trouble(error).is_some()
}

fn cause(error: &(dyn Error + 'static)) -> Option<&'static str> {
    of_driver(error).or_else(|| trouble(error).map(sentence))
}

/// By its words: of the two libraries, one has no types for it.
fn trouble(error: &(dyn Error + 'static)) -> Option<TlsTrouble> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(trouble) = TlsTrouble::said(&error.to_string()) {
            return Some(trouble);
        }
        next = error.source();
    }
    None
}

const fn sentence(trouble: TlsTrouble) -> &'static str {
    match trouble {
        TlsTrouble::Unknown => {
            "the certificate of the server is of an authority that this process does not trust; set \
             sslrootcert=FILE to the certificate of that authority (or SSL_CERT_FILE)"
        }
        TlsTrouble::OtherName => {
            "the certificate of the server is for another name than the host of the connection \
             string; connect by the name that it has, or give the server one for this name"
        }
        TlsTrouble::Expired => {
            "the certificate of the server has expired; renew it (or correct the clock here)"
        }
        TlsTrouble::NotYet => {
            "the certificate of the server is not valid yet; correct the clock here, or the \
             certificate"
        }
        TlsTrouble::Revoked => "the certificate of the server was revoked; renew it",
        TlsTrouble::AuthorityItself | TlsTrouble::OldForm | TlsTrouble::Other => {
            "the certificate of the server is not one that can be verified, which the source of \
             this error explains; give it one of its own that an authority has signed"
        }
        TlsTrouble::WantsCertificate => {
            "the server wants a client certificate; set sslcert and sslkey"
        }
        TlsTrouble::CertificateRefused => {
            "the server refused the client certificate, or that there is none; set sslcert and sslkey to \
             one that is valid, of an authority that it trusts (ssl_ca_file there)"
        }
        TlsTrouble::NotOurKey => {
            "the key of `sslkey` is not that of the certificate of `sslcert`; give the two that belong \
             together"
        }
        TlsTrouble::NothingInCommon => {
            "the server and this process have no version of TLS, or no cipher, in common; allow TLS 1.2 \
             or 1.3 on the server"
        }
        TlsTrouble::NoTls => {
            "what listens there agrees to TLS and does not speak it; correct host and port, or see the \
             proxy between"
        }
        TlsTrouble::NoRoots => {
            "the authorities that this machine trusts cannot be read; correct SSL_CERT_FILE and \
             SSL_CERT_DIR, or what the system keeps"
        }
    }
}

/// What the driver says itself.
fn of_driver(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let says = error.to_string();
    if says == "server does not support TLS" {
        Some(
            "the server has no TLS, which sslmode demands; turn it on there (ssl = on), or connect to the \
             server or the pooler that has it",
        )
    } else if says.contains("built without TLS") {
        Some(
            "sslmode demands TLS, and this program was built without it; build with one of the `tls-*` \
             features",
        )
    } else if says.starts_with("Invalid certificate") {
        Some("the file of `sslrootcert` holds no certificate in PEM; give it one")
    } else if says.contains("peer sent no certificates") {
        Some(
            "the file of `sslcert` holds no certificate in PEM, or the server shows none; give it one",
        )
    } else if says.contains("no start line") || says.contains("expected PKCS#8") {
        Some(
            "a file of `sslrootcert` or `sslcert` holds no certificate in PEM, or that of `sslkey` no key in \
             PEM of PKCS #8; give it one",
        )
    } else {
        None
    }
}
