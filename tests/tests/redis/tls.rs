//! Servers that speak TLS.

use std::fs;
use std::time::Duration;

use lock_core::LockProvider;
use lock_core::redis::RedisBackend;
use lock_tests::servers::RedisServer;
use redis::TlsCertificates;

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
