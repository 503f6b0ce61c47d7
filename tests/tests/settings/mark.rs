//! Fleets with two providers and one database: told apart, whichever comes first.

use std::time::Duration;

use lock_core::LockProvider;
use lock_tests::servers::{PgBouncer, PostgresServer, Proxy, Server};
use lock_tests::{Log, eventually};
use tempfile::tempdir;
use tracing::Level;

use super::support::{in_files, in_postgres, key_of_mark, markers, marks, refused, sessions};

#[tokio::test]
async fn whoever_finds_the_mark_of_another_provider_does_not_start() {
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let pool = server.pool().await;
    let postgres = LockProvider::connect(in_postgres(&server)).await.unwrap();
    let said = refused(LockProvider::connect(in_files(&server, dir.path())).await);
    assert!(
        said.contains("held by `postgres`") && said.contains("by `file`"),
        "{said}"
    );
    // One of the same provider does.
    let another = LockProvider::connect(in_postgres(&server)).await.unwrap();
    assert_eq!(marks(&pool, "postgres").await, 2);
    drop((postgres, another));
    eventually("the marks go with their processes", || async {
        marks(&pool, "postgres").await == 0
    })
    .await;

    let files = LockProvider::connect(in_files(&server, dir.path()))
        .await
        .unwrap();
    let said = refused(LockProvider::connect(in_postgres(&server)).await);
    assert!(said.contains("held by `file`"), "{said}");
    drop(files);
    eventually("the mark goes", || async { sessions(&pool).await == 0 }).await;
    LockProvider::connect(in_postgres(&server)).await.unwrap();
}

#[tokio::test]
async fn of_two_that_start_at_once_with_different_providers_one_at_least_is_refused() {
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let pool = server.pool().await;
    // A slow network: the steps of the two meet in every order.
    let network = Proxy::to(server.address()).await;
    network.delay(Duration::from_millis(5));
    let url = network.url(&server.url());
    for round in 0..20 {
        let late = || Duration::from_micros(fastrand::u64(..60_000));
        let (one, other) = tokio::join!(
            async {
                tokio::time::sleep(late()).await;
                LockProvider::connect(in_postgres(&server).database_url(&url)).await
            },
            async {
                tokio::time::sleep(late()).await;
                let settings = in_files(&server, dir.path()).database_url(&url);
                LockProvider::connect(settings).await
            }
        );
        assert!(
            one.is_err() || other.is_err(),
            "round {round}: locks are in two places"
        );
        for error in [one.err(), other.err()].into_iter().flatten() {
            assert!(error.to_string().contains("LOCK_SWITCH"), "{error}");
        }
        eventually("all are gone", || async { sessions(&pool).await == 0 }).await;
    }
}

#[tokio::test]
async fn another_namespace_is_another_fleet() {
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let here = in_postgres(&server).namespace("billing");
    let _here = LockProvider::connect(here).await.unwrap();
    let there = in_files(&server, dir.path()).namespace("shop");
    let _there = LockProvider::connect(there).await.unwrap();
    let wrong = in_files(&server, dir.path()).namespace("billing");
    refused(LockProvider::connect(wrong).await);
}

#[tokio::test]
async fn a_planned_switch_is_allowed_by_those_who_switch() {
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let pool = server.pool().await;
    let _old = LockProvider::connect(in_postgres(&server)).await.unwrap();
    let new = in_files(&server, dir.path()).allow_switch(true);
    let _new = LockProvider::connect(new).await.unwrap();
    assert_eq!(
        (marks(&pool, "postgres").await, marks(&pool, "file").await),
        (1, 1)
    );
    // It is not for all: a process that does not know of it is refused, on either side.
    refused(LockProvider::connect(in_postgres(&server)).await);
    refused(LockProvider::connect(in_files(&server, dir.path())).await);
}

