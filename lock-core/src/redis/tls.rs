//! Why TLS was not agreed on with a server, each cause in a sentence that says what to do.

use crate::server::tls_trouble::TlsTrouble;

/// What is said of the server.
pub(super) const fn sentence(trouble: TlsTrouble) -> &'static str {
    match trouble {
        TlsTrouble::Unknown => {
            "has a certificate that is not trusted: its authority is not known here; name the file of \
                 that with `ssl_ca_certs` in the connection string, `ca_file` of the builder, or the \
                 variable SSL_CERT_FILE"
        }
        TlsTrouble::OtherName => {
            "has a certificate that is not trusted: it is for another name; connect by a name in its \
                 subjectAltName, or give that with `sslHost`; a cluster names its nodes by what \
                 `cluster-announce-hostname` and `cluster-preferred-endpoint-type` say"
        }
        TlsTrouble::Expired => "has a certificate that is not trusted: it has expired; renew it",
        TlsTrouble::Revoked => "has a certificate that is not trusted: it was revoked; renew it",
        TlsTrouble::NotYet => {
            "has a certificate that is not trusted: it is not valid yet; put the clocks of both \
                 machines right"
        }
        TlsTrouble::AuthorityItself => {
            "has a certificate that is not trusted: it is that of an authority (CA:TRUE); give the \
                 server one that this authority has signed"
        }
        TlsTrouble::OldForm => {
            "has a certificate that is not trusted: it is of an old version; make one of version 3, \
                 with a subjectAltName"
        }
        TlsTrouble::WantsCertificate => {
            "wants a certificate of its clients: give one with `ssl_certfile` and `ssl_keyfile` in the \
                 connection string, or `client_certificate` of the builder"
        }
        TlsTrouble::CertificateRefused => {
            "does not take the certificate of this client: is it of the authority that the server \
                 trusts, and has it not expired?"
        }
        TlsTrouble::NotOurKey => {
            "cannot be connected to: the certificate of this client and its key do not belong \
                 together"
        }
        TlsTrouble::NothingInCommon => {
            "and this client have no version or cipher of TLS in common, or it wants a certificate of \
                 its clients (`ssl_certfile`)"
        }
        TlsTrouble::NoTls => {
            "does not speak TLS on this port; give the port where it does, or write redis:// or \
                 ssl=false"
        }
        TlsTrouble::NoRoots => {
            "cannot be verified: the authorities that this machine trusts cannot be read; correct \
                 SSL_CERT_FILE and SSL_CERT_DIR, or what the system keeps"
        }
        TlsTrouble::Other => "could not be trusted; its certificate or its TLS is not in order",
    }
}
