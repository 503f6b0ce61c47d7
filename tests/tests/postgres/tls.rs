//! A server that speaks TLS.

use lock_core::postgres::PostgresBackend;
use lock_core::{LockProvider, LockSettings, ProviderKind};
use lock_tests::servers::{PostgresServer, RedisServer, Wiretap};
use lock_tests::{Log, is_held};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tracing::Level;

use crate::support::{client, order, take};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_are_had_over_tls_from_a_server_that_is_trusted() {
    let server = PostgresServer::options().tls().start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&here, order()).await;
    assert!(is_held(&there, order()).await);
    guard.release().await.unwrap();
    let pool = server.pool().await;
    let encrypted = sqlx::query_scalar::<_, bool>(
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE application_name ~ '^distributed_lock( |$)'",
    );
    assert!(encrypted.fetch_one(&pool).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_nobody_vouches_for_or_to_whom_plain_text_is_spoken_is_refused() {
    let server = PostgresServer::options().tls().start().await;
    let plain = format!("postgres://postgres@{}/postgres", server.address());
    for (url, says) in [
        (
            format!("{plain}?sslmode=verify-full"),
            "an authority that this process does not trust",
        ),
        (format!("{plain}?sslmode=disable"), "without TLS"),
    ] {
        let error = PostgresBackend::connect(&url).await.unwrap_err();
        assert!(error.is_misconfigured(), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// How much a client says under TLS that breaks the handshake off: an alert, and no password.
const ALERT: usize = 32;

#[tokio::test]
async fn a_server_proves_who_it_is_before_it_is_given_the_password() {
    let (server, stranger) = tokio::join!(
        PostgresServer::options().tls().start(),
        // Its authority vouches for nothing here.
        RedisServer::tls()
    );
    let (known, unknown) = (server.authority().unwrap(), stranger.authority().unwrap());
    for (mode, authority, refused) in [
        ("verify-full", known, Some("is for another name")),
        ("verify-full", unknown, Some("does not trust")),
        ("verify-ca", unknown, Some("does not trust")),
        // The name is not looked at.
        ("verify-ca", known, None),
        // Nothing is.
        ("require", unknown, None),
    ] {
        // At an address that is not in the certificate.
        let wiretap = Wiretap::to(server.address()).await;
        let url = format!(
            "postgres://secretive:secret@{}/postgres?sslmode={mode}&sslrootcert={}",
            wiretap.address(),
            authority.display()
        );
        let connected = PostgresBackend::connect(&url).await;
        match connected.err() {
            None => assert!(refused.is_none(), "{url}"),
            Some(error) => {
                assert!(error.is_misconfigured(), "{url}: {error:?}");
                assert!(error.to_string().contains(refused.unwrap()), "{error}");
                assert!(!wiretap.heard().is_empty(), "{url}");
                assert!(wiretap.encrypted() <= ALERT, "{url}: {wiretap:?}");
            }
        }
    }
    // By the name in the certificate it is taken.
    let url = server.url_for("secretive:secret", "postgres");
    PostgresBackend::connect(&url.replace("127.0.0.1", "localhost"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_that_takes_tls_back_hears_nothing_more_where_tls_is_demanded() {
    for mode in ["require", "verify-ca", "verify-full"] {
        let wiretap = Wiretap::downgrading().await;
        let url = format!(
            "postgres://secretive:secret@{}/postgres?sslmode={mode}",
            wiretap.address()
        );
        let error = PostgresBackend::connect(&url).await.unwrap_err();
        assert!(error.is_misconfigured(), "{error:?}");
        assert!(error.to_string().contains("has no TLS"), "{error}");
        assert_eq!(wiretap.heard(), b"", "{mode}");
    }
    // The driver's default goes on without.
    let wiretap = Wiretap::downgrading().await;
    let url = format!("postgres://secretive:secret@{}/postgres", wiretap.address());
    assert!(PostgresBackend::connect(&url).await.is_err());
    assert!(wiretap.heard().windows(9).any(|part| part == b"secretive"));
}

#[tokio::test]
async fn a_server_on_another_machine_that_proves_nothing_is_a_warning_once() {
    let servers = tokio::join!(
        PostgresServer::start(),
        PostgresServer::start(),
        PostgresServer::start()
    );
    // Another way to write the address, of which the name does not tell that it is of this machine.
    let elsewhere = |server: &PostgresServer| server.url().replace("127.0.0.1", "127.1");
    let dir = tempfile::tempdir().unwrap();
    let (log, _listening) = Log::of_thread(Level::WARN);
    let count = || log.count("is not verified (sslmode=prefer)");

    PostgresBackend::connect(&servers.0.url()).await.unwrap();
    assert_eq!(count(), 0, "{}", log.text());
    for _ in 0..2 {
        PostgresBackend::connect(&elsewhere(&servers.0))
            .await
            .unwrap();
        assert_eq!(count(), 1, "{}", log.text());
    }
    let pool: PgPool = PgPoolOptions::new()
        .connect(&elsewhere(&servers.1))
        .await
        .unwrap();
    PostgresBackend::from_pool(&pool).await.unwrap();
    assert_eq!(count(), 2, "{}", log.text());
    let beside = LockSettings::new()
        .database_url(elsewhere(&servers.2))
        .provider(ProviderKind::File)
        .dir(dir.path().join("locks"));
    LockProvider::connect(beside).await.unwrap();
    assert_eq!(count(), 3, "{}", log.text());
    assert!(log.text().contains("sslmode=verify-full"), "{}", log.text());
}
