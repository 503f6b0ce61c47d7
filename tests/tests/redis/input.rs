//! Connection strings, waits and lists that are wrong or extreme: each has a clear answer, and none
//! shows a password.

use std::error::Error;
use std::time::Duration;

use lock_core::redis::RedisBackend;
use lock_core::{LockErrorKind, LockName};
use lock_tests::servers::{Port, RedisServer, Server};
use lock_tests::{Lateness, Log, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::support::{BOUND, LEASE, NAME, PATIENCE, client, is_held, take, try_once, unhurried};

/// In every connection string here, and in nothing that is said about one.
const PASSWORD: &str = "hunter2";

use LockErrorKind::{Misconfigured, Unavailable};

/// Refused for this reason, in words that say so, and without the password.
async fn refused(connection_string: &str, kind: LockErrorKind, says: &str) {
    let builder = RedisBackend::builder(connection_string);
    assert!(!format!("{builder:?} {builder:#?}").contains(PASSWORD));
    let error = builder.connect().await.unwrap_err();
    assert_eq!(error.kind(), kind, "{connection_string}: {error:?}");
    let told = error.to_string();
    assert!(told.contains(says), "{connection_string}: {told}");
    let mut texts = vec![told, format!("{error:?} {error:#?}")];
    let mut source = error.source();
    while let Some(cause) = source {
        texts.push(format!("{cause} {cause:?} {cause:#?}"));
        source = cause.source();
    }
    for text in texts {
        assert!(!text.contains(PASSWORD), "{text}");
    }
}

/// Both forms of a connection string with a password.
fn forms(tls: bool, address: &str, user: &str) -> [String; 2] {
    let scheme = if tls { "rediss" } else { "redis" };
    let options = match user {
        "" => format!("{address},password={PASSWORD},ssl={tls}"),
        _ => format!("{address},user={user},password={PASSWORD},ssl={tls}"),
    };
    [format!("{scheme}://{user}:{PASSWORD}@{address}"), options]
}

/// Of a listener that says this to every connection and goes on listening, or closes it.
async fn listener(answer: &'static [u8], closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.write_all(answer).await;
            if !closes {
                open.push(connection);
            }
        }
    });
    address.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_is_told_without_the_password_in_either_form() {
    let log = Log::of_process();
    let own = ("requirepass", PASSWORD);
    let server = RedisServer::with(&[own]).await;
    let evicting = RedisServer::with(&[own, ("maxmemory-policy", "volatile-ttl")]).await;
    let replica = server.replica().await;
    let tls = RedisServer::tls().await;
    let other = RedisServer::with(&[("requirepass", "another")]).await;
    for user in ["app", "odd"] {
        let rights = [
            "ACL",
            "SETUSER",
            user,
            "on",
            &format!(">{PASSWORD}"),
            "~lock:*",
            "+@all",
        ];
        let () = server.ask(&rights).await.unwrap();
    }
    let () = server
        .ask(&["ACL", "SETUSER", "odd", "&*", "-info"])
        .await
        .unwrap();
    let address = |server: &RedisServer| server.address().to_string();
    let closed = Port::reserve();
    let closed = format!("127.0.0.1:{}", closed.number());
    let http = b"HTTP/1.1 400 Bad Request\r\n\r\n";
    let (speaks, quiet) = (listener(http, false).await, listener(b"", false).await);
    let hangs_up = listener(b"", true).await;
    for (tls, address, user, kind, says) in [
        (
            false,
            address(&other),
            "",
            Misconfigured,
            "refused the user or the password",
        ),
        (
            false,
            address(&server),
            "nobody",
            Misconfigured,
            "refused the user or the password",
        ),
        (
            false,
            address(&server),
            "app",
            Misconfigured,
            "does not let the user",
        ),
        (
            false,
            address(&server),
            "odd",
            Misconfigured,
            "does not let the user",
        ),
        (
            false,
            address(&evicting),
            "",
            Misconfigured,
            "`volatile-ttl`",
        ),
        (
            false,
            address(&replica),
            "",
            Misconfigured,
            "read-only replica",
        ),
        (
            false,
            "no-such-host.invalid".to_owned(),
            "",
            Unavailable,
            "cannot be connected to",
        ),
        (false, closed, "", Unavailable, "cannot be connected to"),
        (
            false,
            speaks,
            "",
            Misconfigured,
            "does not speak the protocol",
        ),
        (false, hangs_up, "", Unavailable, "hangs up"),
        (false, quiet, "", Unavailable, "did not answer"),
        (true, address(&tls), "", Misconfigured, "is not trusted"),
        (true, address(&server), "", Unavailable, "does it speak TLS"),
        (false, address(&tls), "", Unavailable, "does it want TLS"),
    ] {
        for connection_string in forms(tls, &address, user) {
            refused(&connection_string, kind, says).await;
        }
    }
    let (address, path) = (address(&server), "/nowhere/socket");
    for (connection_string, kind, says) in [
        (
            format!("redis://:{PASSWORD}@{address}/99"),
            Misconfigured,
            "refused the database",
        ),
        (
            format!("{address},password={PASSWORD},defaultDatabase=99"),
            Misconfigured,
            "refused the database",
        ),
        (
            format!("redis://:{PASSWORD}@{address}/one"),
            Misconfigured,
            "its database, which stands after the host, is no number",
        ),
        (
            format!("{address},password={PASSWORD},defaultDatabase=one"),
            Misconfigured,
            "`defaultDatabase`",
        ),
        (
            format!("redis://:{PASSWORD}@{address}?ssl=true"),
            Misconfigured,
            "write rediss://",
        ),
        (
            format!("{address},password={PASSWORD},{PASSWORD}=x"),
            Misconfigured,
            "unknown option (number 2)",
        ),
        (
            format!("{address},password={PASSWORD},keyPrefix={PASSWORD}"),
            Misconfigured,
            "`keyPrefix`",
        ),
        (
            format!("{address},password=x,{PASSWORD}"),
            Misconfigured,
            "form of a URL",
        ),
        (
            format!("{address},password={PASSWORD},ssl=maybe"),
            Misconfigured,
            "`ssl`",
        ),
        (
            format!("http://:{PASSWORD}@{address}"),
            Misconfigured,
            "scheme is `http`",
        ),
        (
            format!("redis://:{PASSWORD}@{address}#insecure"),
            Misconfigured,
            "`#insecure`",
        ),
        (
            format!("redis://:{PASSWORD}/b@{address}"),
            Misconfigured,
            "percent-encoded",
        ),
        (
            format!("redis://:{PASSWORD}@host:port"),
            Misconfigured,
            "not a URL",
        ),
        (
            format!("host:port,password={PASSWORD}"),
            Misconfigured,
            "port",
        ),
        (
            format!("{PASSWORD}@{address}"),
            Misconfigured,
            "no name or address",
        ),
        (
            format!("password={PASSWORD}"),
            Misconfigured,
            "names no host",
        ),
        (
            format!("unix://{path}?pass={PASSWORD}"),
            Unavailable,
            "cannot be connected to",
        ),
        (
            format!("unix://{path}?pass={PASSWORD}&password={PASSWORD}2"),
            Misconfigured,
            "`password` says is there twice",
        ),
    ] {
        refused(&connection_string, kind, says).await;
    }
    assert!(!log.text().contains(PASSWORD), "{}", log.text());
}

