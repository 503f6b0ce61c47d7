//! Passwords that change while a process runs.

use std::convert::Infallible;
use std::future::pending;
use std::time::{Duration, Instant};

use lock_core::redis::{RedisBackend, RedisBuilder};
use lock_core::{Credentials, LockProvider};
use lock_tests::servers::{RedisCluster, RedisServer, Server};
use lock_tests::{Lateness, Log, Vault, doubling, eventually};

use crate::support::{LEASE, PATIENCE, client, take, try_once};

const FIRST: &str = "hunter1-first";
const SECOND: &str = "hunter2-second";

/// The user has this password and no other.
async fn rotate(server: &RedisServer, password: &str) {
    let password = format!(">{password}");
    let rights = ["on", "resetpass", &password, "~*", "&*", "+@all"];
    let () = server
        .ask(&[&["ACL", "SETUSER", "rotating"], &rights[..]].concat())
        .await
        .unwrap();
}

/// Ends the connections of the user, and no others.
async fn end_connections(server: &RedisServer) -> usize {
    server
        .ask(&["CLIENT", "KILL", "USER", "rotating"])
        .await
        .unwrap()
}

/// How many connections the user has.
async fn connections(server: &RedisServer) -> usize {
    let list: String = server.ask(&["CLIENT", "LIST"]).await.unwrap();
    list.lines()
        .filter(|line| line.contains(" user=rotating "))
        .count()
}

fn builder(url: &str, vault: &Vault) -> RedisBuilder {
    let vault = vault.clone();
    RedisBackend::builder(url)
        .lease(LEASE)
        .quarantine(Duration::ZERO)
        .credentials(move || vault.clone().read())
}

