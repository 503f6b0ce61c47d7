//! The servers of the tests do what the tests believe, and leave nothing behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lock_tests::child::Child;
use lock_tests::eventually;
use lock_tests::servers::{
    Direction, Lan, PgBouncer, PostgresServer, Proxy, Server, descendants, lives,
};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Long enough for what does not happen.
const A_WHILE: Duration = Duration::from_millis(300);

/// Longer than anything that does happen.
const PATIENCE: Duration = Duration::from_secs(30);

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

async fn number(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query)
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn run(connection: &mut PgConnection, query: &'static str) {
    sqlx::query(query).execute(connection).await.unwrap();
}

/// Not prepared under a name: two clients of a pooler would choose the same.
async fn backend(connection: &mut PgConnection) -> i32 {
    let pid = sqlx::query_scalar("SELECT pg_backend_pid()").persistent(false);
    pid.fetch_one(connection).await.unwrap()
}

const TIMELINE: &str =
    "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint";

#[tokio::test]
async fn a_server_answers_and_leaves_nothing_behind() {
    let server = PostgresServer::start().await;
    let mut connection = connect(&server.url()).await;
    assert_eq!(number(&mut connection, "SELECT 1::bigint").await, 1);
    let (directory, processes) = (server.daemon().directory().to_owned(), server.processes());
    assert!(processes.len() > 3 && directory.is_dir());
    let shared_memory = std::fs::read_to_string(server.data().join("postmaster.pid")).unwrap();
    let shared_memory = shared_memory
        .lines()
        .nth(6)
        .unwrap()
        .split_whitespace()
        .next_back();
    let shared_memory = shared_memory.unwrap().to_owned();
    assert!(segments().contains(&shared_memory));
    drop(server);
    assert!(!directory.exists());
    assert!(processes.into_iter().all(|pid| !lives(pid)));
    assert!(!segments().contains(&shared_memory));
}

/// The ids of all System V shared memory.
fn segments() -> Vec<String> {
    let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let ids = segments
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1));
    ids.map(str::to_owned).collect()
}

/// What the next test starts, itself in another process, to be killed.
async fn wait_to_be_killed() {
    let lan = Lan::new().await;
    let frozen = PostgresServer::start().await;
    let other = PostgresServer::options().inside(lan.left()).start().await;
    frozen.freeze().await;
    println!(
        "ready {} {} {}",
        frozen.daemon().directory().display(),
        other.daemon().directory().display(),
        lan.left().name()
    );
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_test_leaves_no_process_no_directory_and_no_namespace() {
    if std::env::var_os("WAIT_TO_BE_KILLED").is_some() {
        return wait_to_be_killed().await;
    }
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "a_killed_test_leaves_no_process_no_directory_and_no_namespace",
        ])
        .env("WAIT_TO_BE_KILLED", "yes")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(test.stdout.take().unwrap()).lines();
    let ready = lines
        .map(Result::unwrap)
        .find(|line| line.contains("ready "));
    let words = ready.expect("it starts its servers");
    let words: Vec<_> = words.split("ready ").nth(1).unwrap().split(' ').collect();
    let left = [
        words[0].to_owned(),
        words[1].to_owned(),
        format!("/run/netns/{}", words[2]),
    ];
    assert!(left.iter().all(|path| Path::new(path).exists()), "{left:?}");
    let pid = Pid::from_raw(test.id().cast_signed()).unwrap();
    let processes = descendants(pid);
    // Three guardians, two servers.
    assert!(processes.len() > 10, "{processes:?}");
    kill_process(pid, Signal::KILL).unwrap();
    test.wait().unwrap();
    eventually("nothing is left", || async {
        !processes.iter().any(|pid| lives(*pid))
            && !left.iter().any(|path| Path::new(path).exists())
    })
    .await;
}

#[tokio::test]
async fn a_frozen_server_answers_when_it_is_thawed() {
    let server = PostgresServer::start().await;
    let mut connection = connect(&server.url()).await;
    server.freeze().await;
    let mut answer = Box::pin(number(&mut connection, "SELECT 2::bigint"));
    assert!(timeout(A_WHILE, &mut answer).await.is_err());
    assert!(timeout(A_WHILE, connect(&server.url())).await.is_err());
    server.thaw().await;
    assert_eq!(timeout(PATIENCE, answer).await.unwrap(), 2);
    connect(&server.url()).await;
}

#[tokio::test]
async fn a_frozen_server_can_be_killed() {
    let server = PostgresServer::start().await;
    server.freeze().await;
    server.kill().await;
    assert!(server.processes().is_empty());
    server.restart().await;
    connect(&server.url()).await;
}

#[tokio::test]
async fn a_killed_server_and_a_stopped_one_keep_data_and_port() {
    let server = PostgresServer::with(&[("fsync", "on")]).await;
    let url = server.url();
    let mut connection = connect(&url).await;
    run(&mut connection, "CREATE TABLE kept (n bigint)").await;
    for n in 1..=2_i64 {
        sqlx::query("INSERT INTO kept VALUES ($1)")
            .bind(n)
            .execute(&mut connection)
            .await
            .unwrap();
        if n == 1 {
            server.kill().await;
        } else {
            server.stop().await;
        }
        assert!(server.processes().is_empty() && server.daemon().pid().is_none());
        assert!(PgConnection::connect(&url).await.is_err());
        server.restart().await;
        connection = connect(&url).await;
        assert_eq!(
            number(&mut connection, "SELECT count(*) FROM kept").await,
            n
        );
    }
}