#[tokio::test]
async fn a_mark_costs_one_connection_and_none_where_the_locks_have_one() {
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let pool = server.pool().await;
    let postgres = LockProvider::connect(in_postgres(&server)).await.unwrap();
    let lock = postgres.lock("order:process:1").unwrap();
    drop(lock.acquire(Duration::ZERO).await.unwrap());
    eventually("the second was there for moments", || async {
        sessions(&pool).await == 1
    })
    .await;
    drop((postgres, lock));
    eventually("it is closed", || async { sessions(&pool).await == 0 }).await;
    let files = LockProvider::connect(in_files(&server, dir.path()))
        .await
        .unwrap();
    eventually("there is one", || async { sessions(&pool).await == 1 }).await;
    assert!(files.health().await.is_up());
    assert_eq!(sessions(&pool).await, 1);
}

#[tokio::test]
async fn a_mark_is_taken_again_after_its_connection_was_lost() {
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let pool = server.pool().await;
    let files = LockProvider::connect(in_files(&server, dir.path()))
        .await
        .unwrap();
    let before = markers(&pool, "file").await;
    assert!(server.terminate_backends("distributed_lock").await > 0);
    eventually("another session has the mark", || async {
        let now = markers(&pool, "file").await;
        now.len() == 1 && now != before
    })
    .await;
    refused(LockProvider::connect(in_postgres(&server)).await);
    drop(files);
    eventually("it is gone", || async { sessions(&pool).await == 0 }).await;

    let _postgres = LockProvider::connect(in_postgres(&server)).await.unwrap();
    let before = markers(&pool, "postgres").await;
    assert!(server.terminate_backends("distributed_lock").await > 0);
    eventually("another session has the mark", || async {
        let now = markers(&pool, "postgres").await;
        now.len() == 1 && now != before
    })
    .await;
    refused(LockProvider::connect(in_files(&server, dir.path())).await);

    server.restart().await;
    let pool = server.pool().await;
    eventually("the mark is back", || async {
        marks(&pool, "postgres").await == 1
    })
    .await;
}

#[tokio::test]
async fn locks_in_the_database_stop_while_it_has_the_mark_of_others() {
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let postgres = LockProvider::connect(in_postgres(&server)).await.unwrap();
    let new = in_files(&server, dir.path()).allow_switch(true);
    let new = LockProvider::connect(new).await.unwrap();
    let lock = postgres.lock("order:process:1").unwrap();
    // What had started goes on, until it needs another session.
    drop(lock.acquire(Duration::ZERO).await.unwrap());
    let pool = server.pool().await;
    let terminate = "SELECT pg_terminate_backend(l.pid) FROM pg_locks AS l \
         WHERE ((l.classid::int8 << 32) | l.objid::int8) = $1";
    let mark = key_of_mark("postgres");
    sqlx::query(terminate)
        .bind(mark)
        .execute(&pool)
        .await
        .unwrap();
    eventually("it is told why", || async {
        let refused = lock.acquire(Duration::ZERO).await.err();
        refused.is_some_and(|error| error.to_string().contains("LOCK_SWITCH"))
    })
    .await;
    drop(new);
    drop(lock.acquire(Duration::from_secs(10)).await.unwrap());
}

#[tokio::test]
async fn statements_that_fail_leave_the_mark() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let locks = LockProvider::connect(in_postgres(&server)).await.unwrap();
    let guard = locks.lock("order:process:1").unwrap();
    let guard = guard.acquire(Duration::ZERO).await.unwrap();
    // A full lock table: the batch fails, and what it has left is looked for and undone.
    let hog = "SELECT count(pg_advisory_lock(n)) FROM generate_series(1, 1000000) AS n";
    let mut hogging = pool.acquire().await.unwrap();
    assert!(sqlx::query(hog).execute(&mut *hogging).await.is_err());
    let refused = locks.claim(
        (0..200).map(|number| format!("order:process:1{number}")),
        200,
    );
    let error = refused.await.unwrap_err();
    assert!(
        error.to_string().contains("max_locks_per_transaction"),
        "{error}"
    );
    let rest = "SELECT pg_advisory_unlock_all()";
    sqlx::query(rest).execute(&mut *hogging).await.unwrap();
    // The session was not replaced, and still says what holds its locks.
    assert!(guard.is_valid());
    assert_eq!(marks(&pool, "postgres").await, 1);
    guard.release().await.unwrap();
}

