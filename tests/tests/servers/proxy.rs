//! Each switch of the proxy.

use std::time::{Duration, Instant};

use lock_tests::servers::{Direction, PostgresServer, Proxy};
use lock_tests::{Lateness, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{A_WHILE, PATIENCE, connect, number, run};

/// A server that says every byte back, and the ends of one connection to it through a proxy.
struct Echo {
    proxy: Proxy,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::to(listener.local_addr().unwrap()).await;
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = connection.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Self { proxy }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.proxy.address()).await.unwrap()
    }
}

async fn say(connection: &mut TcpStream, byte: u8) {
    connection.write_all(&[byte]).await.unwrap();
}

async fn hear(connection: &mut TcpStream) -> std::io::Result<u8> {
    timeout(PATIENCE, connection.read_u8()).await.unwrap()
}

async fn is_silent(connection: &mut TcpStream) -> bool {
    timeout(A_WHILE, connection.read_u8()).await.is_err()
}

#[track_caller]
fn is_reset(heard: std::io::Result<u8>) {
    assert_eq!(
        heard.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn a_proxy_delays_both_directions_without_adding_up() {
    let echo = Echo::start().await;
    let mut connection = echo.connect().await;
    let delay = Duration::from_millis(500);
    echo.proxy.delay(delay);
    let (sent, late) = (Instant::now(), Lateness::of(2 * delay));
    for byte in 0..50 {
        say(&mut connection, byte).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for byte in 0..50 {
        assert_eq!(hear(&mut connection).await.unwrap(), byte);
        assert!(sent.elapsed() >= 2 * delay);
    }
    late.at_most(8 * delay).await;
    echo.proxy.heal().await;
    let late = Lateness::of(Duration::ZERO);
    say(&mut connection, 1).await;
    hear(&mut connection).await.unwrap();
    late.at_most(2 * delay).await;
}

#[tokio::test]
async fn what_a_proxy_holds_arrives_when_it_is_healed() {
    for direction in [Direction::ToServer, Direction::ToClient] {
        let echo = Echo::start().await;
        let mut connection = echo.connect().await;
        echo.proxy.hold(direction);
        say(&mut connection, 1).await;
        say(&mut connection, 2).await;
        assert!(is_silent(&mut connection).await);
        echo.proxy.heal().await;
        assert_eq!(hear(&mut connection).await.unwrap(), 1);
        assert_eq!(hear(&mut connection).await.unwrap(), 2);
    }
}

#[tokio::test]
async fn what_a_proxy_swallows_is_lost_and_its_connection_is_reset_when_it_is_healed() {
    for direction in [Direction::ToServer, Direction::ToClient] {
        let echo = Echo::start().await;
        let (mut hurt, mut unhurt) = (echo.connect().await, echo.connect().await);
        say(&mut unhurt, 1).await;
        assert_eq!(hear(&mut unhurt).await.unwrap(), 1);
        echo.proxy.swallow(direction);
        say(&mut hurt, 2).await;
        assert!(is_silent(&mut hurt).await);
        echo.proxy.heal().await;
        is_reset(hear(&mut hurt).await);
        say(&mut unhurt, 3).await;
        assert_eq!(hear(&mut unhurt).await.unwrap(), 3);
    }
}

#[tokio::test]
async fn a_proxy_swallows_one_direction_alone() {
    let server = PostgresServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let mut connection = connect(&proxy.url(&server.url())).await;
    let mut direct = connect(&server.url()).await;
    run(&mut direct, "CREATE TABLE reached (n bigint)").await;
    proxy.swallow(Direction::ToClient);
    let insert = run(&mut connection, "INSERT INTO reached VALUES (1)");
    assert!(timeout(A_WHILE, insert).await.is_err());
    assert_eq!(number(&mut direct, "SELECT count(*) FROM reached").await, 0);
}

#[tokio::test]
async fn the_end_of_a_connection_is_swallowed_as_well() {
    let server = PostgresServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let url = format!("{}?application_name=gone", proxy.url(&server.url()));
    let connection = connect(&url).await;
    let mut direct = connect(&server.url()).await;
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gone'";
    proxy.swallow(Direction::ToServer);
    drop(connection);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(number(&mut direct, gone).await, 1);
    proxy.heal().await;
    eventually("the server learns of it", || async {
        number(&mut connect(&server.url()).await, gone).await == 0
    })
    .await;
}

#[tokio::test]
async fn a_proxy_resets_all_connections_and_takes_new_ones() {
    let echo = Echo::start().await;
    let (mut a, mut b) = (echo.connect().await, echo.connect().await);
    for connection in [&mut a, &mut b] {
        say(connection, 1).await;
        assert_eq!(hear(connection).await.unwrap(), 1);
    }
    echo.proxy.reset();
    is_reset(hear(&mut a).await);
    is_reset(hear(&mut b).await);
    let mut c = echo.connect().await;
    say(&mut c, 2).await;
    assert_eq!(hear(&mut c).await.unwrap(), 2);
}

#[tokio::test]
async fn a_dropped_reply_is_that_of_a_command_that_was_carried_out() {
    let server = PostgresServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let mut direct = connect(&server.url()).await;
    run(&mut direct, "CREATE SEQUENCE carried_out").await;
    let mut connection = connect(&proxy.url(&server.url())).await;
    let next = "SELECT nextval('carried_out')";
    // The first time it takes two exchanges.
    number(&mut connection, next).await;
    proxy.drop_next_reply();
    let lost = sqlx::query_scalar::<_, i64>(next)
        .fetch_one(&mut connection)
        .await;
    assert!(matches!(lost, Err(sqlx::Error::Io(_))), "{lost:?}");
    assert_eq!(number(&mut direct, next).await, 3);
    let mut again = connect(&proxy.url(&server.url())).await;
    assert_eq!(number(&mut again, next).await, 4);
}

#[tokio::test]
async fn a_proxy_refuses_new_connections_and_keeps_the_old() {
    let echo = Echo::start().await;
    let mut old = echo.connect().await;
    say(&mut old, 1).await;
    hear(&mut old).await.unwrap();
    echo.proxy.refuse().await;
    let refused = TcpStream::connect(echo.proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    say(&mut old, 2).await;
    assert_eq!(hear(&mut old).await.unwrap(), 2);
    echo.proxy.heal().await;
    echo.connect().await;
}
