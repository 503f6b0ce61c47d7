//! PostgreSQL, its standbys, PgBouncer.

use lock_tests::servers::{PgBouncer, PostgresServer, Server};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use crate::support::{A_WHILE, PATIENCE, connect, number, run};

/// Not prepared under a name: two clients of a pooler would choose the same.
async fn backend(connection: &mut PgConnection) -> i32 {
    let pid = sqlx::query_scalar("SELECT pg_backend_pid()").persistent(false);
    pid.fetch_one(connection).await.unwrap()
}

const TIMELINE: &str =
    "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint";

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
    standby.catch_up_with(&primary).await;
    let streamed = "SELECT count(*) FROM pg_class WHERE relname = 'streamed'";
    assert_eq!(number(&mut on_standby, streamed).await, 1);
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

#[tokio::test]
async fn a_server_with_tls_proves_who_it_is_and_refuses_plain_clients() {
    let server = PostgresServer::options().tls().start().await;
    let psql = |url: String| {
        tokio::process::Command::new("psql")
            .args([
                &url,
                "-Atc",
                "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            ])
            .output()
    };
    let encrypted = psql(server.url()).await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&encrypted.stdout),
        "t\n",
        "{encrypted:?}"
    );
    let plain = format!(
        "postgres://postgres@{}/postgres?sslmode=disable",
        server.address()
    );
    assert!(!psql(plain).await.unwrap().status.success());
    let others = PostgresServer::options().tls().start().await;
    let others = others.authority().unwrap().to_str().unwrap().to_owned();
    let wrong = server
        .url()
        .replace(server.authority().unwrap().to_str().unwrap(), &others);
    assert!(!psql(wrong).await.unwrap().status.success());
}
