//! The table is made once, and what is not it is refused by name.

use futures_util::future::join_all;
use lock_core::LockError;
use lock_core::postgres::lease_table::Setup;
use lock_tests::eventually;
use lock_tests::servers::PostgresServer;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};

use super::{Bed, LEASE, hold};

async fn open(url: &str, table: &str, create: bool) -> Result<(), LockError> {
    let mut session = PgConnection::connect(url).await.unwrap();
    let setup = Setup::new(table, create).unwrap();
    setup.open(&mut session, LEASE).await.map(drop)
}

/// Why the table is refused, for good.
async fn refusal(url: &str, table: &str) -> String {
    let error = open(url, table, true).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_make_one_table() {
    let server = PostgresServer::start().await;
    let url = server.url();
    for opened in join_all((0..8).map(|_| open(&url, "locks", true))).await {
        opened.unwrap();
    }
    let pool = server.pool().await;
    let rows = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM locks");
    assert_eq!(rows.fetch_one(&pool).await.unwrap(), 1);
    open(&url, "locks", false).await.unwrap();
}

/// Two roles, each of which looks into a schema of its own first, as `"$user", public` has it.
async fn two_roles(pool: &PgPool) {
    for role in ["web", "worker"] {
        let made = format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA {role} AUTHORIZATION {role}");
        pool.execute(AssertSqlSafe(made)).await.unwrap();
    }
}

/// In which schemas there are tables of this name.
async fn schemas(pool: &PgPool, table: &str) -> Vec<String> {
    let schemas = "SELECT schemaname::text FROM pg_tables WHERE tablename = $1 ORDER BY 1";
    let schemas = sqlx::query_scalar(schemas).bind(table).fetch_all(pool);
    schemas.await.unwrap()
}

#[tokio::test]
async fn a_path_that_leads_to_a_second_table_is_refused() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    two_roles(&pool).await;
    let [web, worker] = ["web", "worker"].map(|role| server.url_for(role, "postgres"));
    open(&web, "leases", true).await.unwrap();
    // Whatever its version is.
    for version in [1, 3, 2] {
        let comment = format!(
            "COMMENT ON TABLE web.leases IS 'distributed_lock lease table, version {version}'"
        );
        pool.execute(AssertSqlSafe(comment)).await.unwrap();
        let refused = refusal(&worker, "leases").await;
        for part in [
            "`web`",
            ".table(\"schema.leases\")",
            "LOCK_TABLE=schema.leases",
        ] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        assert_eq!(schemas(&pool, "leases").await, ["web"]);
    }
    open(&web, "leases", true).await.unwrap();

    // By their schemas both are there, and by their name alone neither is.
    open(&worker, "worker.leases", true).await.unwrap();
    assert_eq!(schemas(&pool, "leases").await, ["web", "worker"]);
    open(&web, "web.leases", false).await.unwrap();
    assert!(refusal(&web, "leases").await.contains("`worker`"));
    assert!(refusal(&worker, "leases").await.contains("`web`"));
    assert!(
        refusal(&server.url(), "leases")
            .await
            .contains("`web`, `worker`")
    );
}

/// What another process makes is there when it is the turn of this one.
#[tokio::test]
async fn two_that_start_together_do_not_make_two_tables() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    two_roles(&pool).await;
    let mut making = pool.begin().await.unwrap();
    // The key is the same in every version.
    making
        .execute("SELECT pg_advisory_xact_lock(1684827491, 3)")
        .await
        .unwrap();
    let sql = Setup::new("web.leases", true).unwrap().sql();
    making.execute(AssertSqlSafe(sql)).await.unwrap();
    let committing = async {
        eventually("the other waits", || async {
            let waiting =
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
            let waiting = sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool);
            waiting.await.unwrap() > 0
        })
        .await;
        making.commit().await.unwrap();
    };
    let worker = server.url_for("worker", "postgres");
    let (refused, ()) = tokio::join!(refusal(&worker, "leases"), committing);
    assert!(refused.contains("`web`"), "{refused}");
    assert_eq!(schemas(&pool, "leases").await, ["web"]);
}

