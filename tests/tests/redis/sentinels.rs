//! A master that Sentinels name, and others that take its place.

use std::time::{Duration, Instant};

use lock_core::redis::RedisBackend;
use lock_core::{Credentials, LockError, LockProvider, LockSettings, ProviderKind};
use lock_tests::child::Child;
use lock_tests::servers::{
    Port, RedisSentinels, RedisServer, Server, sentinel as start_sentinel, sentinels_url,
};
use lock_tests::{Lateness, Log, eventually};
use tokio::time::sleep;
use tracing::Level;

use crate::support::{BOUND, LEASE, careful_client, client, is_held, take, token, try_once};

/// Longer than a Sentinel takes to see that a replica was promoted, with a renewal before and after.
const LONG: Duration = LEASE.saturating_mul(3);

/// A client with that lease.
async fn patient_client(url: &str) -> LockProvider {
    let backend = RedisBackend::builder(url).lease(LONG).connect();
    LockProvider::new(backend.await.unwrap())
}

async fn refused(url: &str) -> LockError {
    RedisBackend::connect(url).await.expect_err("it is refused")
}

/// What an error shows anywhere.
fn text(error: &LockError) -> String {
    let source = std::error::Error::source(error);
    format!(
        "{error} {error:?} {}",
        source
            .map(|source| format!("{source} {source:?}"))
            .unwrap_or_default()
    )
}

