//! Connection strings that are wrong, and what they lead to that is no server: each has a clear answer.

use std::error::Error;
use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_core::{LockError, LockErrorKind};
use lock_tests::servers::{Port, PostgresServer};
use lock_tests::{Lateness, Log};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::BOUND;

use LockErrorKind::{Misconfigured, Unavailable};

/// In every connection string here, and in nothing that is said about one.
const PASSWORD: &str = "hunter2";

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_connection_string_is_told_without_its_password() {
    let log = Log::of_process();
    let server = PostgresServer::start().await;
    let (address, ip) = (server.address(), server.address().ip());
    let closed = Port::reserve();
    let right = server.url_for("secretive:secret", "postgres");
    PostgresBackend::connect(&right).await.unwrap();
    for (url, kind, says) in [
        (
            format!("postgres://secretive:{PASSWORD}@{address}/postgres"),
            Misconfigured,
            "refused the user or its password",
        ),
        (
            format!("postgres://nobody:{PASSWORD}@{address}/postgres"),
            Misconfigured,
            "no role nobody that may log in",
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
            "sslmode",
        ),
        (
            format!("postgres://postgres:{PASSWORD}@{address}/postgres?ssl=true"),
            Misconfigured,
            "option `ssl`",
        ),
        (
            format!("postgres://postgres:{PASSWORD}@{address}/postgres?pool_size=5"),
            Misconfigured,
            "unknown option (number 1)",
        ),
        (
            format!("postgres://postgres:{PASSWORD}@{address}/postgres?options[no_such]=1"),
            Misconfigured,
            "`options` of the connection string",
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

/// As libpq and the clouds that give a directory for the socket write it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_a_host_reaches_the_socket_of_the_options() {
    let server = PostgresServer::start().await;
    let (socket, port) = (server.socket_directory().display(), server.port());
    for url in [
        format!("postgres://app:{PASSWORD}@/postgres?host={socket}&port={port}"),
        format!("postgres://app@:{port}/postgres?host={socket}"),
    ] {
        PostgresBackend::connect(&url).await.unwrap();
    }
}

/// Of which the first can be the standby.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_hosts_are_refused_as_such_in_each_form() {
    for rest in [
        "db1:5432,db2:5433/shop",
        "db1,db2/shop?target_session_attrs=read-write",
        "/shop?host=db1,db2",
        "db1/shop?port=5432,5433",
    ] {
        let url = format!("postgres://app:{PASSWORD}@{rest}");
        refused(&url, Misconfigured, "names several hosts").await;
    }
}

/// The server says the same in both cases: there is no line for a client without encryption.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lets_in_nobody_without_tls_or_from_here_says_so() {
    let server = PostgresServer::start().await;
    let hba = server.socket_directory().join("pg_hba.conf");
    let url = format!(
        "postgres://postgres:{PASSWORD}@{}/postgres",
        server.address()
    );
    for lines in [
        // Those who come with TLS, which this server does not even have.
        "local all all trust\nhostssl all all all trust\n",
        // Others, from here; all, from elsewhere.
        "local all all trust\nhost all app all trust\nhost all all 192.0.2.0/24 trust\n",
        "local all all trust\nhost all postgres all reject\n",
    ] {
        std::fs::write(&hba, lines).unwrap();
        server.set("log_min_messages", "warning").await.unwrap();
        let error = refused(&url, Misconfigured, "without TLS").await;
        assert!(error.to_string().contains("pg_hba.conf"), "{error}");
    }
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
    let log = Log::of_process();
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
