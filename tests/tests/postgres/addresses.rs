//! Names of a server with several addresses, some of which keep silent.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_tests::Lateness;
use lock_tests::child::Child;
use lock_tests::servers::{Port, PostgresServer};
use sqlx::Executor;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{BOUND, LEASE};

/// An address at which connections are neither made nor refused: what the kernel would keep for this
/// listener is full, and it drops the rest.
struct Silent {
    _listener: TcpListener,
    _kept: Vec<TcpStream>,
}

impl Silent {
    async fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(0).unwrap();
        let mut kept = Vec::new();
        while let Ok(connected) =
            timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            kept.push(connected.unwrap());
        }
        Self {
            _listener: listener,
            _kept: kept,
        }
    }
}

/// A process to which a name is known by these addresses, in this order, and nothing else.
fn named(hosts: &TempDir, name: &str, addresses: [Ipv4Addr; 2]) -> Command {
    let file = hosts.path().join("hosts");
    let lines = addresses.map(|address| format!("{address} {name}\n"));
    std::fs::write(&file, lines.concat()).unwrap();
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    command
        .args(["--mount", "sh", "-c", script])
        .arg(file)
        .arg(env!("CARGO_BIN_EXE_locker"));
    command
}

/// With both connections of a start, and with those of a return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_address_of_a_name_does_not_keep_the_next_from_use() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let _silent = Silent::at((other, server.port()).into()).await;
    let address = format!(
        "postgres:{}:postgres://app@db.test:{}/postgres",
        LEASE.as_millis(),
        server.port()
    );
    for addresses in [[other, Ipv4Addr::LOCALHOST], [Ipv4Addr::LOCALHOST, other]] {
        let hosts = TempDir::new().unwrap();
        let mut child = Child::start_by(named(&hosts, "db.test", addresses), &address).await;
        assert_eq!(child.ask("acquire order:process:1 0").await, "granted");
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
        pool.execute(end).await.unwrap();
        assert_eq!(child.ask("acquire order:process:2 8000").await, "granted");
    }
}

/// The certificate is for the name, and not for the address that is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_address_is_passed_over_where_the_certificate_has_the_name() {
    let server = PostgresServer::options().named_localhost().start().await;
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let _silent = Silent::at((other, server.port()).into()).await;
    let url = server.url_for("app", "postgres");
    let url = url.replacen("127.0.0.1", "localhost", 1);
    assert!(url.contains("sslmode=verify-full"), "{url}");
    let address = format!("postgres:{}:{url}", LEASE.as_millis());
    for addresses in [[other, Ipv4Addr::LOCALHOST], [Ipv4Addr::LOCALHOST, other]] {
        let hosts = TempDir::new().unwrap();
        let mut child = Child::start_by(named(&hosts, "localhost", addresses), &address).await;
        for _ in 0..100 {
            assert_eq!(child.ask("acquire order:process:1 0").await, "granted");
            child.release().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_silent_is_named() {
    let port = Port::reserve();
    let address = SocketAddr::from(([127, 0, 0, 2], port.number()));
    let _silent = Silent::at(address).await;
    let in_time = Lateness::of(Duration::from_secs(5));
    let error = PostgresBackend::connect(&format!("postgres://app@{address}/postgres"))
        .await
        .unwrap_err();
    in_time.at_most(BOUND).await;
    let said = error.to_string();
    assert!(error.is_unavailable(), "{said}");
    assert!(
        said.ends_with(&format!("tried: {address} (silent)")),
        "{said}"
    );
}
