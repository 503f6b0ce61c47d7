//! Who holds a lock, as its row says.

use std::time::{Duration, SystemTime};

use lock_core::postgres::LeaseTable;
use lock_core::{Holder, LockMode, LockProvider};
use lock_tests::{LeaseTableStore, Store};
use sqlx::{AssertSqlSafe, Executor, Row};

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
