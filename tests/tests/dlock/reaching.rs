//! A store that is not reached, or grants nothing: what passes by itself is waited for, and what does not is said.

use std::process::Stdio;
use std::time::{Duration, Instant};

use lock_tests::servers::{PgBouncer, PostgresServer, RedisServer, Server};
use sqlx::Executor;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::support::{PATIENCE, Place, text};

/// A place at this server, which is not known to have lost no lock.
fn at(variable: &'static str, url: String) -> Place {
    let mut place = Place::files();
    place.environment = vec![(variable, url)];
    place
}

/// Runs a command that waits; once it has found no store, `mends` is done.
async fn waits_until(place: &Place, mends: impl AsyncFnOnce()) {
    let words = ["run", "job:one", "-v", "--wait", "60s", "--", "echo", "ran"];
    let mut dlock = place.dlock(&words);
    let dlock = dlock.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = dlock.spawn().unwrap();
    let mut said = BufReader::new(process.stderr.take().unwrap()).lines();
    let not_reached = async {
        while let Some(line) = said.next_line().await.unwrap() {
            if line.contains("the store is not reached yet") {
                return line;
            }
        }
        panic!("it ended")
    };
    let line = timeout(PATIENCE, not_reached).await.expect("it says so");
    mends().await;
    let rest = tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
    let output = timeout(PATIENCE, process.wait_with_output()).await;
    let output = output.expect("it ends").unwrap();
    rest.await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{line}");
    assert_eq!(text(&output.stdout), "ran\n");
}

#[tokio::test]
async fn a_server_that_is_down_is_waited_for() {
    let (redis, postgres) = (RedisServer::start().await, PostgresServer::start().await);
    redis.kill().await;
    postgres.kill().await;
    // A server that was restarted grants nothing for a lease.
    waits_until(&at("REDIS_URL", redis.url()), async || {
        redis.restart().await;
    })
    .await;
    waits_until(&at("DATABASE_URL", postgres.url()), async || {
        postgres.restart().await;
    })
    .await;
}

#[tokio::test]
async fn a_server_without_a_connection_is_waited_for() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let limit = "ALTER ROLE app CONNECTION LIMIT 0";
    pool.execute(limit).await.unwrap();
    let place = at("DATABASE_URL", server.url_for("app", "postgres"));
    let lifted = "ALTER ROLE app CONNECTION LIMIT -1";
    waits_until(&place, async || {
        pool.execute(lifted).await.unwrap();
    })
    .await;
}

/// Of ten that come together, one at a time has the two sessions that it needs.
#[tokio::test]
async fn those_that_a_pool_has_no_session_for_run_one_after_the_other() {
    let server = PostgresServer::start().await;
    let settings = [
        ("pool_mode", "session"),
        ("max_client_conn", "5"),
        ("server_reset_query", "DISCARD ALL"),
    ];
    let pooler = PgBouncer::with(&server, &settings).await;
    let place = at("DATABASE_URL", pooler.url());
    let names: Vec<_> = (0..10).map(|n| format!("job:n{n}")).collect();
    let runs = names.iter().map(|name| {
        let words = ["run", name, "--wait", "50s", "--", "true"];
        let mut dlock = place.dlock(&words);
        tokio::spawn(async move { dlock.output().await.unwrap() })
    });
    for run in runs.collect::<Vec<_>>() {
        let output = timeout(PATIENCE, run).await.expect("it ends").unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
}

#[tokio::test]
async fn a_store_that_stays_away_ends_the_wait_with_69_and_its_reason() {
    let dead = RedisServer::start().await;
    dead.kill().await;
    let place = at("REDIS_URL", dead.url());
    for (options, least) in [
        (&["--wait", "1s"][..], Duration::from_secs(1)),
        (&["--wait", "1s", "--skip"], Duration::from_secs(1)),
        (&["--skip"], Duration::ZERO),
        (&["--wait", "0"], Duration::ZERO),
        (&[], Duration::ZERO),
    ] {
        let words: Vec<_> = options.iter().chain(&["--", "true"]).copied().collect();
        let begun = Instant::now();
        let output = place.run(&words).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{options:?}: {said}");
        assert!(said.contains("cannot be connected to"), "{said}");
        assert!(begun.elapsed() >= least, "{options:?}");
    }
}

#[tokio::test]
async fn what_no_wait_mends_ends_it() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    pool.execute("ALTER ROLE app NOLOGIN").await.unwrap();
    let place = at("DATABASE_URL", server.url_for("app", "postgres"));
    let output = place.run(&["--wait", "1h", "--", "true"]).await;
    assert_eq!(output.status.code(), Some(78), "{output:?}");
}

/// A server that is new may have been another before, and grants nothing for a lease.
#[tokio::test]
async fn a_store_that_grants_nothing_now_is_no_holder() {
    let server = RedisServer::start().await;
    let place = at("REDIS_URL", server.url());
    for options in [
        &["--skip"][..],
        &["--wait", "0s"],
        &["--wait", "0.2s"],
        &["--skip", "--permits", "2"],
        &["--skip", "--shared"],
    ] {
        let words = [options, &["--", "echo", "ran"]].concat();
        let output = place.run(&words).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{options:?}: {said}");
        assert!(said.contains("the store grants no lock for "), "{said}");
        assert!(!said.contains("held by"), "{said}");
        assert_eq!(text(&output.stdout), "");
    }
    let asked = place.output(&["holder", "job:one"]).await;
    assert_eq!(asked.status.code(), Some(69), "{asked:?}");
    assert!(text(&asked.stderr).contains("the store grants no lock for "));
    let examined = place.output(&["doctor"]).await;
    assert_eq!(examined.status.code(), Some(2), "{examined:?}");
    assert!(text(&examined.stdout).contains("the store grants no lock for "));
}
