//! What these tests have in common.

use std::time::Duration;

use lock_core::redis::RedisBackend;
use lock_core::{LockError, LockGuard, LockProvider};
use lock_tests::eventually;
use lock_tests::servers::RedisServer;
use tokio::time::sleep;

/// Short, and long enough for a machine that is busy.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// How much earlier than its lease a guard ends: 1 % and 50 ms.
pub(crate) const MARGIN: Duration = Duration::from_millis(70);

/// By when an answer that does not come is given up: see `LockProvider::new`.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Longer than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// For work of the machine between two events.
pub(crate) const BOUND: Duration = Duration::from_millis(500);

pub(crate) const NAME: &str = "order:process:42";

/// A client without a quarantine: its server is new.
pub(crate) async fn client(url: &str) -> LockProvider {
    let backend = RedisBackend::builder(url)
        .lease(LEASE)
        .quarantine(Duration::ZERO);
    LockProvider::new(backend.connect().await.unwrap())
}

/// A client for thousands of names in a call: it renews nothing while a test lasts, and gives a busy machine
/// time for its part in an answer.
pub(crate) async fn unhurried(url: &str) -> LockProvider {
    let backend = RedisBackend::builder(url)
        .lease(Duration::from_secs(3_600))
        .quarantine(Duration::ZERO);
    let client = LockProvider::builder(backend.connect().await.unwrap());
    client.response_timeout(PATIENCE).build()
}

/// A client as production has it.
pub(crate) async fn careful_client(url: &str) -> LockProvider {
    let backend = RedisBackend::builder(url).lease(LEASE);
    LockProvider::new(backend.connect().await.unwrap())
}

pub(crate) async fn take(client: &LockProvider) -> LockGuard {
    client.lock(NAME).unwrap().acquire(PATIENCE).await.unwrap()
}

pub(crate) async fn try_once(client: &LockProvider) -> Result<Option<LockGuard>, LockError> {
    client.lock(NAME).unwrap().try_acquire(Duration::ZERO).await
}

/// Waits for a lock that is held for longer.
pub(crate) async fn wait_in_vain(client: &LockProvider) {
    let waited = client.lock(NAME).unwrap().acquire(BOUND).await;
    let error = waited.unwrap_err();
    assert!(error.is_contended(), "{error}");
}

pub(crate) async fn is_held(client: &LockProvider) -> bool {
    lock_tests::is_held(client, NAME).await
}

pub(crate) async fn token(guard: &LockGuard) -> u64 {
    guard.fencing_token().await.unwrap().get()
}

/// How many scripts the server has run.
pub(crate) async fn scripts_run(server: &RedisServer) -> u64 {
    calls_of(server, "evalsha").await
}

/// How often the server has run this command, by a client or by a script.
pub(crate) async fn calls_of(server: &RedisServer, command: &str) -> u64 {
    let stats: String = server.ask(&["INFO", "commandstats"]).await.unwrap();
    let start = format!("cmdstat_{command}:");
    let line = stats.lines().find(|line| line.starts_with(&start));
    line.unwrap()
        .split(['=', ','])
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// Commands that the server has run, those that scripts call included.
pub(crate) async fn commands_run(server: &RedisServer) -> u64 {
    let stats: String = server.ask(&["INFO", "commandstats"]).await.unwrap();
    let calls = stats.lines().filter_map(|line| {
        let calls = line.strip_prefix("cmdstat_")?.split_once("calls=")?.1;
        calls.split_once(',')?.0.parse::<u64>().ok()
    });
    calls.sum()
}

/// Returns when the server has run fewer commands than `most` in a time as long as `window`, however long what
/// was on its way took to arrive.
pub(crate) async fn comes_to_rest(server: &RedisServer, most: u64, window: Duration) {
    eventually("it comes to rest", async || {
        let before = commands_run(server).await;
        sleep(window).await;
        commands_run(server).await - before < most
    })
    .await;
}
