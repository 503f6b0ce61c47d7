//! Servers that are configured and do not hold the locks.

use std::path::Path;
use std::time::{Duration, Instant};

use lock_core::{LockProvider, LockSettings, ProviderKind, ServerRole};
use lock_tests::servers::{Port, PostgresServer, Proxy, RedisCluster, RedisServer, Server};
use lock_tests::{Lateness, Log, doubling, eventually};
use sqlx::Executor;
use tempfile::tempdir;
use tokio::time::sleep;
use tracing::Level;

use super::support::{in_files, in_postgres, markers, refused, sessions};

#[tokio::test]
async fn the_database_is_reported_also_where_it_does_not_hold_the_locks() {
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let locks = LockProvider::connect(in_files(&server, dir.path()))
        .await
        .unwrap();
    let health = locks.health().await;
    let servers: Vec<_> = (health.servers().iter())
        .map(|server| (server.name(), server.role(), server.is_up()))
        .collect();
    assert_eq!(
        servers,
        [
            ("file", ServerRole::Locks, true),
            ("postgres", ServerRole::Reported, true)
        ]
    );
    for freeze in [false, true] {
        if freeze {
            server.freeze().await;
        } else {
            server.kill().await;
        }
        let health = locks.health().await;
        assert!(!health.servers()[1].is_up(), "{health:?}");
        assert!(health.is_up() && health.error().is_none(), "{health:?}");
        // And locks go on.
        let lock = locks.lock("order:process:1").unwrap();
        drop(lock.acquire(Duration::ZERO).await.unwrap());
        if freeze {
            server.thaw().await;
        } else {
            server.restart().await;
        }
        eventually("it is back", || async {
            locks.health().await.servers()[1].is_up()
        })
        .await;
    }
}

#[tokio::test]
async fn a_database_that_sent_what_is_no_message_is_reported_again() {
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let network = Proxy::to(server.address()).await;
    let url = network.url(&server.url());
    let settings = in_files(&server, dir.path()).database_url(&url);
    let locks = LockProvider::connect(settings).await.unwrap();
    let (pool, is_up) = (server.pool().await, || async {
        locks.health().await.servers()[1].is_up()
    });
    for _ in 0..3 {
        eventually("it is well", is_up).await;
        let before = markers(&pool, "file").await;
        network.inject(b"A\0\0\0\x04");
        eventually("another session has the mark", || async {
            let now = markers(&pool, "file").await;
            now.len() == 1 && now != before
        })
        .await;
    }
    eventually("it is well", is_up).await;
}

#[tokio::test]
async fn a_database_whose_mark_cannot_be_looked_at_ends_the_start() {
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let port = Port::reserve();
    let nobody = format!("postgres://app:hunter2@127.0.0.1:{}/shop", port.number());
    for (url, said) in [
        (nobody.as_str(), "nothing listens"),
        (&server.url_for("secretive:hunter2", "postgres"), "password"),
        (&server.url_for("app", "missing"), "database does not exist"),
    ] {
        let settings = in_files(&server, dir.path()).database_url(url);
        let error = LockProvider::connect(settings).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(said), "{text}");
        assert!(
            text.contains("DATABASE_URL: ") && !text.contains("hunter2"),
            "{text}"
        );
    }
}

/// A server can lock out a role that fails to log in often; and what it says of a password says nothing
/// of whether the database can keep a mark.
#[tokio::test]
async fn a_database_is_not_shown_a_password_that_it_refused_again_and_again() {
    let log = Log::of_process();
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let pool = server.pool().await;
    let run = async |sql| pool.execute(sql).await.unwrap();
    run("CREATE ROLE rotating LOGIN PASSWORD 'first' IN ROLE by_password").await;
    let url = server.url_for("rotating:first", "postgres");
    let settings = in_files(&server, dir.path()).database_url(url);
    let locks = LockProvider::connect(settings).await.unwrap();
    assert_eq!(markers(&pool, "file").await.len(), 1);
    run("ALTER ROLE rotating PASSWORD 'second'").await;
    let begun = Instant::now();
    server.terminate_backends("distributed_lock").await;
    let failed = || {
        let log = server.log();
        log.matches("password authentication failed").count()
    };
    eventually("it is refused", async || failed() > 0).await;
    sleep(Duration::from_secs(6)).await;
    // And one that was due when they were counted.
    let (failed, most) = (failed(), doubling(begun.elapsed()) + 1);
    assert!((2..=most).contains(&failed), "{failed} logins");
    let health = locks.health().await;
    assert!(!health.servers()[1].is_up(), "{health:?}");
    run("ALTER ROLE rotating PASSWORD 'first'").await;
    // By the next login, whose pause is one of 1, 2, 4, 8 and 10 s.
    let late = Lateness::of(Duration::from_secs(10));
    eventually("it has its mark", async || {
        markers(&pool, "file").await.len() == 1
    })
    .await;
    late.at_most(Duration::from_secs(1)).await;
    assert_eq!(log.count("cannot detect instances"), 0, "{}", log.text());
}

