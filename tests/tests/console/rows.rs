//! What the page shows.

use std::time::Duration;

use lock_core::file::FileBackend;
use lock_core::memory::MemoryBackend;
use lock_core::postgres::{LeaseTable, PostgresBackend};
use lock_core::redis::RedisBackend;
use lock_core::{LockName, LockPolicy, LockProvider};
use lock_tests::eventually;
use lock_tests::servers::{PostgresServer, RedisServer};
use lock_tower::console::Console;
use serde_json::json;

use crate::browser::{Browser, Service};

/// Two instances over one store.
fn two(store: &MemoryBackend) -> [LockProvider; 2] {
    ["web-1:4711", "web-2:4712"].map(|instance| {
        let backend = store.clone().with_instance(instance).unwrap();
        LockProvider::new(backend)
    })
}

#[tokio::test]
async fn rows_come_and_go_as_locks_are_acquired_and_released() {
    let [here, there] = two(&MemoryBackend::new());
    let service = Service::start(Console::new(here.clone()).names(true)).await;
    let browser = Browser::at(&service).await;
    let heading = browser.text("h1").await;
    assert_eq!(heading, "Locks, as seen by web-1:4711");
    assert!(
        browser
            .text("[aria-labelledby=store]")
            .await
            .contains("Nothing is held.")
    );

    let ours = here.acquire("job:nightly", Duration::ZERO).await.unwrap();
    let theirs = there
        .acquire("order:process:42", Duration::ZERO)
        .await
        .unwrap();
    let wait = || {
        let here = here.clone();
        tokio::spawn(async move {
            here.acquire("order:process:42", Duration::from_secs(60))
                .await
        })
    };
    let waiting = [wait(), wait()];
    browser
        .until_reads("#store-rows", |rows| {
            rows.contains("web-1:4711")
                && rows.contains("web-2:4712")
                && rows.contains("job:nightly")
        })
        .await;
    browser
        .until_reads("#here-rows", |rows| {
            rows.contains("job:nightly")
                && rows.contains("order:process:42")
                && !rows.contains("web-2")
        })
        .await;
    // A line of two tasks.
    browser
        .until_reads(".glance", |facts| facts.contains("order:process:42"))
        .await;
    browser
        .until_reads("#instances-rows", |rows| rows.contains("web-2:4712"))
        .await;
    browser.keep_screenshot("page").await;

    theirs.release().await.unwrap();
    for waiting in waiting {
        waiting.await.unwrap().unwrap().release().await.unwrap();
    }
    ours.release().await.unwrap();
    browser
        .until_reads("[aria-labelledby=store]", |rows| {
            rows.contains("Nothing is held.")
        })
        .await;
    browser
        .until_reads("[aria-labelledby=here]", |rows| {
            rows.contains("Nothing is held or awaited")
        })
        .await;
}

/// Also where no name was chosen.
#[tokio::test]
async fn an_instance_is_called_on_its_page_as_in_its_store() {
    let (postgres, redis) = (PostgresServer::start().await, RedisServer::start().await);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("locks");
    let session = PostgresBackend::connect(&postgres.url()).await.unwrap();
    let table = LeaseTable::connect(&postgres.url()).await.unwrap();
    let redis = RedisBackend::builder(&redis.url()).quarantine(Duration::ZERO);
    let files = FileBackend::builder(&path).instance("web-1:4711");
    for locks in [
        LockProvider::new(MemoryBackend::new()),
        LockProvider::new(FileBackend::open(&path).unwrap()),
        LockProvider::new(files.open().unwrap()),
        LockProvider::new(session),
        LockProvider::new(table),
        LockProvider::new(redis.connect().await.unwrap()),
    ] {
        let guard = locks.acquire("job:nightly", Duration::ZERO).await.unwrap();
        let json = Service::of(&locks).await.json().await;
        let holder = &json["store"]["locks"][0]["instance"];
        assert!(holder.is_string(), "{json}");
        assert_eq!(json["instance"], *holder, "{json}");
        guard.release().await.unwrap();
    }
}

#[tokio::test]
async fn each_reader_of_a_lease_table_is_a_row_with_its_mode() {
    let server = PostgresServer::start().await;
    let instance = async |name: &str| {
        let backend = LeaseTable::builder(server.url()).instance(name);
        LockProvider::new(backend.connect().await.unwrap())
    };
    let (here, there) = (instance("web-1:4711").await, instance("web-2:4712").await);
    let read = |locks: &LockProvider| locks.lock("catalog:read:7").unwrap().shared();
    let ours = read(&here).acquire(Duration::ZERO).await.unwrap();
    let theirs = read(&there).acquire(Duration::ZERO).await.unwrap();
    let service = Service::of(&here).await;
    let json = service.json().await;
    let rows = json["store"]["locks"].as_array().unwrap().iter();
    let mut rows: Vec<_> = rows.map(|row| (&row["instance"], &row["mode"])).collect();
    rows.sort_by_key(|(instance, _)| instance.to_string());
    assert_eq!(
        json!(rows),
        json!([["web-1:4711", "shared"], ["web-2:4712", "shared"]]),
        "{json}"
    );
    assert_eq!(json["here"][0]["readers"], 1, "{json}");
    let browser = Browser::at(&service).await;
    let is_shown = |rows: &str| rows.matches("shared").count() == 2 && rows.contains("web-2:4712");
    browser.until_reads("#store-rows", is_shown).await;
    theirs.release().await.unwrap();
    ours.release().await.unwrap();
}

