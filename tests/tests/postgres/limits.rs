//! Limits on connections: the server's, a database's, a role's, a pooler's. Each is named for what it
//! is, with what raises it.

use std::time::Duration;

use futures_util::future::join_all;
use lock_core::postgres::PostgresBackend;
use lock_core::{LockError, LockProvider};
use lock_tests::Lateness;
use lock_tests::servers::{Direction, PgBouncer, PostgresServer, Proxy};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::network::Network;
use crate::support::{PATIENCE, acquire, backend, numbered, order, sqlstate, take};

/// Much less than the bound of a step.
const PROMPTLY: Duration = Duration::from_secs(3);

async fn refusal(url: &str) -> LockError {
    let late = Lateness::of(Duration::ZERO);
    let error = PostgresBackend::connect(url).await.unwrap_err();
    late.at_most(PROMPTLY).await;
    assert!(error.is_unavailable(), "{error:?}");
    error
}

/// Refused while so many connections of this kind are there, with this advice.
async fn refused_beside(others: usize, url: &str, advice: &str) {
    let mut open = Vec::new();
    for _ in 0..others {
        open.push(PgConnection::connect(url).await.unwrap());
    }
    let error = refusal(url).await;
    assert_eq!(sqlstate(&error).as_deref(), Some("53300"), "{error:?}");
    let said = error.to_string();
    assert!(said.contains(advice), "{others} others: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_says_so_whichever_connection_is_refused() {
    // One and two are left to roles that are no superuser.
    let settings = [
        ("max_connections", "5"),
        ("superuser_reserved_connections", "3"),
        ("max_wal_senders", "0"),
    ];
    for others in [2, 1] {
        let server = PostgresServer::with(&settings).await;
        let url = server.url_for("app", "postgres");
        let raise = "`ALTER SYSTEM SET max_connections = <more>;`";
        refused_beside(others, &url, raise).await;
    }
    // All: the superuser's as well.
    let server = PostgresServer::with(&settings).await;
    let url = server.url_for("app", "postgres");
    let mut open = Vec::new();
    while let Ok(other) = PgConnection::connect(&server.url()).await {
        open.push(other);
    }
    let error = refusal(&url).await;
    let said = error.to_string();
    assert!(said.contains("ALTER SYSTEM SET max_connections"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_the_role_or_of_the_database_is_told_with_the_statement_that_raises_it() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    pool.execute("CREATE DATABASE \"the shop\" TEMPLATE template0")
        .await
        .unwrap();
    for limit in [0, 1] {
        for (what, url) in [
            ("ROLE app", server.url_for("app", "postgres")),
            ("DATABASE \"the shop\"", server.url_for("app", "the%20shop")),
        ] {
            let set = |limit| AssertSqlSafe(format!("ALTER {what} CONNECTION LIMIT {limit}"));
            pool.execute(set(limit)).await.unwrap();
            let raise = format!("`ALTER {what} CONNECTION LIMIT -1;`");
            refused_beside(0, &url, &raise).await;
            pool.execute(set(-1)).await.unwrap();
        }
    }
}

/// The words of a server in another language; its code is the same in all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_says_in_another_language_is_understood() {
    #[expect(clippy::ptr_arg, reason = "what the proxy calls")]
    fn translate(piece: &mut Vec<u8>) {
        for (from, to) in [
            (
                &b"too many connections for"[..],
                &b"zu viele Verbindungen zu"[..],
            ),
            (b"no encryption", b"ohne Kodierung"),
        ] {
            // Of the same length, as the lengths before it say.
            if let Some(at) = piece.windows(from.len()).position(|part| part == from) {
                piece[at..at + from.len()].copy_from_slice(&to[..from.len()]);
            }
        }
    }
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let set = "ALTER ROLE app CONNECTION LIMIT 0";
    pool.execute(set).await.unwrap();
    let link = Proxy::to(server.address()).await;
    link.corrupt(Direction::ToClient, translate);
    let url = link.url(&server.url_for("app", "postgres"));
    let error = refusal(&url).await;
    let said = error.to_string();
    assert!(said.contains("ALTER ROLE app CONNECTION LIMIT"), "{said}");

    let over_tls = "local all all trust\nhostssl all all all trust\n";
    server.admit(over_tls).await;
    let error = PostgresBackend::connect(&url).await.unwrap_err();
    assert!(error.is_misconfigured(), "{error:?}");
    assert!(error.to_string().contains("pg_hba.conf"), "{error}");
    assert!(error.to_string().contains("without TLS"), "{error}");
}

/// Before a client has logged in, a server speaks in the encoding of its own language.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_of_a_server_that_cannot_be_read_are_not_taken_for_another_protocol() {
    #[expect(clippy::ptr_arg, reason = "what the proxy calls")]
    fn in_latin_1(piece: &mut Vec<u8>) {
        let from = b"too many";
        if let Some(at) = piece.windows(from.len()).position(|part| part == from) {
            piece[at] = 0xfc;
        }
    }
    let server = PostgresServer::start().await;
    let set = "ALTER ROLE app CONNECTION LIMIT 0";
    server.pool().await.execute(set).await.unwrap();
    let link = Proxy::to(server.address()).await;
    link.corrupt(Direction::ToClient, in_latin_1);
    let error = refusal(&link.url(&server.url_for("app", "postgres"))).await;
    let said = error.to_string();
    assert!(said.contains("lc_messages"), "{said}");
    assert!(!said.contains("does not speak"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_on_the_clients_of_a_pooler_is_told() {
    let server = PostgresServer::start().await;
    let settings = [("pool_mode", "session"), ("max_client_conn", "1")];
    let bouncer = PgBouncer::with(&server, &settings).await;
    for others in [0, 1] {
        let mut open = Vec::new();
        for _ in 0..others {
            open.push(PgConnection::connect(&bouncer.url()).await.unwrap());
        }
        let said = refusal(&bouncer.url()).await.to_string();
        assert!(said.contains("`max_client_conn`"), "{others}: {said}");
    }
}

/// All of them are another client's, or our first connection has the only one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_without_a_free_session_is_told() {
    let server = PostgresServer::start().await;
    let settings = [
        ("pool_mode", "session"),
        ("default_pool_size", "1"),
        // Before we give up: what waits longer is named as a step that was not answered.
        ("query_wait_timeout", "1"),
    ];
    for others in [0, 1] {
        let bouncer = PgBouncer::with(&server, &settings).await;
        let mut open = Vec::new();
        for _ in 0..others {
            open.push(PgConnection::connect(&bouncer.url()).await.unwrap());
        }
        let said = refusal(&bouncer.url()).await.to_string();
        assert!(said.contains("`default_pool_size`"), "{others}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_behind_a_pooler_is_told() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    for (limit, says) in [(0, "ALTER ROLE app CONNECTION LIMIT"), (1, "within 5s")] {
        let set = AssertSqlSafe(format!("ALTER ROLE app CONNECTION LIMIT {limit}"));
        pool.execute(set).await.unwrap();
        // One that has not been refused before.
        let bouncer = PgBouncer::session(&server).await;
        let url = bouncer.url().replace("postgres@", "app@");
        let error = PostgresBackend::connect(&url).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        let said = error.to_string();
        assert!(said.contains(says), "{limit}: {said}");
        assert!(said.contains("CONNECTION LIMIT"), "{limit}: {said}");
    }
}

/// With room for the session that was left and one more, and none for a third.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_ends_its_former_session_before_it_needs_the_room() {
    let server = PostgresServer::start().await;
    let set = "ALTER ROLE app CONNECTION LIMIT 2";
    server.pool().await.execute(set).await.unwrap();
    let network = Network::half_open(&server).await;
    let url = network.url(&server.url_for("app", "postgres"));
    // Longer than the test: what the lease ends is ended by nothing else.
    let long = PostgresBackend::builder(url).lease(Duration::from_secs(600));
    let holder = LockProvider::new(long.connect().await.unwrap());
    for _ in 0..3 {
        let guard = take(&holder, order()).await;
        network.lose();
        guard.lost().await;
        let late = Lateness::of(Duration::ZERO);
        let back = acquire(&holder, order(), PATIENCE).await;
        late.at_most(PROMPTLY).await;
        back.release().await.unwrap();
    }
}

/// Each of them needs a second connection for that, and there is room for seven of these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_processes_come_back_where_seventy_connections_fit() {
    const PROCESSES: usize = 60;
    let server = PostgresServer::with(&[("max_connections", "70")]).await;
    let url = server.url_for("app", "postgres");
    let mut processes = Vec::new();
    for number in 0..PROCESSES {
        // Longer than the test: who is refused is not to be let in by the end of a lease.
        let long = PostgresBackend::builder(&url).lease(Duration::from_secs(600));
        let process = LockProvider::new(long.connect().await.unwrap());
        let guard = take(&process, numbered(number)).await;
        processes.push((process, guard));
    }
    let ended = server.terminate_backends("distributed_lock").await;
    // A second connection of who has just connected can be there still.
    assert!(ended >= PROCESSES, "{ended}");
    let back = processes.into_iter().enumerate();
    let back = back.map(|(number, (process, guard))| async move {
        guard.lost().await;
        let back = acquire(&process, numbered(number), PATIENCE).await;
        back.release().await.unwrap();
    });
    join_all(back).await;
}

/// The first login was fast, the second is slow, and has the last place before it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_not_refused_for_the_place_that_it_has_itself() {
    let server = PostgresServer::start().await;
    let set = "ALTER ROLE app CONNECTION LIMIT 2";
    server.pool().await.execute(set).await.unwrap();
    let (network, slow) = tokio::join!(Proxy::to(server.address()), Proxy::to(server.address()));
    slow.delay(Duration::from_millis(200));
    network.balance([server.address(), slow.address()]);
    let url = network.url(&server.url_for("app", "postgres"));
    PostgresBackend::connect(&url).await.unwrap();
    assert!(slow.asked() > 0);
}

/// Their transactions would wait until no other that is serializable runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_whose_transactions_are_deferrable_connects_beside_others() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let set = "ALTER ROLE app SET default_transaction_isolation = 'serializable'; \
         ALTER ROLE app SET default_transaction_deferrable = on; \
         ALTER ROLE app SET default_transaction_read_only = on";
    sqlx::raw_sql(set).execute(&pool).await.unwrap();
    let mut other = pool
        .begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE")
        .await
        .unwrap();
    other
        .execute("CREATE TABLE written (number int)")
        .await
        .unwrap();
    other
        .execute("SELECT count(*) FROM pg_class")
        .await
        .unwrap();
    let locks = LockProvider::new(backend(&server.url_for("app", "postgres")).await);
    let guard = take(&locks, order()).await;
    assert!(guard.fencing_token().await.unwrap().get() > 0);
    guard.release().await.unwrap();
    other.rollback().await.unwrap();
}
