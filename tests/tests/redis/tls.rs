//! Servers that speak TLS.

use std::fs;
use std::time::Duration;

use lock_core::redis::RedisBackend;
use lock_core::{LockProvider, LockSettings, ProviderKind};
use lock_tests::Log;
use lock_tests::servers::{RedisServer, Wiretap};
use redis::TlsCertificates;
use tracing::Level;

use crate::support::{LEASE, is_held, take};

#[tokio::test]
async fn locks_are_had_over_tls_from_a_server_that_is_trusted() {
    let server = RedisServer::tls().await;
    let trusted = TlsCertificates {
        client_tls: None,
        root_cert: Some(fs::read(server.authority().unwrap()).unwrap()),
    };
    let client = redis::Client::build_with_tls(server.url(), trusted).unwrap();
    let connect = async || {
        let backend = RedisBackend::builder_from_client(&client)
            .lease(LEASE)
            .quarantine(Duration::ZERO);
        LockProvider::new(backend.connect().await.unwrap())
    };
    let (here, there) = (connect().await, connect().await);
    let guard = take(&here).await;
    let waiting = tokio::spawn({
        let there = there.clone();
        async move { take(&there).await }
    });
    tokio::time::sleep(LEASE * 2).await;
    assert!(guard.is_valid() && is_held(&here).await);
    guard.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_refused_in_either_form() {
    let server = RedisServer::tls().await;
    for text in [server.url(), format!("{},ssl=true", server.address())] {
        let error = RedisBackend::connect(&text).await.unwrap_err();
        assert!(error.is_misconfigured(), "{error:?}");
        assert!(error.to_string().contains("trusted"), "{error}");
    }
}

#[tokio::test]
async fn tls_is_not_spoken_to_a_server_without_it_nor_the_reverse() {
    let (plain, tls) = (RedisServer::start().await, RedisServer::tls().await);
    let wrong = [
        format!("rediss://{}", plain.address()),
        format!("redis://{}", tls.address()),
    ];
    for url in wrong {
        // An error, and neither a panic nor a wait without an end.
        let error = RedisBackend::connect(&url).await.unwrap_err();
        assert!(
            error.is_misconfigured() || error.is_unavailable(),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_server_proves_who_it_is_before_it_is_given_the_password() {
    let server = RedisServer::tls().await;
    // At an address that is not in the certificate.
    let wiretap = Wiretap::to(server.address()).await;
    let url = format!("rediss://:hunter2@{}", wiretap.address());
    let authority = fs::read(server.authority().unwrap()).unwrap();
    for root_cert in [Some(authority), None] {
        let trusted = TlsCertificates {
            client_tls: None,
            root_cert,
        };
        let client = redis::Client::build_with_tls(&*url, trusted).unwrap();
        let connected = RedisBackend::builder_from_client(&client).connect().await;
        let error = connected.unwrap_err();
        assert!(error.is_misconfigured(), "{error:?}");
        assert!(error.to_string().contains("trusted"), "{error}");
    }
    assert!(!wiretap.heard().is_empty());
    // Alerts, of two.
    assert!(wiretap.encrypted() <= 64, "{wiretap:?}");
}

#[tokio::test]
async fn a_server_on_another_machine_that_proves_nothing_is_a_warning_once() {
    let (server, other, third) = tokio::join!(
        RedisServer::start(),
        RedisServer::start(),
        RedisServer::start()
    );
    // Another way to write the address, of which the name does not tell that it is of this machine.
    let elsewhere = |server: &RedisServer| server.url().replace("127.0.0.1", "127.1");
    let dir = tempfile::tempdir().unwrap();
    let (log, _listening) = Log::of_thread(Level::WARN);
    let count = || log.count("is not verified (without TLS)");

    RedisBackend::connect(&server.url()).await.unwrap();
    assert_eq!(count(), 0, "{}", log.text());
    for _ in 0..2 {
        RedisBackend::connect(&elsewhere(&server)).await.unwrap();
        assert_eq!(count(), 1, "{}", log.text());
    }
    let client = redis::Client::open(elsewhere(&other)).unwrap();
    RedisBackend::builder_from_client(&client)
        .connect()
        .await
        .unwrap();
    assert_eq!(count(), 2, "{}", log.text());
    let beside = LockSettings::new()
        .redis_url(elsewhere(&third))
        .provider(ProviderKind::File)
        .dir(dir.path().join("locks"));
    LockProvider::connect(beside).await.unwrap();
    assert_eq!(count(), 3, "{}", log.text());
    assert!(log.text().contains("rediss://"), "{}", log.text());
}