/// Returns when it was granted the lock after a fail-over, and had it to the end: what the former master, which lives
/// on for a while, grants at first is lost.
async fn serves_again(client: &LockProvider) {
    eventually("it serves again", || async {
        take(client).await.release().await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn locks_are_had_from_the_master_while_a_sentinel_is_dead() {
    let set = RedisSentinels::start().await;
    set.sentinels()[0].kill().await;
    let (here, there) = (client(&set.url()).await, client(&set.url()).await);
    let guard = take(&here).await;
    assert!(try_once(&there).await.unwrap().is_none());
    let waiting = tokio::spawn(async move {
        let guard = take(&there).await;
        (there, guard)
    });
    guard.release().await.unwrap();
    let (_there, guard) = waiting.await.unwrap();
    // As .NET writes it, from the environment.
    let sentinels = set
        .sentinels()
        .iter()
        .map(|server| server.address().to_string());
    let sentinels = sentinels.collect::<Vec<_>>().join(",");
    let settings = LockSettings::new()
        .redis_url(format!("{sentinels},serviceName=shop"))
        .provider(ProviderKind::Redis);
    let (log, logging) = Log::of_thread(Level::INFO);
    let settled = LockProvider::connect(settings).await.unwrap();
    drop(logging);
    assert!(
        log.text().contains("shop of Sentinels 127.0.0.1"),
        "{}",
        log.text()
    );
    assert!(settled.health().await.is_up());
    assert!(is_held(&settled).await);
    guard.release().await.unwrap();
}

/// The former master goes on as one for some 10 s, and all who talk to it can be granted locks there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_lives_through_a_fail_over_that_is_ordered() {
    let set = RedisSentinels::start().await;
    let here = patient_client(&set.url()).await;
    let former = set.master().await;
    let guard = take(&here).await;
    let before = token(&guard).await;
    set.fail_over().await;
    let ordered = Instant::now();
    let there = patient_client(&set.url()).await;
    let waiting = tokio::spawn(async move {
        let guard = take(&there).await;
        (there, guard)
    });
    // Renewed at the new master, which would have forgotten it else while the former still knows it.
    sleep(2 * LONG).await;
    assert!(
        guard.is_valid() && !waiting.is_finished(),
        "{:?}",
        ordered.elapsed()
    );
    assert!(set.master().await.port() != former.port());
    // Heard at the new master.
    let late = Lateness::of(Duration::ZERO);
    guard.release().await.unwrap();
    let (_there, next) = waiting.await.unwrap();
    late.at_most(BOUND).await;
    assert!(token(&next).await > before);
}

/// What the new master lacks is lost before another is granted it, though the former one knows it still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_master_that_lives_on_makes_no_second_guard() {
    let set = RedisSentinels::start().await;
    let here = careful_client(&set.url()).await;
    let guard = take(&here).await;
    let new = set.fail_over().await;
    let () = new.ask(&["FLUSHALL"]).await.unwrap();
    let there = careful_client(&set.url()).await;
    let _other = take(&there).await;
    assert!(!guard.is_valid(), "both are valid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_is_replaced_and_tokens_grow() {
    let set = RedisSentinels::start().await;
    let (here, there) = (
        careful_client(&set.url()).await,
        careful_client(&set.url()).await,
    );
    let guard = take(&here).await;
    let before = token(&guard).await;
    let master = set.master().await;
    master.kill().await;
    set.until_replaced(master).await;
    // Renewed at the new master in time, or lost.
    drop(guard);
    let next = take(&there).await;
    assert!(token(&next).await > before);
    next.release().await.unwrap();
    take(&here).await.release().await.unwrap();
}

#[tokio::test]
async fn locks_go_on_while_all_sentinels_are_dead_or_frozen() {
    let set = RedisSentinels::start().await;
    let here = client(&set.url()).await;
    let guard = take(&here).await;
    for sentinel in set.sentinels() {
        sentinel.freeze().await;
    }
    sleep(2 * LEASE).await;
    assert!(guard.is_valid());
    for sentinel in set.sentinels() {
        sentinel.kill().await;
    }
    sleep(2 * LEASE).await;
    assert!(guard.is_valid());
    guard.release().await.unwrap();
    take(&here).await.release().await.unwrap();
    let error = refused(&set.url()).await;
    assert!(error.is_unavailable(), "{error}");
    assert!(
        error.to_string().contains("no Redis Sentinel answers"),
        "{error}"
    );
}

#[tokio::test]
async fn a_sentinel_that_is_behind_leads_to_no_replica() {
    let set = RedisSentinels::start().await;
    let [behind, others @ ..] = set.sentinels() else {
        unreachable!()
    };
    behind.kill().await;
    let former = set.master().await;
    let here = careful_client(&set.url()).await;
    set.fail_over().await;
    set.until_replaced(former).await;
    set.until_demoted(former).await;
    take(&here).await.release().await.unwrap();
    for other in others {
        other.kill().await;
    }
    behind.restart().await;
    // It names the former master, which says that it is none.
    let error = refused(&set.url()).await;
    assert!(error.is_unavailable(), "{error}");
    let said = error.to_string();
    assert!(
        said.contains("read-only replica") && said.contains("Sentinels name it"),
        "{said}"
    );
    // Who knows better goes on where it is.
    take(&here).await.release().await.unwrap();
}

#[tokio::test]
async fn sentinels_of_two_masters_are_refused_with_both() {
    let (one, other) = tokio::join!(RedisServer::start(), RedisServer::start());
    let (of_one, of_other) =
        tokio::join!(start_sentinel(&one, 1, &[]), start_sentinel(&other, 1, &[]));
    let error = refused(&sentinels_url(&[of_one, of_other], "")).await;
    assert!(error.is_misconfigured(), "{error}");
    for server in [&one, &other] {
        assert!(
            error.to_string().contains(&server.address().to_string()),
            "{error}"
        );
    }
}

#[tokio::test]
async fn what_is_wrong_about_sentinels_is_refused_by_name() {
    let server = RedisServer::start().await;
    let sentinel = start_sentinel(&server, 1, &[]).await;
    let at = sentinel.address();
    let free = Port::reserve();
    for (url, says) in [
        (
            format!("redis+sentinel://{at}/other"),
            "knows a master `other`",
        ),
        (
            format!("redis+sentinel://{at},{}/other", server.address()),
            "does not know it",
        ),
        (
            format!("redis+sentinel://{}/shop", server.address()),
            "is no Sentinel",
        ),
        (format!("redis://{at}"), "is that of a Redis Sentinel"),
    ] {
        let error = refused(&url).await;
        assert!(error.is_misconfigured(), "{}", text(&error));
        assert!(error.to_string().contains(says), "{url}: {error}");
    }
    let error = refused(&format!(
        "redis+sentinel://127.0.0.1:{}/shop",
        free.number()
    ))
    .await;
    assert!(error.is_unavailable(), "{error}");
    // One that knows it is enough.
    let beside = format!("redis+sentinel://127.0.0.1:{},{at}/shop", free.number());
    RedisBackend::connect(&beside).await.unwrap();
}

#[tokio::test]
async fn a_master_at_an_address_that_leads_nowhere_is_named() {
    let server = RedisServer::start().await;
    let sentinel = start_sentinel(&server, 1, &[]).await;
    server.kill().await;
    let error = refused(&sentinels_url(&[sentinel], "")).await;
    assert!(error.is_unavailable(), "{error}");
    let said = error.to_string();
    let address = server.address().to_string();
    assert!(
        said.contains(&address) && said.contains("replica-announce-ip"),
        "{said}"
    );
}

#[tokio::test]
async fn sentinels_and_the_server_have_passwords_of_their_own() {
    let options = RedisServer::options()
        .setting("requirepass", "hunter1")
        .setting("masterauth", "hunter1");
    let set = RedisSentinels::of(options, &[("requirepass", "hunter2")]).await;
    let url = set.url_for(":hunter1");
    // That of the server is not shown to a Sentinel.
    for url in [url.clone(), format!("{url}?sentinel_password=hunter3")] {
        let error = refused(&url).await;
        assert!(error.is_misconfigured(), "{}", text(&error));
        assert!(
            error.to_string().contains("sentinel_credentials"),
            "{error}"
        );
        assert!(!text(&error).contains("hunter"), "{}", text(&error));
    }
    let error = refused(&format!(
        "{}?sentinel_password=hunter2",
        set.url_for(":hunter4")
    ))
    .await;
    assert!(error.is_misconfigured(), "{}", text(&error));
    assert!(!text(&error).contains("hunter"), "{}", text(&error));
    let here = client(&format!("{url}?sentinel_password=hunter2")).await;
    let builder = RedisBackend::builder(&url)
        .lease(LEASE)
        .quarantine(Duration::ZERO);
    let builder = builder.sentinel_credentials(Credentials::password("hunter2"));
    let there = LockProvider::new(builder.connect().await.unwrap());
    let guard = take(&here).await;
    assert!(is_held(&there).await);
    drop(guard);
    set.fail_over().await;
    serves_again(&here).await;
    let server = RedisServer::start().await;
    let builder = RedisBackend::builder(&server.url());
    let builder = builder.sentinel_credentials(Credentials::password("hunter2"));
    assert!(builder.connect().await.unwrap_err().is_misconfigured());
}

#[tokio::test]
async fn sentinels_are_spoken_to_over_tls_as_the_server_is() {
    let set = RedisSentinels::of(RedisServer::options().tls(), &[]).await;
    let authority = set.servers()[0].authority().unwrap();
    let connect = async || {
        let backend = RedisBackend::builder(&set.url())
            .ca_file(authority)
            .lease(LEASE);
        LockProvider::new(backend.connect().await.unwrap())
    };
    assert!(set.url().starts_with("rediss+sentinel://"));
    let (here, there) = (connect().await, connect().await);
    let guard = take(&here).await;
    assert!(is_held(&there).await);
    drop(guard);
    set.fail_over().await;
    serves_again(&here).await;
    let error = refused(&set.url()).await;
    assert!(text(&error).contains("trusted"), "{}", text(&error));
}

#[tokio::test]
async fn a_redis_beside_the_locks_is_well_as_its_master_is() {
    let server = RedisServer::start().await;
    let sentinels = [start_sentinel(&server, 1, &[]).await];
    let directory = tempfile::tempdir().unwrap();
    let settings = LockSettings::new()
        .provider(ProviderKind::File)
        .redis_url(sentinels_url(&sentinels, ""))
        .dir(directory.path().join("locks"));
    let locks = LockProvider::connect(settings).await.unwrap();
    let is_up = async || {
        let health = locks.health().await;
        let beside = health.servers().iter().find(|server| !server.is_needed());
        beside.unwrap().is_up()
    };
    assert!(is_up().await);
    server.kill().await;
    eventually("it is not well", async || !is_up().await).await;
    server.restart().await;
    eventually("it is well", async || is_up().await).await;
}

/// A name server that does not answer holds up no Sentinel that is known by its address.
#[tokio::test]
async fn a_name_that_is_looked_up_slowly_holds_up_no_connect() {
    let master = RedisServer::start().await;
    let start = || RedisServer::options().sentinel_of(master.address()).start();
    let (first, second) = tokio::join!(start(), start());
    // An address of this machine that no other test has.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let silent = std::net::Ipv4Addr::new(127, 77, high, low);
    let _silent = tokio::net::UdpSocket::bind((silent, 53)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let resolver = directory.path().join("resolv.conf");
    let servers = format!("nameserver {silent}\noptions timeout:30 attempts:1\n");
    std::fs::write(&resolver, servers).unwrap();
    let mut command = tokio::process::Command::new("unshare");
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(resolver);
    command.arg(env!("CARGO_BIN_EXE_locker"));
    let seeds = format!(
        "{},{},sentinels.test:26379",
        first.address(),
        second.address()
    );
    let address = format!("redis:2000:0:redis+sentinel://{seeds}/shop");
    let late = Lateness::of(Duration::ZERO);
    let mut child = Child::start_by(command, &address).await;
    assert_eq!(child.ask("acquire order:process:1 0").await, "granted");
    late.at_most(2 * BOUND).await;
}
