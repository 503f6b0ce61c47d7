//! A server that speaks TLS.

use lock_core::postgres::PostgresBackend;
use lock_tests::is_held;
use lock_tests::servers::PostgresServer;

use crate::support::{client, order, take};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_are_had_over_tls_from_a_server_that_is_trusted() {
    let server = PostgresServer::options().tls().start().await;
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    let guard = take(&here, order()).await;
    assert!(is_held(&there, order()).await);
    guard.release().await.unwrap();
    let pool = server.pool().await;
    let encrypted = sqlx::query_scalar::<_, bool>(
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE application_name = 'distributed_lock'",
    );
    assert!(encrypted.fetch_one(&pool).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_nobody_vouches_for_or_to_whom_plain_text_is_spoken_is_refused() {
    let server = PostgresServer::options().tls().start().await;
    let plain = format!("postgres://postgres@{}/postgres", server.address());
    for (url, says) in [
        (format!("{plain}?sslmode=verify-full"), "TLS does not work"),
        (format!("{plain}?sslmode=disable"), "without TLS"),
    ] {
        let error = PostgresBackend::connect(&url).await.unwrap_err();
        assert!(error.is_misconfigured(), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
}