/// Any role can make those, and they end with its session.
#[tokio::test]
async fn temporary_tables_of_others_and_other_tables_are_in_no_way() {
    let server = PostgresServer::start().await;
    let (url, pool) = (server.url(), server.pool().await);
    two_roles(&pool).await;
    let app = server.url_for("app", "postgres");
    let mut session = PgConnection::connect(&app).await.unwrap();
    let temporary = "CREATE TEMPORARY TABLE leases (key uuid); \
         COMMENT ON TABLE leases IS 'distributed_lock lease table, version 2'";
    session.execute(temporary).await.unwrap();
    let other = "CREATE TABLE web.leases (key uuid); COMMENT ON TABLE web.leases IS 'of flats'";
    pool.execute(other).await.unwrap();
    open(&url, "leases", true).await.unwrap();
    session.close().await.unwrap();
}

#[tokio::test]
async fn what_is_no_table_of_locks_is_refused() {
    let server = PostgresServer::start().await;
    let (url, pool) = (server.url(), server.pool().await);
    let error = open(&url, "missing", false).await.unwrap_err();
    assert!(error.is_misconfigured());
    let sql = Setup::new("missing", false).unwrap().sql();
    assert!(error.to_string().ends_with(&sql), "{error}");

    pool.execute("CREATE TABLE others (key uuid)")
        .await
        .unwrap();
    assert!(refusal(&url, "others").await.contains("no table of locks"));
    for (change, said) in [
        (
            "COMMENT ON TABLE changed IS 'distributed_lock lease table, version 3'",
            "is a `distributed_lock lease table, version 3`",
        ),
        ("ALTER TABLE changed SET UNLOGGED", "SET LOGGED"),
        (
            "ALTER TABLE changed ENABLE ROW LEVEL SECURITY",
            "no plain table",
        ),
        ("ALTER TABLE changed ADD COLUMN more int", "other columns"),
        ("DELETE FROM changed", "lacks the row of its server"),
    ] {
        open(&url, "changed", true).await.unwrap();
        pool.execute(AssertSqlSafe(change)).await.unwrap();
        let refused = refusal(&url, "changed").await;
        assert!(refused.contains(said), "{refused}");
        pool.execute("DROP TABLE changed").await.unwrap();
    }
    for name in ["", "a.b.c", "pg_temp.locks", "a.", ".b"] {
        assert!(
            Setup::new(name, true).unwrap_err().is_misconfigured(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_role_without_rights_is_shown_what_to_run() {
    let server = PostgresServer::start().await;
    let app = server.url_for("app", "postgres");
    let pool = server.pool().await;
    let refused = refusal(&app, "locked.away").await;
    let sql = Setup::new("locked.away", true).unwrap().sql();
    assert!(refused.contains("CREATE SCHEMA \"locked\";\n"), "{refused}");
    // With the cause after it, as a comment.
    assert!(refused.contains(&format!("{sql}\n-- ")), "{refused}");
    pool.execute(AssertSqlSafe(format!("CREATE SCHEMA locked; {sql}")))
        .await
        .unwrap();
    pool.execute("GRANT USAGE ON SCHEMA locked TO app")
        .await
        .unwrap();
    let refused = refusal(&app, "locked.away").await;
    assert!(
        refused.contains("GRANT SELECT, INSERT, UPDATE, DELETE ON locked.away"),
        "{refused}"
    );
    pool.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON locked.away TO app")
        .await
        .unwrap();
    open(&app, "locked.away", true).await.unwrap();
}

#[tokio::test]
async fn a_standby_is_refused() {
    let bed = Bed::new().await;
    let standby = bed.server.standby().await;
    assert!(
        refusal(&standby.url(), super::TABLE)
            .await
            .contains("standby")
    );
}

/// Each request is as it should be, whatever the role has.
#[tokio::test]
async fn settings_of_a_role_change_no_request() {
    let bed = Bed::new().await;
    let mut session = PgConnection::connect(&bed.server.url()).await.unwrap();
    for set in [
        "default_transaction_isolation = serializable",
        "default_transaction_read_only = on",
        "search_path = neighbour",
        "synchronous_commit = off",
        "standard_conforming_strings = off",
        "lock_timeout = 1",
        "DateStyle = 'German'",
        "IntervalStyle = 'iso_8601'",
        "TimeZone = 'Asia/Kathmandu'",
        "extra_float_digits = 0",
    ] {
        let set = AssertSqlSafe(format!("ALTER ROLE postgres SET {set}"));
        session.execute(set).await.unwrap();
    }
    let mut client = bed.client_at(&bed.server.url()).await;
    let held = hold(1);
    let first = client.take(held).await;
    assert!(client.is_refused(hold(1)).await && client.renews(held).await);
    client.release(held).await;
    assert!(client.take(hold(1)).await > first);
}
