//! Who holds a lock, as the sessions of the server say: those of instances with names, of earlier versions, and
//! of other programs.

use std::time::Duration;

use lock_core::postgres::{KeyScheme, PostgresBackend};
use lock_core::{Holder, LockMode, LockProvider};
use lock_tests::servers::PostgresServer;
use lock_tests::{Log, PostgresStore, Store, eventually};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::support::{Harness, ZERO, builder, numbered, order, take};

async fn named(server: &PostgresServer, instance: &str) -> LockProvider {
    let builder = builder(server).instance(instance);
    LockProvider::new(builder.connect().await.unwrap())
}

/// A session of another program that holds the key of the lock by this function.
async fn other(server: &PostgresServer, name: &str, function: &str, key: &str) -> PgConnection {
    let url = format!("{}?application_name={name}", server.url());
    let mut session = PgConnection::connect(&url).await.unwrap();
    let take = AssertSqlSafe(format!("SELECT {function}({key})"));
    session.execute(take).await.unwrap();
    session
}

async fn holder(client: &LockProvider) -> Option<Holder> {
    client.holder(order()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_of_one_server_are_told_apart_and_found_by_operators() {
    let store = PostgresStore::open().await;
    let web = named(&store.server, "web-1:8080").await;
    // Another service, in the same database and with the same names.
    let jobs = builder(&store.server)
        .application_name("nightly jobs")
        .instance("10.0.0.7");
    let jobs = LockProvider::new(jobs.connect().await.unwrap());
    for (holding, asking, expected) in [(&web, &jobs, "web-1:8080"), (&jobs, &web, "10.0.0.7")] {
        let guard = take(holding, order()).await;
        for asked in [holding, asking] {
            let holder = holder(asked).await.unwrap();
            assert_eq!(holder.instance(), Some(expected));
            assert_eq!((holder.since(), holder.mode()), (None, LockMode::Exclusive));
        }
        guard.release().await.unwrap();
    }
    let names = "SELECT string_agg(DISTINCT application_name, ', ' ORDER BY application_name) \
         FROM pg_stat_activity WHERE application_name ~ '[0-9]$'";
    let found: String = sqlx::query_scalar(names)
        .fetch_one(&store.pool)
        .await
        .unwrap();
    assert_eq!(found, "distributed_lock web-1:8080, nightly jobs 10.0.0.7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_that_are_no_instances_are_named_as_far_as_they_say() {
    let store = PostgresStore::open().await;
    let client = named(&store.server, "web-1").await;
    let key = PostgresStore::key_of(&order()).to_string();
    let (exclusive, shared) = ("pg_advisory_lock", "pg_advisory_lock_shared");
    for (application_name, function, instance, mode) in [
        // An earlier version of this library.
        ("distributed_lock", exclusive, None, LockMode::Exclusive),
        ("psql", exclusive, Some("psql"), LockMode::Exclusive),
        ("", exclusive, None, LockMode::Exclusive),
        ("orders", shared, Some("orders"), LockMode::Shared),
    ] {
        let session = other(&store.server, application_name, function, &key).await;
        let holder = holder(&client).await.unwrap();
        assert_eq!(holder.instance(), instance, "{application_name}");
        assert_eq!(holder.mode(), mode);
        session.close().await.unwrap();
    }
    // The same bits as a pair, and the key in another database, are other locks.
    let pair = format!("({key}::int8 >> 32)::int4, ({key}::int8 << 32 >> 32)::int4");
    let _pair = other(&store.server, "psql", exclusive, &pair).await;
    store
        .pool
        .execute("CREATE DATABASE elsewhere TEMPLATE template0")
        .await
        .unwrap();
    let url = store.server.url_for("postgres", "elsewhere");
    let mut elsewhere = PgConnection::connect(&url).await.unwrap();
    let take = AssertSqlSafe(format!("SELECT pg_advisory_lock({key})"));
    elsewhere.execute(take).await.unwrap();
    // The last of the sessions before has ended by then.
    eventually("no client holds it", async || {
        holder(&client).await.is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_whose_key_is_a_pair_names_its_holder() {
    let store = PostgresStore::open().await;
    let medallion = |instance: &str| {
        let builder = builder(&store.server).keys(KeyScheme::Medallion);
        builder.instance(instance).connect()
    };
    let here = LockProvider::new(medallion("web-1").await.unwrap());
    let there = LockProvider::new(medallion("web-2").await.unwrap());
    // Short names are pairs, and this long one is a bigint.
    let names = ["job:abc", "order:process:42"];
    assert_eq!(there.holder(names[0]).await.unwrap(), None);
    let guards = here.acquire_all(names, ZERO).await.unwrap();
    for name in names {
        let holder = there.holder(name).await.unwrap().unwrap();
        assert_eq!(holder.instance(), Some("web-1"), "{name}");
    }
    drop(guards);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_in_a_transaction_is_held_by_its_session() {
    let harness = Harness::new().await;
    let locks = LockProvider::new(harness.backend.clone());
    let mut tx = harness.begin().await;
    let set = "SET LOCAL application_name = 'orders'";
    tx.execute(set).await.unwrap();
    harness.lock(&mut tx, &order(), ZERO).await.unwrap();
    let held = holder(&locks).await.unwrap();
    assert_eq!(held.instance(), Some("orders"));
    tx.commit().await.unwrap();
    assert_eq!(holder(&locks).await, None);
}

/// Of what `pg_stat_activity` reads, which a superuser can lock for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_that_the_server_holds_up_costs_no_lock() {
    let store = PostgresStore::open().await;
    let client = named(&store.server, "web-1").await;
    let guard = take(&client, order()).await;
    let mut locked = store.pool.begin().await.unwrap();
    let lock = "LOCK TABLE pg_catalog.pg_authid IN ACCESS EXCLUSIVE MODE";
    locked.execute(lock).await.unwrap();
    for _ in 0..5 {
        let listed = client.list(10).await.unwrap_err();
        let told = client.holder(order()).await.unwrap_err();
        for error in [listed, told] {
            assert!(error.is_unavailable(), "{error}");
            let said = "another session has locked what says who holds what";
            assert!(error.to_string().contains(said), "{error}");
        }
    }
    assert!(guard.is_valid());
    let other = client.lock("order:process:7").unwrap();
    other.acquire(ZERO).await.unwrap().release().await.unwrap();
    locked.rollback().await.unwrap();
    assert_eq!(client.list(10).await.unwrap().locks().len(), 1);
    guard.release().await.unwrap();
}

/// With looks at stalled sessions between those of callers. The server is slow without a lock that is waited for: the
/// session gives up such a wait by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looks_that_take_long_cost_no_lock_however_many_there_are() {
    let log = Log::of_process();
    let store = PostgresStore::open().await;
    let (client, other) = (store.client().await, store.client().await);
    let guard = take(&client, order()).await;
    let theirs = take(&other, numbered(7)).await;
    let view: String = sqlx::query_scalar("SELECT pg_get_viewdef('pg_catalog.pg_stat_activity')")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    let view = view.trim().trim_end_matches(';');
    let sessions_are = async |of: &str| {
        let mut tx = store.pool.begin().await.unwrap();
        let replace = format!(
            "SET LOCAL allow_system_table_mods = on; CREATE OR REPLACE VIEW pg_catalog.pg_stat_activity AS {of}"
        );
        tx.execute(AssertSqlSafe(replace)).await.unwrap();
        tx.commit().await.unwrap();
    };
    sessions_are(&format!("SELECT a.* FROM pg_sleep(20), ({view}) AS a")).await;
    let wait = Duration::from_secs(60);
    let waiter = client.lock(numbered(7)).unwrap();
    let waiter = tokio::spawn(async move { waiter.acquire(wait).await });
    eventually("stalled sessions were looked for", async || {
        log.count("cannot look for stalled PostgreSQL sessions") > 0
    })
    .await;
    for _ in 0..3 {
        let (listed, told) = tokio::join!(client.list(10), client.holder(order()));
        for error in [listed.unwrap_err(), told.unwrap_err()] {
            assert!(error.is_unavailable(), "{error}");
            let said = "the server took longer to say who holds what than a look may keep";
            assert!(error.to_string().contains(said), "{error}");
        }
        assert!(guard.is_valid());
    }
    sessions_are(view).await;
    assert_eq!(client.list(10).await.unwrap().locks().len(), 2);
    theirs.release().await.unwrap();
    let next = waiter.await.unwrap().unwrap();
    assert!(guard.is_valid());
    next.release().await.unwrap();
    guard.release().await.unwrap();
}

/// As what recovery needs: it is logged at connect, and keeps no process from its locks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_know_who_holds_a_lock_is_told_which_right_it_lacks() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let take_away = "REVOKE SELECT ON pg_catalog.pg_stat_activity FROM PUBLIC";
    pool.execute(take_away).await.unwrap();
    let url = server.url_for("app", "postgres");
    let locks = LockProvider::new(PostgresBackend::connect(&url).await.unwrap());
    let guard = take(&locks, order()).await;
    let error = locks.holder(order()).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    let grant = "GRANT SELECT ON pg_catalog.pg_stat_activity TO app";
    assert!(error.to_string().contains(grant), "{error}");
    guard.release().await.unwrap();
    pool.execute(grant).await.unwrap();
    assert_eq!(holder(&locks).await, None);
}

#[tokio::test]
async fn a_name_that_the_server_would_cut_is_refused() {
    let builder = PostgresBackend::builder("postgres://app@localhost/shop")
        .application_name("a service with a name that is long")
        .instance("web-1.fleet.shop.example:8080");
    let error = builder.connect().await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
    let said =
        "the application name and the instance have 63 bytes, and PostgreSQL keeps 62 of both";
    assert!(error.to_string().contains(said), "{error}");
    let builder = PostgresBackend::builder("postgres://app@localhost/shop").instance("web 1");
    let error = builder.connect().await.unwrap_err();
    assert!(
        error.to_string().contains("the instance: it has a blank"),
        "{error}"
    );
}
