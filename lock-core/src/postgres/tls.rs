//! Why there is no TLS with a server, each cause in a sentence that says what to do.

use std::error::Error;

use crate::LockError;

/// What comes of a handshake that failed, or of what it needs.
pub(super) fn refused(error: &(dyn Error + 'static)) -> LockError {
    LockError::misconfigured(cause(error).unwrap_or(
        "TLS does not work with what listens there; see that it is a PostgreSQL server, make sslmode, \
         the certificates and the server agree, and build with one of the `tls-*` features",
    ))
}

const WITHOUT_TLS: &str = "the server has no TLS, which sslmode demands; turn it on there (ssl = on), or \
     connect to the server or the pooler that has it";

#[cfg(any(feature = "rustls-ring", feature = "tls-rustls-aws-lc-rs"))]
fn cause(error: &(dyn Error + 'static)) -> Option<&'static str> {
    use rustls::AlertDescription as Alert;
    use rustls::CertificateError as Wrong;
    use rustls::Error as Failed;

    let Some(failed) = error.downcast_ref::<Failed>() else {
        return of_driver(error);
    };
    Some(match failed {
        Failed::InvalidCertificate(wrong) => match wrong {
            // Or of one that has the name of one that it trusts.
            Wrong::UnknownIssuer | Wrong::BadSignature => {
                "the certificate of the server is of an authority that this process does not trust; set \
                 sslrootcert=FILE to the certificate of that authority (or SSL_CERT_FILE)"
            }
            Wrong::NotValidForName | Wrong::NotValidForNameContext { .. } => {
                "the certificate of the server is for another name than the host of the connection \
                 string; connect by the name that it has, or give the server one for this name"
            }
            Wrong::Expired | Wrong::ExpiredContext { .. } => {
                "the certificate of the server has expired; renew it (or correct the clock here)"
            }
            Wrong::NotValidYet | Wrong::NotValidYetContext { .. } => {
                "the certificate of the server is not valid yet; correct the clock here, or the \
                 certificate"
            }
            Wrong::Revoked => "the certificate of the server was revoked; renew it",
            _ => {
                "the certificate of the server is not one that can be verified, which the source of \
                 this error explains; give it one of its own that an authority has signed"
            }
        },
        Failed::AlertReceived(Alert::CertificateRequired) => {
            "the server wants a client certificate; set sslcert and sslkey"
        }
        Failed::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::AccessDenied
            | Alert::DecryptError,
        ) => {
            "the server refused the client certificate, or that there is none; set sslcert and sslkey to \
             one that is valid, of an authority that it trusts (ssl_ca_file there)"
        }
        Failed::AlertReceived(
            Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity,
        )
        | Failed::PeerIncompatible(_) => {
            "the server and this process have no version of TLS, or no cipher, in common; allow TLS 1.2 \
             or 1.3 on the server"
        }
        Failed::NoCertificatesPresented => {
            "the file of `sslcert` holds no certificate in PEM, or the server shows none; give it one"
        }
        Failed::InconsistentKeys(_) => {
            "the key of `sslkey` is not that of the certificate of `sslcert`; give the two that belong \
             together"
        }
        _ => return None,
    })
}

#[cfg(not(any(feature = "rustls-ring", feature = "tls-rustls-aws-lc-rs")))]
fn cause(error: &(dyn Error + 'static)) -> Option<&'static str> {
    of_driver(error)
}

/// By its words, which are all that the driver gives.
fn of_driver(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let says = error.to_string();
    if says == "server does not support TLS" {
        Some(WITHOUT_TLS)
    } else if says.contains("built without TLS") {
        Some(
            "sslmode demands TLS, and this program was built without it; build with one of the `tls-*` \
             features",
        )
    } else if says.starts_with("Invalid certificate") {
        Some("the file of `sslrootcert` holds no certificate in PEM; give it one")
    } else {
        None
    }
}
