//! Databases and roles that are named, sorted or reached in other ways than most.

use lock_tests::servers::PostgresServer;
use sqlx::Executor;

use crate::support::{PATIENCE, client, order, take};

/// Two processes of this connection string exclude each other, and wake each other.
async fn locks_work(url: &str) {
    let (one, other) = (client(url).await, client(url).await);
    let guard = take(&one, order()).await;
    guard.fencing_token().await.unwrap();
    let lock = other.lock(order()).unwrap();
    assert!(
        lock.try_acquire(std::time::Duration::ZERO)
            .await
            .unwrap()
            .is_none()
    );
    let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    guard.release().await.unwrap();
    waiting.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_or_role_of_any_name_keeps_locks() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    for statement in [
        "CREATE DATABASE \"Läden & \"\"Co\"\" 100% / 1\" TEMPLATE template0",
        "CREATE ROLE \"the app\" LOGIN",
        "CREATE ROLE crew NOLOGIN",
        "CREATE ROLE member LOGIN NOINHERIT IN ROLE crew",
        "CREATE DATABASE icu TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de'",
        "CREATE DATABASE bare TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'",
        "REVOKE ALL ON DATABASE bare FROM PUBLIC",
        "GRANT CONNECT ON DATABASE bare TO member",
    ] {
        pool.execute(statement).await.unwrap();
    }
    let socket = server.socket_directory().display().to_string();
    for url in [
        server.url_for("app", "L%C3%A4den%20%26%20%22Co%22%20100%25%20%2F%201"),
        server.url_for("the%20app", "postgres"),
        server.url_for("member", "bare"),
        server.url_for("app", "icu"),
        format!(
            "postgres:///postgres?host={socket}&port={}&user=app",
            server.port()
        ),
        format!(
            "postgres://app@{}:{}/postgres",
            socket.replace('/', "%2F"),
            server.port()
        ),
    ] {
        locks_work(&url).await;
    }
}
