//! Connection strings, waits and lists that are wrong or extreme: each has a clear answer.

use std::error::Error;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_core::{LockError, LockErrorKind, LockName};
use lock_tests::servers::{Port, PostgresServer};
use lock_tests::{Lateness, PostgresStore, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::support::{BOUND, PATIENCE, acquire, is_held, name, numbered, take};

/// In every connection string here, and in nothing that is said about one.
const PASSWORD: &str = "hunter2";

/// What was logged, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Of this process, which is that of one test.
    fn start() -> Self {
        let log = Self::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_writer(move || writer.clone())
            .init();
        log
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Refused for this reason, in one sentence that says so, and without the password.
async fn refused(url: &str, kind: LockErrorKind, says: &str) -> LockError {
    let error = PostgresBackend::connect(url).await.unwrap_err();
    let told = error.to_string();
    assert_eq!(error.kind(), kind, "{url}: {error:?}");
    assert!(told.contains(says), "{url}: {told}");
    assert!(
        !told.contains('\n') && !told.contains(". "),
        "one sentence: {told}"
    );
    let mut texts = vec![told, format!("{error:?} {error:#?}")];
    let mut source = error.source();
    while let Some(cause) = source {
        texts.push(format!("{cause} {cause:?}"));
        source = cause.source();
    }
    for text in texts {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    error
}

use LockErrorKind::{Misconfigured, Unavailable};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_connection_string_is_told_without_its_password() {
    let log = Log::start();
    let server = PostgresServer::start().await;
    let (address, ip) = (server.address(), server.address().ip());
    let closed = Port::reserve();
    for (url, kind, says) in [
        (
            format!("postgres://secretive:{PASSWORD}@{address}/postgres"),
            Misconfigured,
            "refused the user or its password",
        ),
        (
            format!("postgres://nobody:{PASSWORD}@{address}/postgres"),
            Misconfigured,
            "refused the user or its password",
        ),
        (
            format!("postgres://postgres:{PASSWORD}@{address}/nothing"),
            Misconfigured,
            "database does not exist",
        ),
        (
            format!("postgres://postgres:{PASSWORD}@no-such-host.invalid/postgres"),
            Unavailable,
            "check host, port and network",
        ),
        (
            format!(
                "postgres://postgres:{PASSWORD}@{ip}:{}/postgres",
                closed.number()
            ),
            Unavailable,
            "nothing listens",
        ),
        (
            format!("postgres://postgres:{PASSWORD}@{address}/postgres?sslmode=require"),
            Misconfigured,
            "TLS",
        ),
        (
            format!("postgres://postgres:{PASSWORD}@{address}/postgres?ssl=true"),
            Misconfigured,
            "unknown option `ssl`",
        ),
        (
            format!("postgres://postgres:{PASSWORD}@{address}/postgres?connect_timeout=5"),
            Misconfigured,
            "unknown option `connect_timeout`",
        ),
        (
            format!("postgres://postgres:{PASSWORD}@{address}/postgres?options[no_such]=1"),
            Unavailable,
            "PostgreSQL refused the connection",
        ),
        (
            format!("host={ip} user=postgres password={PASSWORD}"),
            Misconfigured,
            "postgres://user:password@host",
        ),
    ] {
        refused(&url, kind, says).await;
    }
    assert!(!log.text().contains(PASSWORD), "{}", log.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_demands_encryption_says_so() {
    let server = PostgresServer::start().await;
    let hba = server.socket_directory().join("pg_hba.conf");
    std::fs::write(hba, "local all all trust\nhostssl all all all trust\n").unwrap();
    server.set("log_min_messages", "warning").await.unwrap();
    let url = format!(
        "postgres://postgres:{PASSWORD}@{}/postgres",
        server.address()
    );
    refused(&url, Misconfigured, "without TLS").await;
}

/// A listener that does this with every connection after the first bytes have come.
async fn listener(answer: &'static [u8], and_closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 1024]).await;
            let _ = connection.write_all(answer).await;
            if !and_closes {
                open.push(connection);
            }
        }
    });
    format!("postgres://postgres:{PASSWORD}@{address}/postgres")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_speak_the_protocol_is_told_from_a_server() {
    let log = Log::start();
    let http = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    let redis = b"-ERR unknown command\r\n";
    for (answer, closes) in [
        (&http[..], true),
        (&http[..], false),
        (&redis[..], true),
        (&redis[..], false),
        (b"SSH-2.0-OpenSSH_9.2\r\n", false),
        (b"", true),
    ] {
        let url = listener(answer, closes).await;
        let error = PostgresBackend::connect(&url).await.unwrap_err();
        let kind = error.kind();
        assert!(matches!(kind, Misconfigured | Unavailable), "{error:?}");
        let told = error.to_string();
        assert!(
            ["PostgreSQL", "host"]
                .iter()
                .any(|word| told.contains(word)),
            "it says what to look at: {told}"
        );
    }
    let in_time = Lateness::of(Duration::from_secs(5));
    refused(&listener(b"", false).await, Unavailable, "did not answer").await;
    in_time.at_most(BOUND).await;
    assert!(!log.text().contains(PASSWORD), "{}", log.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shortest_and_the_longest_waits_behave() {
    let store = PostgresStore::open().await;
    let (client, other) = (store.client().await, store.client().await);
    for wait in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        acquire(&client, name(), wait)
            .await
            .release()
            .await
            .unwrap();
    }
    let guard = take(&client, name()).await;
    for wait in [Duration::ZERO, Duration::from_nanos(1)] {
        for client in [&client, &other] {
            let late = Lateness::of(wait);
            let tried = client.lock(name()).unwrap().try_acquire(wait).await;
            late.at_most(BOUND).await;
            assert!(tried.unwrap().is_none());
        }
    }
    let lock = other.lock(name()).unwrap();
    let waits = tokio::spawn(async move { lock.acquire(Duration::MAX).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waits.is_finished());
    guard.release().await.unwrap();
    drop(waits.await.unwrap().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_no_names_and_of_ten_thousand_behave() {
    let store = PostgresStore::open().await;
    let (client, other) = (store.client().await, store.client().await);
    let none: [LockName; 0] = [];
    let nothing = client.acquire_all(none.clone(), Duration::ZERO).await;
    assert!(nothing.unwrap_err().is_invalid_name());
    assert!(client.claim(none, 10).await.unwrap().is_empty());
    assert!(client.claim([name()], 0).await.unwrap().is_empty());
    assert!(!is_held(&other, name()).await);

    let names: Vec<LockName> = (0..10_000).map(numbered).collect();
    let all = client.acquire_all(names.clone(), PATIENCE).await.unwrap();
    assert!(all.is_valid());
    assert!(other.claim(names.clone(), 10_000).await.unwrap().is_empty());
    all.release().await.unwrap();
    let claimed = other.claim(names, 10_000).await.unwrap();
    assert_eq!(claimed.len(), 10_000);
}
