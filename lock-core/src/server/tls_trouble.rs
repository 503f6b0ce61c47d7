//! Why TLS was not agreed on, by the words of rustls and of OpenSSL: drivers hide their types.

/// What is wrong; each engine says in its own words what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsTrouble {
    Unknown,
    OtherName,
    Expired,
    NotYet,
    Revoked,
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
const WORDS: [(TlsTrouble, &[&str]); 14] = [
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
        &[
            "certificate expired",
            "certificate has expired",
            "peer certificate: Expired",
        ],
    ),
    (
        TlsTrouble::NotYet,
        &[
            "certificate not valid yet",
            "certificate is not yet valid",
            "peer certificate: NotValidYet",
        ],
    ),
    (
        TlsTrouble::Revoked,
        &["peer certificate: Revoked", "certificate revoked)"],
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
            // Of an authority that has the name of one that is trusted.
            "BadSignature",
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
    /// By what an error says, its sources included.
    pub(crate) fn said(text: &str) -> Option<Self> {
        let has_one = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let found = WORDS.iter().find(|(_, words)| has_one(words));
        found.map(|(trouble, _)| *trouble)
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
            ("invalid peer certificate: BadSignature", Unknown),
            ("invalid peer certificate: NotValidYet", NotYet),
            ("invalid peer certificate: Revoked", Revoked),
            (
                "certificate verify failed:../x.c:1: (certificate revoked)",
                Revoked,
            ),
            (
                "peer is incompatible: ServerDoesNotSupportTls12Or13",
                NothingInCommon,
            ),
            ("keys may not be consistent: KeyMismatch", NotOurKey),
            (
                "x509 certificate routines::key values mismatch:../x.c",
                NotOurKey,
            ),
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