#[tokio::test]
async fn a_loss_and_refusals_are_shown() {
    let store = MemoryBackend::new();
    let locks = LockProvider::new(store.clone());
    let service = Service::of(&locks).await;
    let browser = Browser::at(&service).await;
    let name: LockName = "report:rebuild:2026".parse().unwrap();
    let guard = locks.acquire(&name, Duration::ZERO).await.unwrap();
    assert!(
        locks
            .try_acquire(&name, Duration::ZERO)
            .await
            .unwrap()
            .is_none()
    );
    assert!(store.revoke(&name));
    eventually("the loss is seen", || async { !guard.is_valid() }).await;
    browser
        .until_reads("#lost-rows", |rows| {
            rows.contains("report:rebuild") && rows.contains("revoked")
        })
        .await;
    browser
        .until_reads("#templates-rows", |rows| rows.contains("report:rebuild"))
        .await;
    let json = service.json().await;
    let templates = json["templates"].as_array().unwrap();
    let template = templates
        .iter()
        .find(|row| row["lock"] == "report:rebuild")
        .unwrap();
    assert!(template["contended"].as_u64().unwrap() >= 1, "{json}");
    // Names are not shown unless they were asked for.
    assert!(!json.to_string().contains("2026\""), "{json}");
}

#[tokio::test]
async fn a_lock_that_is_kept_is_shown_without_a_task_that_waits() {
    let locks = LockProvider::new(MemoryBackend::new());
    let service = Service::of(&locks).await;
    let kept = LockPolicy::background_job().with_at_least(Duration::from_secs(600));
    locks
        .acquire("job:tick", kept)
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    let json = service.json().await;
    let row = &json["here"][0];
    assert_eq!(row["lock"], "job:tick", "{json}");
    assert!(row["held_ms"].is_null() && row["waiting"] == 0, "{json}");
}

#[tokio::test]
async fn of_ten_thousand_locks_the_first_two_hundred_are_shown() {
    let server = RedisServer::start().await;
    let backend = RedisBackend::builder(&server.url()).quarantine(Duration::ZERO);
    let locks = LockProvider::new(backend.connect().await.unwrap());
    let names = (0..10_000).map(|id| LockName::new("order", "process", id).unwrap());
    let guards = locks.claim(names, 10_000).await.unwrap();
    assert_eq!(guards.len(), 10_000);
    let service = Service::of(&locks).await;
    // The page waits for its store no longer than its readers do; on a busy machine it is not there by then.
    eventually("the store has answered", || async {
        service.json().await["store"]["error"].is_null()
    })
    .await;
    let json = service.json().await;
    assert_eq!(json["store"]["listed"], 10_000);
    assert_eq!(json["store"]["complete"], true);
    assert_eq!(json["store"]["locks"].as_array().unwrap().len(), 200);
    assert_eq!(json["here"].as_array().unwrap().len(), 200);
    assert_eq!(json["here_total"], 10_000);
    let browser = Browser::at(&service).await;
    browser
        .until_reads("[aria-labelledby=store] .meta", |said| {
            said == "The 200 that are held longest, of 10000."
        })
        .await;
    let rows = browser
        .run("return document.querySelectorAll('#store-rows tbody tr').length")
        .await;
    assert_eq!(rows, 200);
    drop(guards);
}

#[tokio::test]
async fn a_store_that_is_down_is_said_and_the_rest_shown() {
    let store = MemoryBackend::new();
    let locks = LockProvider::new(store.clone());
    let service = Service::of(&locks).await;
    let guard = locks.acquire("job:nightly", Duration::ZERO).await.unwrap();
    store.set_available(false);
    let browser = Browser::at(&service).await;
    browser
        .until_reads("[aria-labelledby=store] .error", |said| {
            said.starts_with("The store does not tell: ")
        })
        .await;
    assert!(browser.text("#here-rows").await.contains("job:nightly"));
    store.set_available(true);
    browser
        .until_reads("#store-rows", |rows| rows.contains("exclusive"))
        .await;
    guard.release().await.unwrap();
}
