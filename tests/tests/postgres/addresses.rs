//! Names of a server with several addresses, some of which keep silent.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_tests::Lateness;
use lock_tests::child::Child;
use lock_tests::servers::{Port, PostgresServer};
use sqlx::Executor;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;
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

/// A process to which a name is known by these addresses, and nothing else.
fn named(hosts: &TempDir, name: &str) -> Command {
    let file = hosts.path().join("hosts");
    let lines = ADDRESSES.map(|address| format!("{address} {name}\n"));
    std::fs::write(&file, lines.concat()).unwrap();
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    command
        .args(["--mount", "sh", "-c", script])
        .arg(file)
        .arg(env!("CARGO_BIN_EXE_locker"));
    command
}

/// A port at which one address is silent, and another leads to a server. The silent one comes first, in
/// whatever order they are known: it is nearer to where packets come from.
struct Half {
    port: Port,
    _silent: Silent,
    _leading: JoinSet<()>,
}

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];

impl Half {
    async fn before(server: &PostgresServer) -> Self {
        let port = Port::reserve();
        let [silent, leads] = ADDRESSES.map(|ip| SocketAddr::from((ip, port.number())));
        let listener = TcpListener::bind(leads).await.unwrap();
        let server = server.address();
        let mut leading = JoinSet::new();
        leading.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(server).await.unwrap();
                connections.spawn(async move {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self {
            port,
            _silent: Silent::at(silent).await,
            _leading: leading,
        }
    }
}

/// With both connections of a start, and with those of a return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_address_of_a_name_does_not_keep_the_next_from_use() {
    let server = PostgresServer::start().await;
    let half = Half::before(&server).await;
    let address = format!(
        "postgres:{}:postgres://app@db.test:{}/postgres",
        LEASE.as_millis(),
        half.port.number()
    );
    let hosts = TempDir::new().unwrap();
    let mut child = Child::start_by(named(&hosts, "db.test"), &address).await;
    assert_eq!(child.ask("acquire order:process:1 0").await, "granted");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    server.pool().await.execute(end).await.unwrap();
    assert_eq!(child.ask("acquire order:process:2 8000").await, "granted");
}

/// The primary is silent, and the standby answers before it is promoted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_answers_in_a_fail_over_is_unavailable() {
    let primary = PostgresServer::start().await;
    let standby = primary.standby().await;
    let half = Half::before(&standby).await;
    let hosts = TempDir::new().unwrap();
    let url = format!("postgres://app@db.test:{}/postgres", half.port.number());
    let mut command = named(&hosts, "db.test");
    let address = format!("postgres:{}:{url}", LEASE.as_millis());
    let output = command.arg(address).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("another address of the name is silent"),
        "{said}"
    );
    assert!(said.contains("lock is unavailable"), "{said}");
}

/// The certificate is for the name, and not for the address that is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_address_is_passed_over_where_the_certificate_has_the_name() {
    let server = PostgresServer::options().named_localhost().start().await;
    let half = Half::before(&server).await;
    let url = server.url_for("app", "postgres");
    let url = url.replacen(
        &server.address().to_string(),
        &format!("localhost:{}", half.port.number()),
        1,
    );
    assert!(url.contains("sslmode=verify-full"), "{url}");
    let address = format!("postgres:{}:{url}", LEASE.as_millis());
    let hosts = TempDir::new().unwrap();
    let mut child = Child::start_by(named(&hosts, "localhost"), &address).await;
    for _ in 0..100 {
        assert_eq!(child.ask("acquire order:process:1 0").await, "granted");
        child.release().await;
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