#[tokio::test]
async fn settings_are_those_of_the_start_and_those_that_were_set() {
    let server = PostgresServer::with(&[("max_locks_per_transaction", "10")]).await;
    let pool = server.pool().await;
    let show = |name: &'static str| {
        let pool = pool.clone();
        async move {
            let setting = sqlx::query_scalar::<_, String>("SELECT current_setting($1)");
            setting.bind(name).fetch_one(&pool).await.unwrap()
        }
    };
    assert_eq!(show("max_locks_per_transaction").await, "10");
    assert_eq!(show("fsync").await, "off");
    server
        .set("work_mem", "'quoted'; not a size")
        .await
        .unwrap_err();
    server.set("work_mem", "5MB").await.unwrap();
    let mut connection = connect(&server.url()).await;
    let work_mem = sqlx::query_scalar::<_, String>("SHOW work_mem")
        .fetch_one(&mut connection)
        .await;
    assert_eq!(work_mem.unwrap(), "5MB");
}

#[tokio::test]
async fn backends_are_terminated_by_the_name_of_their_application() {
    let server = PostgresServer::start().await;
    let mut victim = connect(&format!("{}?application_name=victim", server.url())).await;
    let mut other = connect(&server.url()).await;
    assert_eq!(server.terminate_backends("victim").await, 1);
    assert!(victim.ping().await.is_err());
    other.ping().await.unwrap();
}

#[tokio::test]
async fn a_role_with_a_password_needs_it() {
    let server = PostgresServer::start().await;
    connect(&server.url_for("app", "postgres")).await;
    connect(&server.url_for("secretive:secret", "postgres")).await;
    let wrong = PgConnection::connect(&server.url_for("secretive:wrong", "postgres")).await;
    assert!(
        wrong
            .unwrap_err()
            .to_string()
            .contains("password authentication failed")
    );
}

#[tokio::test]
async fn a_promoted_standby_takes_writes_on_a_higher_timeline() {
    let primary = PostgresServer::start().await;
    let standby = primary.standby().await;
    primary
        .set("synchronous_standby_names", "standby")
        .await
        .unwrap();
    let mut on_primary = connect(&primary.url()).await;
    let mut on_standby = connect(&standby.url()).await;
    run(&mut on_primary, "CREATE TABLE streamed (n bigint)").await;
    let streamed = "SELECT count(*) FROM pg_class WHERE relname = 'streamed'";
    eventually("the standby has replayed it", || async {
        number(&mut connect(&standby.url()).await, streamed).await == 1
    })
    .await;
    let refused = sqlx::query("CREATE TABLE refused (n bigint)")
        .execute(&mut on_standby)
        .await;
    assert!(refused.unwrap_err().to_string().contains("read-only"));
    assert_eq!(number(&mut on_primary, TIMELINE).await, 1);
    primary.kill().await;
    standby.promote().await;
    run(&mut on_standby, "CREATE TABLE taken (n bigint)").await;
    assert_eq!(number(&mut on_standby, TIMELINE).await, 2);
}

#[tokio::test]
async fn without_its_synchronous_standby_a_server_does_not_commit() {
    let primary = PostgresServer::start().await;
    let standby = primary.standby().await;
    primary
        .set("synchronous_standby_names", "standby")
        .await
        .unwrap();
    standby.freeze().await;
    let mut connection = connect(&primary.url()).await;
    let mut commit = Box::pin(run(&mut connection, "CREATE TABLE late (n bigint)"));
    assert!(timeout(A_WHILE, &mut commit).await.is_err());
    standby.thaw().await;
    timeout(PATIENCE, commit).await.unwrap();
}

#[tokio::test]
async fn pgbouncer_gives_two_clients_one_backend_in_transaction_mode_only() {
    let server = PostgresServer::start().await;
    for (bouncer, shared) in [
        (PgBouncer::transaction(&server).await, true),
        (PgBouncer::session(&server).await, false),
    ] {
        let (mut a, mut b) = (connect(&bouncer.url()).await, connect(&bouncer.url()).await);
        let backends = (backend(&mut a).await, backend(&mut b).await);
        assert_eq!(backends.0 == backends.1, shared, "{backends:?}");
    }
}

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
    echo.proxy.delay(Duration::from_millis(150));
    let sent = Instant::now();
    for byte in 0..50 {
        say(&mut connection, byte).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for byte in 0..50 {
        assert_eq!(hear(&mut connection).await.unwrap(), byte);
        assert!(sent.elapsed() >= Duration::from_millis(300));
    }
    assert!(
        sent.elapsed() < Duration::from_secs(5),
        "{:?}",
        sent.elapsed()
    );
    echo.proxy.heal().await;
    let sent = Instant::now();
    say(&mut connection, 1).await;
    hear(&mut connection).await.unwrap();
    assert!(sent.elapsed() < Duration::from_millis(150));
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
    // Nobody was told: neither an error nor a refusal.
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