#[tokio::test]
async fn there_is_no_start_beside_a_database_that_keeps_no_mark_unless_that_is_optional() {
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let (pooler, standby) = tokio::join!(PgBouncer::transaction(&server), server.standby());
    let postgres = LockProvider::connect(in_postgres(&server)).await.unwrap();
    for address in [pooler.address(), standby.address()] {
        let url = server
            .url()
            .replace(&server.address().to_string(), &address.to_string());
        let settings = in_files(&server, dir.path()).database_url(url);
        let error = LockProvider::connect(settings.clone()).await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        let said = error.to_string();
        for part in ["DATABASE_URL: ", "LOCK_MARKER=optional", "primary"] {
            assert!(said.contains(part), "{said}");
        }
        for allowed in [
            settings.clone().require_marker(false),
            settings.allow_switch(true),
        ] {
            let (log, listening) = Log::of_thread(Level::WARN);
            let locks = LockProvider::connect(allowed).await.unwrap();
            drop(listening);
            let health = locks.health().await;
            assert!(
                health.servers().iter().all(lock_core::ServerHealth::is_up),
                "{health:?}"
            );
            assert!(!log.text().contains("password"), "{}", log.text());
        }
    }
    assert_eq!(marks(&server.pool().await, "file").await, 0);
    // It is no way around a mark that can be seen.
    let seen = in_files(&server, dir.path()).require_marker(false);
    refused(LockProvider::connect(seen).await);
    drop(postgres);
}

/// The locks are elsewhere, and stay there.
#[tokio::test]
async fn what_a_database_lacks_that_needs_no_mark_is_told_without_another_place_for_the_locks() {
    let log = Log::of_process();
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let pooler = PgBouncer::transaction(&server).await;
    let url = server
        .url()
        .replace(&server.address().to_string(), &pooler.address().to_string());
    let settings = in_files(&server, dir.path())
        .database_url(url)
        .require_marker(false);
    let locks = LockProvider::connect(settings).await.unwrap();
    let text = log.text();
    let line = text
        .lines()
        .find(|line| line.contains("cannot detect instances that use another lock provider"));
    let line = line.unwrap();
    assert!(line.contains("transaction pooling"), "{line}");
    for elsewhere in ["postgres-table", "LOCK_PROVIDER"] {
        assert!(!line.contains(elsewhere), "{line}");
    }
    drop(locks);
}

#[tokio::test]
async fn a_standby_that_is_promoted_is_given_the_mark() {
    let (primary, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let standby = primary.standby().await;
    let settings = in_files(&standby, dir.path()).require_marker(false);
    let files = LockProvider::connect(settings).await.unwrap();
    assert!(files.health().await.servers()[1].is_up());
    standby.promote().await;
    let pool = standby.pool().await;
    eventually("the mark is there", || async {
        marks(&pool, "file").await == 1
    })
    .await;
    refused(LockProvider::connect(in_postgres(&standby)).await);
    assert!(files.health().await.servers()[1].is_up());
    drop(files);
    eventually("it is gone", || async { sessions(&pool).await == 0 }).await;
}

#[tokio::test]
async fn marks_that_cannot_be_looked_at_are_not_those_of_others() {
    let log = Log::of_process();
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let pool = server.pool().await;
    let say = async |statement| {
        sqlx::query(statement).execute(&pool).await.unwrap();
    };
    say("CREATE ROLE watched LOGIN").await;
    let settings =
        in_files(&server, dir.path()).database_url(server.url_for("watched", "postgres"));
    let files = LockProvider::connect(settings).await.unwrap();
    say("REVOKE SELECT ON pg_locks FROM PUBLIC").await;
    assert!(server.terminate_backends("distributed_lock").await > 0);
    eventually("it is told why", || async {
        let health = files.health().await;
        let error = health.servers()[1].error().map(ToString::to_string);
        error.is_some_and(|error| error.contains("lacks a right"))
    })
    .await;
    say("GRANT SELECT ON pg_locks TO PUBLIC").await;
    eventually("it is well again", || async {
        files.health().await.servers()[1].is_up()
    })
    .await;
    assert_eq!(log.count("do NOT exclude each other"), 0, "{}", log.text());
}
