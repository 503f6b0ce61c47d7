//! Servers that speak TLS.

use std::fs;
use std::time::Duration;

use lock_core::redis::RedisBackend;
use lock_core::{LockProvider, LockSettings, ProviderKind};
use lock_tests::Log;
use lock_tests::servers::{RedisCluster, RedisServer, Server, Wiretap};
use redis::TlsCertificates;
use tracing::Level;

use crate::support::{LEASE, PATIENCE, client, is_held, take, try_once};

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

/// Why the server at this connection string is refused.
async fn refused(text: &str) -> String {
    let error = RedisBackend::connect(text).await.unwrap_err();
    assert!(error.is_misconfigured(), "{text}: {error:?}");
    error.to_string()
}

#[tokio::test]
async fn each_cause_of_a_failed_handshake_has_its_own_words() {
    let (good, named, expired, strict, old, plain) = tokio::join!(
        RedisServer::tls(),
        RedisServer::options().named_localhost().start(),
        RedisServer::options().expired().start(),
        RedisServer::options().certificates_of_clients().start(),
        RedisServer::options()
            .certificates_of_clients()
            .setting("tls-protocols", "TLSv1.2")
            .start(),
        RedisServer::start(),
    );
    let trusting = |server: &RedisServer| {
        let authority = server.authority().unwrap().display();
        format!("{}?ssl_ca_certs={authority}", server.url())
    };
    let (certificate, key) = good.certificate().unwrap();
    let of_another = format!(
        "{}&ssl_certfile={}&ssl_keyfile={}",
        trusting(&strict),
        certificate.display(),
        key.display()
    );
    let own_key = strict.certificate().unwrap().1.display();
    let mixed = format!(
        "{}&ssl_certfile={}&ssl_keyfile={own_key}",
        trusting(&strict),
        certificate.display(),
    );
    for (text, says) in [
        (good.url(), "authority is not known here"),
        (trusting(&named), "for another name"),
        (trusting(&expired), "has expired"),
        (trusting(&strict), "wants a certificate of its clients"),
        (trusting(&old), "wants a certificate of its clients"),
        (of_another, "does not take the certificate of this client"),
        (mixed, "do not belong together"),
    ] {
        let said = refused(&text).await;
        assert!(said.contains(says), "{says}: {said}");
        assert!(!said.contains("start it"), "{said}");
    }
    // It waits for the end of a command, and says nothing.
    let url = format!("rediss://{}", plain.address());
    let error = RedisBackend::connect(&url).await.unwrap_err();
    assert!(error.to_string().contains("does it speak TLS"), "{error}");
}

#[tokio::test]
async fn a_private_authority_and_a_certificate_of_the_client_are_files_in_either_form() {
    let server = RedisServer::options()
        .certificates_of_clients()
        .start()
        .await;
    let authority = server.authority().unwrap();
    let (certificate, key) = server.certificate().unwrap();
    let files = [
        ("ssl_ca_certs", authority),
        ("ssl_certfile", certificate),
        ("ssl_keyfile", key),
    ];
    let files = files.map(|(option, file)| format!("{option}={}", file.display()));
    for text in [
        format!("{}?{}", server.url(), files.join("&")),
        format!("{},ssl=true,{}", server.address(), files.join(",")),
    ] {
        let here = client(&text).await;
        take(&here).await.release().await.unwrap();
    }
    let by_hand = RedisBackend::builder(&server.url())
        .ca_file(authority)
        .client_certificate(certificate, key);
    by_hand.connect().await.unwrap();
    let plain = RedisBackend::builder("redis://127.0.0.1").ca_file(authority);
    let error = plain.connect().await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    assert!(error.to_string().contains("rediss://"), "{error}");
}

#[tokio::test]
async fn the_files_are_read_at_each_connect() {
    let server = RedisServer::options()
        .certificates_of_clients()
        .start()
        .await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("client.pem");
    let (certificate, key) = server.certificate().unwrap();
    let both = [fs::read(certificate).unwrap(), fs::read(key).unwrap()].concat();
    fs::write(&file, &both).unwrap();
    let text = format!(
        "{},ssl=true,ssl_ca_certs={},ssl_certfile={}",
        server.address(),
        server.authority().unwrap().display(),
        file.display()
    );
    let here = client(&text).await;
    fs::remove_file(&file).unwrap();
    server.restart().await;
    let error = try_once(&here).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("`ssl_certfile`"), "{error}");
    // As one that was renewed.
    fs::write(&file, &both).unwrap();
    take(&here).await.release().await.unwrap();
}

#[tokio::test]
async fn the_name_in_the_certificate_can_be_given() {
    let server = RedisServer::options().named_localhost().start().await;
    let authority = server.authority().unwrap().display();
    let text = |name: &str| format!("{}?ssl_ca_certs={authority}&sslHost={name}", server.url());
    let here = client(&text("localhost")).await;
    take(&here).await.release().await.unwrap();
    let said = refused(&text("elsewhere.example")).await;
    assert!(said.contains("for another name"), "{said}");
}

#[tokio::test]
async fn a_cluster_that_names_its_nodes_by_address_has_a_certificate_for_the_name_of_the_seed() {
    let cluster = RedisCluster::of(RedisServer::options().named_localhost()).await;
    let seed = &cluster.nodes()[0];
    let authority = seed.authority().unwrap();
    let connect = async |host: &str| {
        let backend = RedisBackend::builder(&format!("rediss://{host}:{}", seed.port()))
            .ca_file(authority)
            .quarantine(Duration::ZERO);
        backend.connect().await.map(LockProvider::new)
    };
    let here = connect("localhost").await.unwrap();
    // Of all nodes.
    for id in 0..30 {
        let lock = here.lock(format!("order:process:{id}")).unwrap();
        let guard = lock.acquire(PATIENCE).await.unwrap();
        guard.release().await.unwrap();
    }
    // What is named by nothing else is not trusted.
    let error = connect("127.0.0.1").await.unwrap_err();
    assert!(error.to_string().contains("for another name"), "{error}");
}

#[tokio::test]
async fn a_server_proves_who_it_is_before_it_is_given_the_password() {
    let server = RedisServer::tls().await;
    // At an address that is not in the certificate.
    let wiretap = Wiretap::to(server.address()).await;
    let url = format!("rediss://:hunter2@{}", wiretap.address());
    let authority = fs::read(server.authority().unwrap()).unwrap();
    for (root_cert, says) in [(Some(authority), "another name"), (None, "not known here")] {
        let trusted = TlsCertificates {
            client_tls: None,
            root_cert,
        };
        let client = redis::Client::build_with_tls(&*url, trusted).unwrap();
        let connected = RedisBackend::builder_from_client(&client).connect().await;
        let error = connected.unwrap_err();
        assert!(error.is_misconfigured(), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
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