/// Logins with a wrong password.
async fn failed_logins(server: &RedisServer) -> u64 {
    let stats: String = server.ask(&["INFO", "stats"]).await.unwrap();
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("acl_access_denied_auth:"));
    if let Some(line) = line {
        return line.trim().parse().unwrap();
    }
    // Before 7.2: what is alike is one entry, with a count.
    let log: Vec<Vec<redis::Value>> = server.ask(&["ACL", "LOG"]).await.unwrap();
    let counts = log
        .into_iter()
        .map(|entry| redis::from_redis_value::<u64>(entry[1].clone()).unwrap());
    counts.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_asked_for_each_connection_and_locks_live_on() {
    let server = RedisServer::start().await;
    rotate(&server, FIRST).await;
    let vault = Vault::with(Credentials::new("rotating", FIRST));
    let backend = builder(&server.url(), &vault).connect().await.unwrap();
    let (here, there) = (LockProvider::new(backend), client(&server.url()).await);
    for (round, password) in [SECOND, FIRST, SECOND].into_iter().enumerate() {
        let guard = take(&here).await;
        eventually("both connections are there", async || {
            connections(&server).await == 2
        })
        .await;
        rotate(&server, password).await;
        vault.set(Credentials::new("rotating", password));
        assert_eq!(end_connections(&server).await, 2);
        // Longer than a lease: it is renewed over the new connection.
        tokio::time::sleep(LEASE + LEASE / 2).await;
        assert!(guard.is_valid(), "round {round}");
        guard.release().await.unwrap();
        // And what is for messages works: no waiter asks before the lease of the holder ends.
        let held = take(&there).await;
        let waiting = tokio::spawn({
            let here = here.clone();
            async move { take(&here).await }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        let late = Lateness::of(Duration::ZERO);
        held.release().await.unwrap();
        drop(waiting.await.unwrap());
        late.at_most(LEASE / 2).await;
    }
    assert_eq!(failed_logins(&server).await, 0);
    assert!(
        (8..=16).contains(&vault.asked()),
        "asked {} times",
        vault.asked()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_no_reason_to_ask_many_times_a_second() {
    let server = RedisServer::start().await;
    rotate(&server, FIRST).await;
    let vault = Vault::with(Credentials::new("rotating", FIRST));
    let backend = builder(&server.url(), &vault).connect().await.unwrap();
    let here = LockProvider::new(backend);
    server.stop().await;
    let before = vault.asked();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert!(try_once(&here).await.is_err());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let asked = vault.asked() - before;
    // For each of two connections.
    let most = 2 * doubling(begun.elapsed());
    assert!((1..=most).contains(&asked), "asked {asked} times");
    // With another password than before: a server that keeps nothing has no users after a restart.
    server.restart().await;
    rotate(&server, SECOND).await;
    vault.set(Credentials::new("rotating", SECOND));
    drop(take(&here).await);
}

/// The password of the user that everyone is who does not say who it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_of_the_server_can_change() {
    let server = RedisServer::start().await;
    // Made before, and of that user too.
    let mut admin = server.connection().await;
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("requirepass");
    let () = set
        .clone()
        .arg(FIRST)
        .query_async(&mut admin)
        .await
        .unwrap();
    let vault = Vault::with(Credentials::new("rotating", FIRST));
    vault.set(Credentials::password(FIRST));
    let here = LockProvider::new(builder(&server.url(), &vault).connect().await.unwrap());
    let guard = take(&here).await;
    let () = set
        .clone()
        .arg(SECOND)
        .query_async(&mut admin)
        .await
        .unwrap();
    vault.set(Credentials::password(SECOND));
    for kind in ["normal", "pubsub"] {
        let mut kill = redis::cmd("CLIENT");
        kill.arg("KILL")
            .arg("TYPE")
            .arg(kind)
            .arg("SKIPME")
            .arg("yes");
        let _: usize = kill.query_async(&mut admin).await.unwrap();
    }
    tokio::time::sleep(LEASE + LEASE / 2).await;
    assert!(guard.is_valid());
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_of_a_cluster_is_connected_to_with_the_credentials_of_now() {
    let cluster = RedisCluster::patient().await;
    for node in cluster.nodes() {
        rotate(node, FIRST).await;
    }
    let vault = Vault::with(Credentials::new("rotating", FIRST));
    let backend = builder(&cluster.urls()[0], &vault).connect().await.unwrap();
    let here = LockProvider::new(backend);
    let names: Vec<_> = (0..60).map(|n| format!("order:process:{n}")).collect();
    let mut guards = Vec::new();
    for name in &names {
        guards.push(
            here.lock(name.as_str())
                .unwrap()
                .acquire(PATIENCE)
                .await
                .unwrap(),
        );
    }
    vault.set(Credentials::new("rotating", SECOND));
    for node in cluster.nodes() {
        rotate(node, SECOND).await;
        assert!(end_connections(node).await >= 1);
    }
    tokio::time::sleep(LEASE + LEASE / 2).await;
    for guard in guards {
        assert!(guard.is_valid());
        guard.release().await.unwrap();
    }
    for node in cluster.nodes() {
        assert_eq!(failed_logins(node).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_gives_no_credentials_is_an_error_of_the_start_that_says_so() {
    let server = RedisServer::start().await;
    rotate(&server, FIRST).await;
    let url = server.url();
    let builder = || RedisBackend::builder(&url);
    let failing = builder().credentials(|| async { Err("the vault is sealed") });
    let error = failing.connect().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(
        error.to_string().contains("`credentials` failed"),
        "{error}"
    );
    let panicking = builder().credentials(|| async { panic!("{SECOND}") as Result<_, Infallible> });
    let error = panicking.connect().await.unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(
        said.contains("panicked") && !said.contains(SECOND),
        "{said}"
    );
    let late = Lateness::of(Duration::from_secs(5));
    let hanging = builder().credentials(pending::<Result<_, Infallible>>);
    let error = hanging.connect().await.unwrap_err();
    assert!(error.to_string().contains("within 5s"), "{error}");
    late.at_most(Duration::from_secs(3)).await;
    let vault = Vault::with(Credentials::new("rotating", SECOND));
    let wrong = builder().credentials(move || vault.clone().read());
    let error = wrong.connect().await.unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(
        error.is_misconfigured() && said.contains("given to `credentials`"),
        "{said}"
    );
    assert!(!said.contains(SECOND), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_was_refused_is_not_shown_to_the_server_at_each_attempt() {
    let log = Log::of_process();
    let server = RedisServer::start().await;
    rotate(&server, FIRST).await;
    let vault = Vault::with(Credentials::new("rotating", FIRST));
    let backend = builder(&server.url(), &vault).connect().await.unwrap();
    let here = LockProvider::new(backend);
    rotate(&server, SECOND).await;
    let (begun, mut said) = (Instant::now(), String::new());
    assert!(end_connections(&server).await >= 1);
    while begun.elapsed() < Duration::from_secs(6) {
        if let Err(error) = try_once(&here).await {
            assert!(error.is_unavailable(), "{error}");
            said = error.to_string();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(said.contains("refused the user or the password"), "{said}");
    assert!(said.contains("given to `credentials`"), "{said}");
    // After 0, 1, 3 and 7 s, and both connections at the same time once.
    let failed = usize::try_from(failed_logins(&server).await).unwrap();
    let most = doubling(begun.elapsed()) + 2;
    assert!((2..=most).contains(&failed), "{failed} logins");
    // Another one is tried as soon as it is given.
    vault.set(Credentials::new("rotating", SECOND));
    let late = Lateness::of(Duration::ZERO);
    drop(take(&here).await);
    late.at_most(Duration::from_secs(2)).await;
    let written = log.text();
    assert!(!written.contains(FIRST) && !written.contains(SECOND));
}