#[tokio::test]
async fn redis_is_reported_where_postgres_holds_the_locks() {
    let (database, redis) = tokio::join!(PostgresServer::start(), RedisServer::start());
    let settings = in_postgres(&database)
        .redis_url(redis.url())
        .provider(ProviderKind::Postgres);
    let locks = LockProvider::connect(settings).await.unwrap();
    let state = || async {
        let health = locks.health().await;
        let servers = health.servers().iter();
        let servers = servers.map(|server| (server.name(), server.role(), server.is_up()));
        servers.collect::<Vec<_>>()
    };
    let with_redis = |is_up| {
        vec![
            ("postgres", ServerRole::Locks, true),
            ("redis", ServerRole::Reported, is_up),
        ]
    };
    assert_eq!(state().await, with_redis(true));
    redis.kill().await;
    assert_eq!(state().await, with_redis(false));
    redis.restart().await;
    assert_eq!(state().await, with_redis(true));
    redis.freeze().await;
    assert_eq!(state().await, with_redis(false));
    redis.thaw().await;
    assert_eq!(state().await, with_redis(true));
}

#[tokio::test]
async fn redis_is_well_while_one_node_of_its_cluster_hangs() {
    let (database, cluster) = tokio::join!(PostgresServer::start(), RedisCluster::start());
    let nodes = cluster.nodes();
    let addresses: Vec<_> = nodes
        .iter()
        .map(|node| node.address().to_string())
        .collect();
    let settings = in_postgres(&database)
        .redis_url(addresses.join(","))
        .provider(ProviderKind::Postgres);
    let locks = LockProvider::connect(settings).await.unwrap();
    // The first before anything is connected; one of them later is the one that is connected.
    for node in nodes {
        node.freeze().await;
        let health = locks.health().await;
        assert!(health.servers()[1].is_up(), "{health:?}");
        node.thaw().await;
    }
    for node in nodes {
        node.freeze().await;
    }
    assert!(!locks.health().await.servers()[1].is_up());
}

fn files_in(dir: &Path) -> LockSettings {
    LockSettings::new()
        .provider(ProviderKind::File)
        .dir(dir.join("locks"))
}

#[tokio::test]
async fn redis_is_not_well_where_its_addresses_are_no_cluster() {
    let (database, one, other) = tokio::join!(
        PostgresServer::start(),
        RedisServer::start(),
        RedisServer::start()
    );
    let settings = in_postgres(&database)
        .redis_url(format!("{},{}", one.address(), other.address()))
        .provider(ProviderKind::Postgres);
    let locks = LockProvider::connect(settings).await.unwrap();
    let health = locks.health().await;
    assert!(!health.servers()[1].is_up(), "{health:?}");
}

