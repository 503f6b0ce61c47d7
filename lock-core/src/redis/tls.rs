//! Why TLS was not agreed on, by the words of rustls and of OpenSSL: the driver hides their types.

use ::redis::RedisError;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsTrouble {
    Unknown,
    OtherName,
    Expired,
    NotYet,
    AuthorityItself,
    OldForm,
    WantsCertificate,
    CertificateRefused,
    NotOurKey,
    NothingInCommon,
    NoTls,
    NoRoots,
    Other,
}

/// The first that has one of its words.
const WORDS: [(TlsTrouble, &[&str]); 13] = [
    (
        TlsTrouble::OtherName,
        &[
            "certificate not valid for name",
            "NotValidForName",
            "Hostname mismatch",
            "IP address mismatch",
        ],
    ),
    (
        TlsTrouble::Expired,
        &["certificate expired", "certificate has expired"],
    ),
    (
        TlsTrouble::NotYet,
        &["certificate not valid yet", "certificate is not yet valid"],
    ),
    (TlsTrouble::AuthorityItself, &["CaUsedAsEndEntity"]),
    (TlsTrouble::OldForm, &["UnsupportedCertVersion"]),
    (
        TlsTrouble::WantsCertificate,
        &["alert: CertificateRequired", "alert certificate required"],
    ),
    (
        TlsTrouble::CertificateRefused,
        &[
            "alert: UnknownCA",
            "alert: BadCertificate",
            "alert: CertificateUnknown",
            "alert: CertificateExpired",
            "alert: CertificateRevoked",
            "alert: UnsupportedCertificate",
            "alert: AccessDenied",
            "alert: DecryptError",
            "alert unknown ca",
            "alert bad certificate",
            "alert certificate",
            "alert unsupported certificate",
            "alert access denied",
            "alert decrypt error",
        ],
    ),
    (
        TlsTrouble::NotOurKey,
        &["keys may not be consistent", "key values mismatch"],
    ),
    (
        TlsTrouble::NothingInCommon,
        &[
            "alert: HandshakeFailure",
            "alert: ProtocolVersion",
            "alert: InsufficientSecurity",
            "peer is incompatible",
            "alert handshake failure",
            "alert protocol version",
            "unsupported protocol",
        ],
    ),
    (
        TlsTrouble::NoTls,
        &[
            "InvalidContentType",
            "corrupt message",
            "wrong version number",
            "packet length too long",
        ],
    ),
    (
        TlsTrouble::NoRoots,
        &[
            "failed to read PEM",
            "opening directory",
            "reading directory entries",
            "failed to open file",
        ],
    ),
    (
        TlsTrouble::Unknown,
        &[
            "UnknownIssuer",
            "self-signed",
            "self signed",
            "unable to get local issuer",
        ],
    ),
    (
        TlsTrouble::Other,
        &[
            "peer certificate",
            "certificate verify failed",
            "fatal alert",
            "peer misbehaved",
        ],
    ),
];

impl TlsTrouble {
    pub(super) fn of(error: &RedisError) -> Option<Self> {
        Self::said(&error.to_string())
    }

    fn said(text: &str) -> Option<Self> {
        let has_one = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let found = WORDS.iter().find(|(_, words)| has_one(words));
        found.map(|(trouble, _)| *trouble)
    }

    /// What is said of the server.
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::Unknown => {
                "has a certificate that is not trusted: its authority is not known here; name the file of \
                 that with `ssl_ca_certs` in the connection string, `ca_file` of the builder, or the \
                 variable SSL_CERT_FILE"
            }
            Self::OtherName => {
                "has a certificate that is not trusted: it is for another name; connect by a name in its \
                 subjectAltName, or give that with `sslHost`; a cluster names its nodes by what \
                 `cluster-announce-hostname` and `cluster-preferred-endpoint-type` say"
            }
            Self::Expired => "has a certificate that is not trusted: it has expired; renew it",
            Self::NotYet => {
                "has a certificate that is not trusted: it is not valid yet; put the clocks of both \
                 machines right"
            }
            Self::AuthorityItself => {
                "has a certificate that is not trusted: it is that of an authority (CA:TRUE); give the \
                 server one that this authority has signed"
            }
            Self::OldForm => {
                "has a certificate that is not trusted: it is of an old version; make one of version 3, \
                 with a subjectAltName"
            }
            Self::WantsCertificate => {
                "wants a certificate of its clients: give one with `ssl_certfile` and `ssl_keyfile` in the \
                 connection string, or `client_certificate` of the builder"
            }
            Self::CertificateRefused => {
                "does not take the certificate of this client: is it of the authority that the server \
                 trusts, and has it not expired?"
            }
            Self::NotOurKey => {
                "cannot be connected to: the certificate of this client and its key do not belong \
                 together"
            }
            Self::NothingInCommon => {
                "and this client have no version or cipher of TLS in common, or it wants a certificate of \
                 its clients (`ssl_certfile`)"
            }
            Self::NoTls => {
                "does not speak TLS on this port; give the port where it does, or write redis:// or \
                 ssl=false"
            }
            Self::NoRoots => {
                "cannot be verified: the authorities that this machine trusts cannot be read; correct \
                 SSL_CERT_FILE and SSL_CERT_DIR, or what the system keeps"
            }
            Self::Other => "could not be trusted; its certificate or its TLS is not in order",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TlsTrouble::*;
    use super::*;

    #[test]
    fn the_words_of_either_library_say_the_same() {
        for (said, trouble) in [
            ("invalid peer certificate: UnknownIssuer", Unknown),
            (
                "invalid peer certificate: certificate not valid for name \"a\"; certificate is",
                OtherName,
            ),
            (
                "invalid peer certificate: certificate expired: verification time 1",
                Expired,
            ),
            (
                "received fatal alert: CertificateRequired",
                WantsCertificate,
            ),
            ("received fatal alert: UnknownCA", CertificateRefused),
            ("received fatal alert: HandshakeFailure", NothingInCommon),
            ("received corrupt message of type InvalidContentType", NoTls),
            ("received fatal alert: InternalError", Other),
            (
                "failed to open file: No such file or directory (os error 2) at '/nope'",
                NoRoots,
            ),
            (
                "certificate verify failed:../ssl/x.c:1: (self-signed certificate in chain)",
                Unknown,
            ),
            ("certificate verify failed: (Hostname mismatch)", OtherName),
            (
                "certificate verify failed: (certificate has expired)",
                Expired,
            ),
            (
                "tlsv13 alert certificate required:../ssl/x.c:1:SSL alert number 116",
                WantsCertificate,
            ),
            ("tlsv1 alert unknown ca:../ssl/x.c", CertificateRefused),
            ("wrong version number:../ssl/x.c", NoTls),
        ] {
            assert_eq!(TlsTrouble::said(said), Some(trouble), "{said}");
        }
        for said in [
            "Connection refused (os error 111)",
            "broken pipe",
            "WRONGPASS",
        ] {
            assert_eq!(TlsTrouble::said(said), None, "{said}");
        }
    }
}
