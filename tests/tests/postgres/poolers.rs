//! Behind a proxy that gives each client a session for as long as it stays, and to another when it
//! has left.

use std::time::Duration;

use lock_core::LockProvider;
use lock_core::postgres::PostgresBackend;
use lock_tests::eventually;
use lock_tests::servers::{PgBouncer, PostgresServer, Proxy};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::timeout;

use crate::support::{LEASE, PATIENCE, acquire, client, numbered, order, pid, session_of, take};
use tokio::task::JoinSet;

/// A client of the library that is cut off from its proxy, and the session on the server that it
/// had.
struct CutOff {
    client: LockProvider,
    network: Proxy,
    session: i32,
}

impl CutOff {
    async fn from(bouncer: &PgBouncer, pool: &PgPool) -> Self {
        let network = Proxy::to(bouncer.address()).await;
        let client = client(&network.url(&bouncer.url())).await;
        let guard = take(&client, order()).await;
        let session = session_of(pool, &order()).await;
        network.refuse().await;
        network.reset();
        guard.lost().await;
        eventually("the proxy has the session back", || async {
            let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = $1";
            let locks = sqlx::query_scalar::<_, i64>(locks).bind(session);
            locks.fetch_one(pool).await.unwrap() == 0
        })
        .await;
        Self {
            client,
            network,
            session,
        }
    }

    /// It connects again, and ends the session that it had if that still is its own.
    async fn comes_back(&self) {
        self.network.heal().await;
        drop(acquire(&self.client, order(), PATIENCE).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_given_to_a_stranger_is_left_alone() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let bouncer = PgBouncer::session(&server).await;
    let cut_off = CutOff::from(&bouncer, &pool).await;
    let mut strangers = Vec::new();
    loop {
        let mut stranger = PgConnection::connect(&bouncer.url()).await.unwrap();
        let is_it = pid(&mut stranger).await == cut_off.session;
        strangers.push(stranger);
        if is_it {
            break;
        }
        assert!(strangers.len() < 10, "the proxy has kept the session");
    }
    cut_off.comes_back().await;
    for stranger in &mut strangers {
        stranger.ping().await.unwrap();
    }
}

/// Another process with the same locks and the same lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_given_to_another_of_our_kind_is_left_alone() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let bouncer = PgBouncer::session(&server).await;
    let cut_off = CutOff::from(&bouncer, &pool).await;
    // The session that was given back last is given away first, for the second connection that is
    // needed before the one that counts.
    let mut attempts = 0;
    let (_other, guard) = loop {
        let mut strangers = Vec::new();
        for _ in 0..2 {
            let mut stranger = PgConnection::connect(&bouncer.url()).await.unwrap();
            let is_it = pid(&mut stranger).await == cut_off.session;
            strangers.insert(if is_it { 0 } else { strangers.len() }, stranger);
        }
        for stranger in strangers {
            give_back(stranger, &pool).await;
        }
        let other = client(&bouncer.url()).await;
        let guard = take(&other, numbered(1)).await;
        if session_of(&pool, &numbered(1)).await == cut_off.session {
            break (other, guard);
        }
        guard.release().await.unwrap();
        attempts += 1;
        assert!(attempts < 20, "the proxy keeps the session");
    };
    cut_off.comes_back().await;
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_begins_to_share_sessions_costs_the_locks_before_another_has_them() {
    let server = PostgresServer::start().await;
    let bouncer = PgBouncer::session(&server).await;
    let (holder, other) = (client(&bouncer.url()).await, client(&server.url()).await);
    let guard = take(&holder, order()).await;
    bouncer.set("pool_mode", "transaction").await;
    // The session that a stranger had last is the one that the next statement reaches.
    let mut stranger = PgConnection::connect(&bouncer.url()).await.unwrap();
    let working = tokio::spawn(async move {
        loop {
            let work = sqlx::raw_sql("BEGIN; SELECT 1; COMMIT");
            work.execute(&mut stranger).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let lock = other.lock(order()).unwrap();
    let granted = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    timeout(LEASE, guard.lost())
        .await
        .expect("the next heartbeat reaches another session");
    assert!(!guard.is_valid());
    drop(granted.await.unwrap().unwrap());
    working.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_gives_sessions_on_as_they_were_left_is_refused() {
    let server = PostgresServer::start().await;
    let all_but_locks = "DEALLOCATE ALL; RESET ALL; UNLISTEN *";
    let all = format!("{all_but_locks}; SELECT pg_advisory_unlock_all()");
    for (reset, is_refused) in [
        ("", true),
        ("DEALLOCATE ALL", true),
        ("RESET ALL", true),
        (all_but_locks, true),
        (&all, false),
        ("DISCARD ALL", false),
    ] {
        let settings = [("pool_mode", "session"), ("server_reset_query", reset)];
        let bouncer = PgBouncer::with(&server, &settings).await;
        let connected = PostgresBackend::connect(&bouncer.url()).await;
        match connected {
            Err(error) if is_refused => {
                assert!(error.is_misconfigured(), "{error:?}");
                assert!(error.to_string().contains("server_reset_query"), "{error}");
            }
            connected => assert_eq!(connected.is_err(), is_refused, "{connected:?}"),
        }
    }
}

/// Closes a connection; returns when the proxy can give its session to another.
async fn give_back(mut connection: PgConnection, pool: &PgPool) {
    let session = pid(&mut connection).await;
    connection.close().await.unwrap();
    eventually("the session is reset", || async {
        let reset = "SELECT state = 'idle' AND query LIKE 'DISCARD%' FROM pg_stat_activity \
             WHERE pid = $1";
        let reset = sqlx::query_scalar::<_, bool>(reset).bind(session);
        reset.fetch_one(pool).await.unwrap()
    })
    .await;
}

/// Each process has two sessions for as long as it connects, and gives one back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_start_at_a_time_get_through_a_pool_with_little_more_than_one_session_for_each()
 {
    let server = PostgresServer::start().await;
    let settings = [("pool_mode", "session"), ("default_pool_size", "10")];
    let bouncer = PgBouncer::with(&server, &settings).await;
    let mut starts = JoinSet::new();
    for _ in 0..8 {
        let url = bouncer.url();
        starts.spawn(async move { PostgresBackend::connect(&url).await });
    }
    for started in starts.join_all().await {
        started.unwrap();
    }
}

/// They would be notified of what they do not know, and clients end over less.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_shares_sessions_in_turn_is_found_out_before_one_of_them_listens() {
    const SESSIONS: usize = 6;
    let server = PostgresServer::start().await;
    let shares = [
        ("pool_mode", "transaction"),
        ("default_pool_size", "6"),
        ("server_round_robin", "1"),
    ];
    let bouncer = PgBouncer::with(&server, &shares).await;
    // So many at one time.
    let mut busy = JoinSet::new();
    for _ in 0..SESSIONS {
        let url = bouncer.url();
        busy.spawn(async move {
            let mut client = PgConnection::connect(&url).await.unwrap();
            let sleep = sqlx::raw_sql("SELECT pg_sleep(0.5)");
            sleep.execute(&mut client).await.unwrap();
        });
    }
    busy.join_all().await;
    for _ in 0..5 {
        let error = PostgresBackend::connect(&bouncer.url()).await.unwrap_err();
        assert!(error.to_string().contains("shares sessions"), "{error}");
    }
    let mut stranger = PgConnection::connect(&bouncer.url()).await.unwrap();
    for _ in 0..3 * SESSIONS {
        let listening = sqlx::raw_sql("SELECT pg_listening_channels()");
        let listening = listening.fetch_all(&mut stranger).await.unwrap();
        assert!(listening.is_empty());
    }
}
