//! What is refused when it connects, each with its reason.

use std::time::{Duration, Instant};

use lock_core::LockError;
use lock_core::redis::RedisBackend;
use lock_tests::servers::{Port, RedisServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::support::{LEASE, client, take};

/// Everything that an error would show anywhere.
fn text(error: &LockError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}

async fn refused(url: &str) -> LockError {
    RedisBackend::connect(url).await.expect_err("it is refused")
}

#[tokio::test]
async fn a_server_that_evicts_keys_is_refused_unless_allowed() {
    let server = RedisServer::with(&[("maxmemory-policy", "allkeys-lru")]).await;
    let error = refused(&server.url()).await;
    assert!(error.is_misconfigured() && text(&error).contains("allkeys-lru"));
    let allowed = RedisBackend::builder(&server.url()).allow_eviction(true);
    allowed.connect().await.unwrap();
}

#[tokio::test]
async fn a_replica_is_refused() {
    let server = RedisServer::start().await;
    let replica = server.replica().await;
    let error = refused(&replica.url()).await;
    assert!(error.is_misconfigured() && text(&error).contains("replica"));
}

#[tokio::test]
async fn a_server_that_takes_no_more_clients_is_unavailable_and_says_so() {
    let server = RedisServer::start().await;
    let mut other = TcpStream::connect(server.address()).await.unwrap();
    other.write_all(b"PING\r\n").await.unwrap();
    other.read_exact(&mut [0; 7]).await.unwrap();
    let () = server
        .ask(&["CONFIG", "SET", "maxclients", "1"])
        .await
        .unwrap();
    let error = refused(&server.url()).await;
    assert!(
        error.is_unavailable() && error.to_string().contains("`maxclients`"),
        "{}",
        text(&error)
    );
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let server = RedisServer::with(&[("requirepass", "hunter2")]).await;
    RedisBackend::connect(&server.url_for(":hunter2"))
        .await
        .unwrap();
    let address = server.address();
    let right = format!("{address},password=hunter2");
    RedisBackend::connect(&right).await.unwrap();
    let error = refused(&server.url()).await;
    assert!(
        error.is_misconfigured() && text(&error).contains("wants a password"),
        "{error}"
    );
    for url in [
        server.url_for(":hunter3"),
        server.url_for("app:hunter3"),
        format!("{address},password=hunter3"),
    ] {
        let error = refused(&url).await;
        assert!(error.is_misconfigured(), "{}", text(&error));
        assert!(text(&error).contains("password"), "{}", text(&error));
        assert!(!text(&error).contains("hunter"), "{}", text(&error));
    }
}

#[tokio::test]
async fn a_user_without_the_rights_is_refused() {
    let server = RedisServer::start().await;
    let () = server
        .ask(&["ACL", "SETUSER", "app", "on", ">secret", "~lock:*", "+@all"])
        .await
        .unwrap();
    let error = refused(&server.url_for("app:secret")).await;
    assert!(
        error.is_misconfigured() && text(&error).contains("channels"),
        "{}",
        text(&error)
    );
    let () = server
        .ask(&["ACL", "SETUSER", "app", "&lock:*"])
        .await
        .unwrap();
    RedisBackend::connect(&server.url_for("app:secret"))
        .await
        .unwrap();
}

/// What the refusal tells to give.
const RIGHTS: [&str; 9] = [
    "~lock:*",
    "&lock:*",
    "+@read",
    "+@write",
    "+@scripting",
    "+@pubsub",
    "+@connection",
    "+info",
    "+time",
];

#[tokio::test]
async fn a_user_who_may_not_do_one_of_the_steps_of_a_lock_is_refused_and_told_what_is_enough() {
    let server = RedisServer::start().await;
    let url = server.url_for("app:secret");
    let set_user = async |rights: &[&str]| {
        let command = [&["ACL", "SETUSER", "app", "reset", "on", ">secret"], rights].concat();
        server.ask::<()>(&command).await.unwrap();
    };
    for step in [
        "info",
        "time",
        "getrange",
        "set",
        "del",
        "pttl",
        "pexpire",
        "publish",
        "subscribe",
        "unsubscribe",
        "evalsha",
        "script|load",
    ] {
        set_user(&["~lock:*", "&lock:*", "+@all", &format!("-{step}")]).await;
        // Also where others have taught the server its scripts.
        let error = refused(&url).await;
        assert!(error.is_misconfigured(), "{step}: {}", text(&error));
        assert!(RIGHTS.iter().all(|right| error.to_string().contains(right)));
    }
    set_user(&RIGHTS).await;
    let (here, there) = (client(&url).await, client(&url).await);
    let guard = take(&here).await;
    let waiting = tokio::spawn(async move { take(&there).await });
    sleep(LEASE).await;
    assert!(guard.is_valid() && here.health().await.error().is_none());
    guard.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    // And those for replicas.
    set_user(&["~lock:*", "&lock:*", "+@all", "-wait"]).await;
    let builder = RedisBackend::builder(&url).replicas(1);
    assert!(builder.connect().await.unwrap_err().is_misconfigured());
}

#[tokio::test]
async fn a_server_that_repeats_what_it_does_not_understand_shows_no_password() {
    let long = "hunter2".repeat(30);
    for password in ["hunter2", &long] {
        let server =
            RedisServer::with(&[("requirepass", password), ("rename-command", "HELLO \"\"")]).await;
        let address = server.address();
        for url in [
            server.url_for(&format!(":{password}")),
            server.url_for(&format!("app:{password}")),
            format!("{address},password={password}"),
        ] {
            let error = refused(&url).await;
            assert!(error.is_misconfigured(), "{}", text(&error));
            assert!(error.to_string().contains("`HELLO`"), "{error}");
            assert!(!text(&error).contains("hunt"), "{}", text(&error));
        }
    }
}

#[tokio::test]
async fn a_port_that_speaks_another_protocol_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
        }
    });
    let error = refused(&format!("redis://{address}")).await;
    assert!(error.is_misconfigured(), "{}", text(&error));
    assert!(text(&error).contains("protocol"));
    server.abort();
}

#[tokio::test]
async fn a_server_that_is_not_there_or_silent_is_unavailable_in_time() {
    let port = Port::reserve();
    let error = refused(&format!("redis://127.0.0.1:{}", port.number())).await;
    assert!(error.is_unavailable(), "{}", text(&error));
    // Connected to, and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let asked = Instant::now();
    let error = refused(&format!("{address},connectTimeout=300")).await;
    assert!(error.is_unavailable(), "{}", text(&error));
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_lease_out_of_bounds_is_refused() {
    for lease in [Duration::ZERO, Duration::from_millis(499), Duration::MAX] {
        let builder = RedisBackend::builder("redis://127.0.0.1").lease(lease);
        let error = builder.connect().await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
    }
}

#[tokio::test]
async fn a_client_that_there_is_can_be_used() {
    let server = RedisServer::start().await;
    let client = ::redis::Client::open(server.url()).unwrap();
    RedisBackend::from_client(&client).await.unwrap();
}