#[tokio::test]
async fn options_that_change_nothing_are_named_in_one_line_of_the_log_without_their_values() {
    let server = RedisServer::with(&[("requirepass", PASSWORD)]).await;
    let address = server.address();
    let (log, _listening) = Log::of_thread(tracing::Level::INFO);
    for (text, names) in [
        (
            format!("redis://:{PASSWORD}@{address}?family=0&ssl_cert_reqs=required&timeout=s3cret"),
            "family, ssl_cert_reqs, timeout",
        ),
        (
            format!(
                "{address},password={PASSWORD},syncTimeout=s3cret,connectRetry=3,abortConnect=False"
            ),
            "syncTimeout, connectRetry, abortConnect",
        ),
    ] {
        RedisBackend::connect(&text).await.unwrap();
        let line = format!("change nothing for locks: {names}");
        assert_eq!(log.count(&line), 1, "{}", log.text());
    }
    let text = log.text();
    assert!(
        !text.contains(PASSWORD) && !text.contains("s3cret"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_logged_at_work_shows_the_password() {
    let log = Log::of_process();
    let server = RedisServer::with(&[("requirepass", PASSWORD)]).await;
    let [url, options] = forms(false, &server.address().to_string(), "");
    let (here, there) = (client(&url).await, client(&options).await);
    let guard = take(&here).await;
    let waiting = tokio::spawn({
        let there = there.clone();
        async move { take(&there).await }
    });
    for kind in ["normal", "pubsub"] {
        let kill = ["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"];
        let _: u32 = server.ask(&kill).await.unwrap();
    }
    sleep(LEASE).await;
    server.kill().await;
    guard.lost().await;
    assert!(guard.release().await.unwrap_err().is_lost());
    let error = try_once(&here).await.unwrap_err();
    let health = here.health().await;
    eventually("it is told", async || {
        log.text().contains("cannot connect to the Redis server")
    })
    .await;
    server.restart().await;
    let () = server
        .ask(&["ACL", "SETUSER", "default", "-evalsha"])
        .await
        .unwrap();
    let refused = try_once(&here).await.unwrap_err();
    let () = server
        .ask(&["ACL", "SETUSER", "default", "+evalsha"])
        .await
        .unwrap();
    drop(waiting.await.unwrap());
    let told = format!(
        "{error:?} {health:?} {refused:?} {here:?} {there:?} {}",
        log.text()
    );
    assert!(!told.contains(PASSWORD), "{told}");
}

#[tokio::test]
async fn the_shortest_and_the_longest_waits_behave() {
    let server = RedisServer::start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    for wait in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let guard = here.lock(NAME).unwrap().acquire(wait).await.unwrap();
        guard.release().await.unwrap();
    }
    let guard = take(&here).await;
    for wait in [Duration::ZERO, Duration::from_nanos(1)] {
        for client in [&here, &there] {
            let late = Lateness::of(wait);
            let tried = client.lock(NAME).unwrap().try_acquire(wait).await;
            late.at_most(BOUND).await;
            assert!(tried.unwrap().is_none());
        }
    }
    let lock = there.lock(NAME).unwrap();
    let waiting = tokio::spawn(async move { lock.acquire(Duration::MAX).await });
    sleep(LEASE).await;
    assert!(!waiting.is_finished());
    guard.release().await.unwrap();
    drop(waiting.await.unwrap().unwrap());
}

#[tokio::test]
async fn lists_of_no_names_and_of_ten_thousand_behave() {
    let server = RedisServer::start().await;
    let (here, there) = (
        unhurried(&server.url()).await,
        unhurried(&server.url()).await,
    );
    let none: [LockName; 0] = [];
    let nothing = here.acquire_all(none.clone(), Duration::ZERO).await;
    assert!(nothing.unwrap_err().is_invalid_name());
    assert!(here.claim(none, 10).await.unwrap().is_empty());
    assert!(here.claim([NAME], 0).await.unwrap().is_empty());
    assert!(!is_held(&there).await);
    let names: Vec<_> = (0..10_000)
        .map(|id| LockName::new("order", "process", id).unwrap())
        .collect();
    let all = here.acquire_all(names.clone(), PATIENCE).await.unwrap();
    assert!(all.is_valid());
    assert!(there.claim(names.clone(), 10_000).await.unwrap().is_empty());
    all.release().await.unwrap();
    assert_eq!(there.claim(names, 10_000).await.unwrap().len(), 10_000);
}
