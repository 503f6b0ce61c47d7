//! What can be wrong with TLS: each cause is named for what it is, and none as an outage, which a retry
//! would end.

use lock_core::postgres::PostgresBackend;
use lock_tests::child::Child;
use lock_tests::servers::PostgresServer;
use tokio::process::Command;

use crate::support::order;

async fn refused(url: &str, says: &str) {
    let error = PostgresBackend::connect(url).await.unwrap_err();
    assert!(error.is_misconfigured(), "{url}: {error:?}");
    assert!(error.to_string().contains(says), "{url}: {error}");
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_now_is_told() {
    let server = PostgresServer::options().tls().start().await;
    for (years, says) in [
        (1975..1999, "has expired"),
        (3000..3001, "is not valid yet"),
    ] {
        server.certify(years).await;
        refused(&server.url(), says).await;
    }
    server.certify(1975..3000).await;
    PostgresBackend::connect(&server.url()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_has_no_tls_is_told() {
    let server = PostgresServer::start().await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("{}?sslmode={mode}", server.url());
        refused(&url, "the server has no TLS").await;
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_told() {
    let server = PostgresServer::options().tls().start().await;
    let (certificate, key) = server.client_certificate("app");
    let plain = format!("postgres://app@{}/postgres?sslmode=", server.address());
    let file = |path: &str| format!("{}/{path}", server.socket_directory().display());
    for options in [
        format!("verify-full&sslrootcert={}", file("none")),
        format!("verify-full&sslrootcert={}", file("")),
        format!(
            "require&sslcert={}&sslkey={}",
            certificate.display(),
            file("none")
        ),
        format!("require&sslcert={}&sslkey={}", file("none"), key.display()),
    ] {
        refused(&format!("{plain}{options}"), "a file of `sslrootcert`").await;
    }
    // Files, and not what they are for.
    for (certificate, key) in [(&certificate, &certificate), (&key, &key)] {
        let (certificate, key) = (certificate.display(), key.display());
        let url = format!("{plain}require&sslcert={certificate}&sslkey={key}");
        refused(&url, "`sslcert`").await;
    }
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_is_told_and_given_it() {
    let server = PostgresServer::options().tls().start().await;
    let (certificate, key) = server.client_certificate("app");
    let authority = server.authority().unwrap().display().to_string();
    server.set("ssl_ca_file", &authority).await.unwrap();
    let local = "local all all trust\n";
    let with = |certificate: &std::path::Path, key: &std::path::Path| {
        let url = server.url_for("app", "postgres");
        format!(
            "{url}&sslcert={}&sslkey={}",
            certificate.display(),
            key.display()
        )
    };
    for line in [
        "hostssl all all all trust clientcert=verify-full",
        "hostssl all all all cert",
    ] {
        server.admit(&format!("{local}{line}\n")).await;
        let without = server.url_for("app", "postgres");
        refused(&without, "wants a client certificate").await;
        PostgresBackend::connect(&with(&certificate, &key))
            .await
            .unwrap();
    }
    // Of an authority that the server does not know.
    let stranger = PostgresServer::options().tls().start().await;
    let (certificate, key) = stranger.client_certificate("app");
    refused(&with(&certificate, &key), "refused the client certificate").await;
    let (other, _) = server.client_certificate("postgres");
    refused(&with(&other, &key), "not that of the certificate").await;
}

/// As a machine that trusts an authority of its own.
#[tokio::test]
async fn the_authorities_of_the_machine_are_trusted_by_their_name_in_libpq() {
    let server = PostgresServer::options().tls().start().await;
    let authority = server.authority().unwrap();
    let url = format!(
        "postgres://app@{}/postgres?sslrootcert=system",
        server.address()
    );
    let mut trusting = Command::new(env!("CARGO_BIN_EXE_locker"));
    trusting.env("SSL_CERT_FILE", authority);
    let mut child = Child::start_by(trusting, &format!("postgres:2000:{url}")).await;
    assert_eq!(
        child.ask(&format!("acquire {} 0", order())).await,
        "granted"
    );
    refused(&url, "does not trust").await;
}