#[tokio::test]
async fn the_url_of_a_server_that_the_locks_do_not_need_is_a_warning_if_it_is_not_understood() {
    let dir = tempdir().unwrap();
    let database = |url| files_in(dir.path()).database_url(url);
    for ((settings, needed_by), variable, said) in [
        (
            // Whatever it is, no instance has its locks there.
            (
                database("mysql://app:hunter2@db/shop"),
                ProviderKind::Postgres,
            ),
            "DATABASE_URL",
            "the connection string begins with `mysql:`",
        ),
        (
            (
                database("postgres://app:hunter2@db/shop?pool=5").require_marker(false),
                ProviderKind::Postgres,
            ),
            "DATABASE_URL",
            "the connection string has an unknown option (number 1)",
        ),
        (
            (
                database("hunter2").allow_switch(true),
                ProviderKind::Postgres,
            ),
            "DATABASE_URL",
            "the connection string is no URL",
        ),
        (
            (
                files_in(dir.path()).redis_url("host:6379,password=hunter2,keyPrefix=x"),
                ProviderKind::Redis,
            ),
            "REDIS_URL",
            "the Redis connection string is wrong: its option `keyPrefix`",
        ),
    ] {
        let (log, listening) = Log::of_thread(Level::WARN);
        let locks = LockProvider::connect(settings.clone()).await.unwrap();
        drop(listening);
        let told = log.text();
        for part in ["WARN", &format!("{variable} is not understood"), said] {
            assert!(told.contains(part), "{told}");
        }
        assert!(!told.contains("hunter2"), "{told}");
        assert_eq!(locks.health().await.servers().len(), 1);
        let needed = LockProvider::connect(settings.provider(needed_by)).await;
        let error = needed.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        let said = format!("{variable}: {said}");
        assert!(error.to_string().contains(&said), "{error}");
    }
}

#[tokio::test]
async fn there_is_no_start_beside_a_database_whose_url_is_not_understood() {
    let dir = tempdir().unwrap();
    for url in [
        "postgres://app:hunter2@db/shop?pool=5",
        "postgres://app:hunter2@db/shop?channel_binding=require",
        "postgres://app:hunter2@db/shop?sslmode=hunter2",
        "hunter2",
        "db:5432,password=hunter2",
    ] {
        let error = LockProvider::connect(files_in(dir.path()).database_url(url)).await;
        let error = error.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(error.is_misconfigured(), "{url}: {said}");
        for part in ["DATABASE_URL: ", "LOCK_MARKER=optional"] {
            assert!(said.contains(part), "{url}: {said}");
        }
        assert!(!said.contains("hunter2"), "{url}: {said}");
    }
}

#[tokio::test]
async fn options_that_change_nothing_do_not_keep_a_fleet_from_its_mark() {
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let postgres = LockProvider::connect(in_postgres(&server)).await.unwrap();
    let url = format!(
        "{}?channel_binding=prefer&connect_timeout=5&target_session_attrs=read-write&keepalives=1\n",
        server.url()
    );
    let (log, listening) = Log::of_thread(Level::INFO);
    let settings = files_in(dir.path()).database_url(url);
    refused(LockProvider::connect(settings).await);
    drop((listening, postgres));
    let told = log.text();
    assert!(
        told.contains("channel_binding, connect_timeout, target_session_attrs, keepalives"),
        "{told}"
    );
}

/// With it go its sessions: a database that is reported can be dropped too.
#[tokio::test]
async fn a_shutdown_closes_the_connections_to_what_does_not_hold_the_locks() {
    let (server, dir) = (PostgresServer::start().await, tempdir().unwrap());
    let pool = server.pool().await;
    sqlx::raw_sql("CREATE DATABASE shop TEMPLATE template0")
        .execute(&pool)
        .await
        .unwrap();
    let cache = RedisServer::start().await;
    let settings = in_files(&server, dir.path())
        .database_url(server.url_for("postgres", "shop"))
        .redis_url(cache.url());
    let locks = LockProvider::connect(settings).await.unwrap();
    assert!(
        locks
            .health()
            .await
            .servers()
            .iter()
            .all(lock_core::ServerHealth::is_up)
    );
    assert_eq!(sessions(&pool).await, 1);
    let clone = locks.clone();
    locks.shutdown(Duration::ZERO).await;
    sqlx::raw_sql("DROP DATABASE shop")
        .execute(&pool)
        .await
        .unwrap();
    // The server sees the end of a connection after the client has left it.
    eventually("nothing but the look is connected", async || {
        let list: String = cache.ask(&["CLIENT", "LIST"]).await.unwrap();
        list.lines().count() == 1
    })
    .await;
    let health = clone.health().await;
    let errors = health
        .servers()
        .iter()
        .map(|server| server.error().unwrap().is_closed());
    assert_eq!(errors.collect::<Vec<_>>(), [true; 3], "{health:?}");
    let list: String = cache.ask(&["CLIENT", "LIST"]).await.unwrap();
    assert_eq!(
        list.lines().count(),
        1,
        "nothing is connected for it: {list}"
    );
}
