//! Settings of a role, of a database or of a server that change what statements mean and how their
//! answers look.

use std::time::Duration;

use lock_tests::servers::PostgresServer;
use sqlx::{AssertSqlSafe, Executor};

use crate::support::{PATIENCE, backend, client, name, order, take};

/// Those that one of the versions does not have are left out.
const SETTINGS: [(&str, &str); 39] = [
    ("application_name", "shop"),
    ("array_nulls", "off"),
    ("backslash_quote", "off"),
    ("bytea_output", "escape"),
    ("check_function_bodies", "off"),
    ("client_min_messages", "debug5"),
    ("constraint_exclusion", "on"),
    ("cursor_tuple_fraction", "0.001"),
    ("datestyle", "German"),
    ("debug_parallel_query", "on"),
    ("default_transaction_deferrable", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_read_only", "on"),
    ("enable_indexscan", "off"),
    ("enable_nestloop", "off"),
    ("enable_seqscan", "off"),
    ("escape_string_warning", "off"),
    ("extra_float_digits", "-15"),
    ("force_parallel_mode", "on"),
    ("from_collapse_limit", "1"),
    ("gin_fuzzy_search_limit", "1"),
    ("idle_in_transaction_session_timeout", "1h"),
    ("intervalstyle", "sql_standard"),
    ("lc_messages", "C"),
    ("lc_numeric", "C"),
    ("lock_timeout", "1s"),
    ("log_statement", "all"),
    ("parallel_setup_cost", "0"),
    ("plan_cache_mode", "force_custom_plan"),
    ("quote_all_identifiers", "on"),
    ("row_security", "off"),
    ("search_path", ""),
    ("session_preload_libraries", "auto_explain"),
    ("standard_conforming_strings", "off"),
    ("statement_timeout", "3s"),
    ("synchronous_commit", "off"),
    ("timezone", "Asia/Kathmandu"),
    ("transform_null_equals", "on"),
    ("xmloption", "document"),
];

/// The whole of a life: connect, hold, wait, hand over, a token, a lock in a transaction, a return.
async fn locks_work(server: &PostgresServer) {
    let url = server.url_for("app", "postgres");
    let (one, other) = (client(&url).await, client(&url).await);
    let guard = take(&one, order()).await;
    guard.fencing_token().await.unwrap();
    let lock = other.lock(order()).unwrap();
    let held = lock.try_acquire(Duration::ZERO).await.unwrap();
    assert!(held.is_none());
    let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    guard.release().await.unwrap();
    let lost = waiting.await.unwrap().unwrap();
    let pool = server.pool().await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    pool.execute(end).await.unwrap();
    lost.lost().await;
    let back = other.lock(order()).unwrap();
    back.acquire(PATIENCE)
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    let backend = backend(&url).await;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
    let mut tx = pool.begin_with(begin).await.unwrap();
    let name = name("order:process:7");
    let locked = backend.lock_in_transaction(&mut tx, &name, Duration::ZERO);
    locked.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_role_and_database_change_nothing() {
    let server = PostgresServer::start().await;
    // One session: another would begin with the settings, of which one makes it read only.
    let mut admin = server.pool().await.acquire().await.unwrap();
    for whose in [
        "ROLE app",
        "DATABASE postgres",
        "ROLE app IN DATABASE postgres",
    ] {
        for (name, value) in SETTINGS {
            let known = sqlx::query_scalar::<_, bool>(
                "SELECT EXISTS (SELECT FROM pg_settings WHERE lower(name) = $1)",
            );
            if known.bind(name).fetch_one(&mut *admin).await.unwrap() {
                let set = format!("ALTER {whose} SET {name} = '{value}'");
                admin.execute(AssertSqlSafe(set)).await.unwrap();
            }
        }
        locks_work(&server).await;
        let reset = format!("ALTER {whose} RESET ALL");
        admin.execute(AssertSqlSafe(reset)).await.unwrap();
    }
}
