//! Networks that lose what is sent.

use lock_tests::child::Child;
use lock_tests::eventually;
use lock_tests::servers::{Lan, PostgresServer};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use crate::support::{A_WHILE, PATIENCE, connect, number};

#[tokio::test]
async fn a_network_that_is_down_is_a_black_hole_and_goes_on_when_it_is_up() {
    let lan = Lan::new().await;
    let server = PostgresServer::options().inside(lan.left()).start().await;
    let url = server.url();
    // Not of the test's own network.
    assert!(!url.contains("127.0.0.1"));
    let (asks, mut asked) = tokio::sync::mpsc::channel::<()>(1);
    let (answers, mut answered) = tokio::sync::mpsc::channel(1);
    let client = tokio::spawn({
        let (right, url) = (lan.right().clone(), url.clone());
        async move {
            let client = async move {
                let mut connection = connect(&url).await;
                while asked.recv().await.is_some() {
                    let answer = number(&mut connection, "SELECT 1::bigint").await;
                    answers.send(answer).await.unwrap();
                }
            };
            right.run(client).await;
        }
    });
    asks.send(()).await.unwrap();
    assert_eq!(answered.recv().await, Some(1));
    lan.down().await;
    asks.send(()).await.unwrap();
    assert!(timeout(A_WHILE, answered.recv()).await.is_err());
    // The peer was not notified: neither an error nor a refusal.
    let connecting = lan
        .right()
        .run(async move { timeout(A_WHILE, PgConnection::connect(&url)).await });
    assert!(connecting.await.is_err());
    // The test itself goes on looking.
    sqlx::query("SELECT 1")
        .execute(&server.pool().await)
        .await
        .unwrap();
    lan.up().await;
    assert_eq!(timeout(PATIENCE, answered.recv()).await.unwrap(), Some(1));
    drop(asks);
    client.await.unwrap();
}

#[tokio::test]
async fn a_network_that_is_down_towards_one_host_still_carries_what_that_sends() {
    let lan = Lan::new().await;
    let server = PostgresServer::options().inside(lan.left()).start().await;
    let pool = server.pool().await;
    sqlx::query("CREATE SEQUENCE asked")
        .execute(&pool)
        .await
        .unwrap();
    let (url, right) = (server.url(), lan.right().clone());
    let (connected, is_connected) = tokio::sync::oneshot::channel();
    let (down, is_down) = tokio::sync::oneshot::channel();
    let client = tokio::spawn(async move {
        let client = async move {
            let mut connection = connect(&url).await;
            number(&mut connection, "SELECT nextval('asked')").await;
            connected.send(()).unwrap();
            is_down.await.unwrap();
            let answer = number(&mut connection, "SELECT nextval('asked')");
            timeout(A_WHILE, answer).await.is_err()
        };
        right.run(client).await
    });
    is_connected.await.unwrap();
    lan.down_towards(lan.right()).await;
    down.send(()).unwrap();
    assert!(client.await.unwrap());
    eventually("it has arrived", async || {
        let asked = sqlx::query_scalar::<_, i64>("SELECT last_value FROM asked");
        asked.fetch_one(&pool).await.unwrap() == 2
    })
    .await;
}

#[tokio::test]
async fn programs_run_in_a_network() {
    let lan = Lan::new().await;
    let directory = tempfile::tempdir().unwrap();
    let locker = lan.right().command(env!("CARGO_BIN_EXE_locker"));
    let mut child = Child::start_by(
        locker,
        &format!("file:{}/locks", directory.path().display()),
    )
    .await;
    child.hold(&"test:case:1").await;
    let addresses = lan
        .right()
        .command("ip")
        .args(["-o", "address"])
        .output()
        .await
        .unwrap();
    let addresses = String::from_utf8(addresses.stdout).unwrap();
    assert!(
        addresses.contains(&lan.right().address().to_string()),
        "{addresses}"
    );
}
