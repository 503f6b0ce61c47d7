//! Who holds a lock, as its row says.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use lock_core::postgres::LeaseTable;
use lock_core::{Holder, LockMode, LockName, LockProvider};
use lock_tests::servers::PostgresServer;
use lock_tests::{Lateness, LeaseTableStore, Store, eventually};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Postgres, Row, Transaction};
use tokio::time::{sleep, timeout};

use crate::support::{order, take};

async fn named(store: &LeaseTableStore, instance: &str) -> LockProvider {
    let builder = LeaseTable::builder(store.pooler().url()).instance(instance);
    LockProvider::new(builder.connect().await.unwrap())
}

async fn holder(client: &LockProvider) -> Option<Holder> {
    client.holder(order()).await.unwrap()
}

/// As operators do, in psql.
async fn write(store: &LeaseTableStore, set: &str) {
    let sql = format!("UPDATE distributed_lock_leases SET {set} WHERE name = 'order:process:42'");
    let written = store.pool().execute(AssertSqlSafe(sql)).await.unwrap();
    assert_eq!(written.rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_behind_a_pooler_are_told_apart() {
    let store = LeaseTableStore::open().await;
    let (web, job) = (
        named(&store, "web-1:8080").await,
        named(&store, "job").await,
    );
    for (holding, asking, expected) in [(&web, &job, "web-1:8080"), (&job, &web, "job")] {
        let asked = SystemTime::now();
        let guard = take(holding, order()).await;
        for client in [holding, asking] {
            let holder = holder(client).await.unwrap();
            assert_eq!(holder.instance(), Some(expected));
            assert_eq!(holder.mode(), LockMode::Exclusive);
            let (since, near) = (holder.since().unwrap(), Duration::from_millis(100));
            assert!(since + near >= asked && since <= SystemTime::now() + near);
        }
        // What operators read.
        let sql = "SELECT name, holder FROM distributed_lock_leases WHERE owner IS NOT NULL";
        let row = store.pool().fetch_one(sql).await.unwrap();
        assert_eq!((row.get(0), row.get(1)), ("order:process:42", expected));
        guard.release().await.unwrap();
        assert_eq!(holder(asking).await, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_others_wrote_into_a_row_is_not_shown() {
    let store = LeaseTableStore::open().await;
    let client = named(&store, "web-1").await;
    let guard = take(&client, order()).await;
    for wrong in [
        "''",
        "'a b'",
        "E'\\033[31m'",
        "repeat('x', 47)",
        "repeat('é', 100000000)",
    ] {
        write(&store, &format!("holder = {wrong}")).await;
        let holder = holder(&client).await.unwrap();
        assert_eq!(holder.instance(), None, "{wrong}");
        assert!(holder.since().is_some());
    }
    // Any time that the column can have.
    for (wrong, is_time) in [
        ("'infinity'", false),
        ("'-infinity'", false),
        ("'4713-01-01 BC'", true),
        ("'294276-01-01'", true),
    ] {
        write(&store, &format!("holder = 'web-2', acquired = {wrong}")).await;
        let holder = holder(&client).await.unwrap();
        assert_eq!(holder.instance(), Some("web-2"), "{wrong}");
        let since = holder.since();
        assert_eq!(since.is_some(), is_time, "{wrong}");
        assert!(since.is_none_or(|since| since <= SystemTime::now()));
    }
    drop(guard);
}

/// Of rows that any role with rights on the table can write, in a database that keeps any bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_others_wrote_hide_no_lock_and_are_not_shown_as_they_are() {
    let server = PostgresServer::start().await;
    let create = "CREATE DATABASE bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'";
    server.pool().await.execute(create).await.unwrap();
    let url = server.url_for("postgres", "bytes");
    let builder = LeaseTable::builder(&url).instance("web-1");
    let client = LockProvider::new(builder.connect().await.unwrap());
    let guard = take(&client, order()).await;
    let mut neighbour = PgConnection::connect(&url).await.unwrap();
    for (name, holder) in [
        (r"E'\xff\xfe'", r"E'\xff'"),
        ("repeat('x', 100000000)", "repeat('y', 100000000)"),
        (r"E'order:\033[31m:1'", r"E'\033]0;owned\007'"),
        ("'order:process:7'", "'a b'"),
    ] {
        let sql = format!(
            "INSERT INTO distributed_lock_leases (key, namespace, name, owner, holder, lease, expires, acquired, token) \
             VALUES (gen_random_uuid(), '', {name}, gen_random_uuid(), {holder}, 0, 'infinity', '-infinity', 0)"
        );
        neighbour.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    let listing = client.list(10).await.unwrap();
    assert_eq!(listing.locks().len(), 5);
    let shown = listing.locks().iter();
    let shown: BTreeSet<_> = shown
        .map(|lock| {
            let name = lock.name().map(LockName::as_str);
            (
                name,
                lock.holder().instance(),
                lock.holder().since().is_some(),
            )
        })
        .collect();
    let expected = [
        (Some("order:process:42"), Some("web-1"), true),
        (Some("order:process:7"), None, false),
        (None, None, false),
    ];
    assert_eq!(shown, BTreeSet::from(expected));
    let write =
        r"UPDATE distributed_lock_leases SET holder = E'\xff' WHERE name = 'order:process:42'";
    neighbour.execute(write).await.unwrap();
    let holder = holder(&client).await.unwrap();
    assert!(holder.instance().is_none() && holder.since().is_some());
    drop(guard);
}

/// Locks the table as `VACUUM FULL` does, or a migration, which can take long.
async fn locked(store: &LeaseTableStore) -> Transaction<'static, Postgres> {
    let mut migration = store.pool().begin().await.unwrap();
    let lock = "LOCK TABLE distributed_lock_leases IN ACCESS EXCLUSIVE MODE";
    migration.execute(lock).await.unwrap();
    migration
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_a_table_that_is_locked_ends_soon_and_leaves_nothing_behind() {
    let store = LeaseTableStore::open().await;
    let client = named(&store, "web-1").await;
    let guard = take(&client, order()).await;
    let migration = locked(&store).await;
    let late = Lateness::of(Duration::from_millis(500));
    let error = client.list(10).await.unwrap_err();
    late.at_most(Duration::from_secs(1)).await;
    assert!(error.is_unavailable(), "{error}");
    assert!(
        error.to_string().contains("has locked the lease table"),
        "{error}"
    );
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock'";
    eventually("no look waits in the server", async || {
        let row = store.pool().fetch_one(waiting).await.unwrap();
        row.get::<i64, _>(0) == 0
    })
    .await;
    migration.rollback().await.unwrap();
    assert_eq!(client.list(10).await.unwrap().locks().len(), 1);
    // What a look sets is not left in the sessions of the pooler.
    for _ in 0..10 {
        let mut session = PgConnection::connect(&store.pooler().url()).await.unwrap();
        for setting in ["lock_timeout", "statement_timeout"] {
            let show = AssertSqlSafe(format!("SHOW {setting}"));
            let value: String = session.fetch_one(show).await.unwrap().get(0);
            assert_eq!(value, "0", "{setting}");
        }
    }
    drop(guard);
}

/// The server goes on with what they have asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_leave_and_ask_again_have_one_list_under_way() {
    let store = LeaseTableStore::open().await;
    let client = named(&store, "web-1").await;
    let guard = take(&client, order()).await;
    let migration = locked(&store).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '% LIMIT 11'";
    for _ in 0..8 {
        let left = timeout(Duration::from_millis(50), client.list(10)).await;
        assert!(!matches!(left, Ok(Ok(_))), "{left:?}");
        let row = store.pool().fetch_one(waiting).await.unwrap();
        assert!(row.get::<i64, _>(0) <= 1);
    }
    migration.rollback().await.unwrap();
    assert_eq!(client.list(10).await.unwrap().locks().len(), 1);
    guard.release().await.unwrap();
}

/// Times are by when the server had the question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_waits_for_the_table_makes_no_hold_younger() {
    let store = LeaseTableStore::open().await;
    let client = named(&store, "web-1").await;
    let guard = take(&client, order()).await;
    let granted = SystemTime::now();
    let listing = loop {
        let migration = locked(&store).await;
        let listed = async { client.list(10).await };
        let unlocked = async {
            // As long as the wait of the list may be seen to last, and shorter than it waits for.
            sleep(Duration::from_millis(300)).await;
            migration.rollback().await.unwrap();
        };
        // On a busy machine it can wait for too long.
        if let (Ok(listing), ()) = tokio::join!(listed, unlocked) {
            break listing;
        }
    };
    let since = listing.locks()[0].holder().since().unwrap();
    // The server tells milliseconds.
    let latest = granted + Duration::from_millis(10);
    assert!(
        since <= latest,
        "{:?} after the grant",
        since.duration_since(granted)
    );
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_whose_lease_has_ended_has_no_holder() {
    let store = LeaseTableStore::open().await;
    let client = named(&store, "web-1").await;
    let _guard = take(&client, order()).await;
    assert!(holder(&client).await.is_some());
    write(&store, "expires = clock_timestamp() - interval '1 ms'").await;
    assert_eq!(holder(&client).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_the_question_is_an_error_soon() {
    let store = LeaseTableStore::open().await;
    let client = named(&store, "web-1").await;
    store
        .pool()
        .execute("DROP TABLE distributed_lock_leases")
        .await
        .unwrap();
    let error = client.holder(order()).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
}
