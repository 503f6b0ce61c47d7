//! What the page says of what it knows, and of what it does not.

use std::time::{Duration, SystemTime};

use axum::Router;
use futures_util::FutureExt;
use lock_core::memory::MemoryBackend;
use lock_core::{Holder, ListedLock, LockMode, LockName, LockProvider};
use lock_tower::console;
use serde_json::Value;

use super::counted::{Counted, Play};
use super::{get, shown};

fn holder() -> Holder {
    Holder::new(LockMode::Exclusive)
}

fn ago(seconds: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(seconds)
}

fn lock(number: usize, holder: Holder) -> ListedLock {
    ListedLock::new(format!("key-{number:05}"), holder)
}

/// What a person reads of a store that says this, and a program.
async fn say(locks: impl IntoIterator<Item = ListedLock>) -> (String, Value) {
    let app = Counted::new(Play::Say(locks.into_iter().collect())).page();
    (text(&app).await, shown(&app).await)
}

/// The text of the page, with a bar for each tag.
async fn text(app: &Router) -> String {
    let html = String::from_utf8(get(app, "/locks").await).unwrap();
    let parts = html.split('<').map(|part| match part.split_once('>') {
        Some((_, text)) => text,
        None => part,
    });
    parts.collect::<Vec<_>>().join("|")
}

#[tokio::test]
async fn a_store_that_does_not_tell_instances_is_not_shown_as_one_without() {
    let (page, json) = say((0..3).map(|n| lock(n, holder()))).await;
    let said = "The store does not tell which instances hold locks.";
    assert!(page.contains(said), "{page}");
    assert!(!page.contains("by 1 instance"), "{page}");
    assert_eq!(json["store"]["instances_total"], 0, "{json}");

    let known = holder().with_instance("web-1:1");
    let (page, json) = say([lock(0, holder()), lock(1, holder()), lock(2, known)]).await;
    assert!(page.contains("|The store does not tell|"), "{page}");
    assert!(page.contains("by 1+ instances"), "{page}");
    assert_eq!(json["store"]["instances_total"], 1, "{json}");
    assert_eq!(json["store"]["instances"].as_array().unwrap().len(), 2);

    let (page, _) = say([]).await;
    assert!(page.contains("No instance holds a lock."), "{page}");

    // Which instances there are is not known either.
    let store = MemoryBackend::new();
    store.set_available(false);
    let page = text(&console::router(LockProvider::new(store))).await;
    assert!(page.contains(said), "{page}");
    assert!(!page.contains("No instance holds a lock."), "{page}");
}

#[tokio::test]
async fn a_lock_that_is_kept_closed_is_not_the_one_held_longest() {
    let kept = holder().with_instance("web-9:9").with_since(ago(9_000));
    let kept = kept.with_until(SystemTime::now() + Duration::from_secs(600));
    let held = holder().with_instance("web-1:1").with_since(ago(60));
    let (page, json) = say([lock(1, kept), lock(2, held)]).await;
    let glance = &page[page.find("Held longest").unwrap()..page.find("Longest line").unwrap()];
    assert!(
        glance.contains("web-1:1") && glance.contains("1m"),
        "{glance}"
    );
    assert!(!glance.contains("at least"), "{glance}");
    let rows = json["store"]["locks"].as_array().unwrap();
    assert_eq!(rows[0]["key"], "key-00002", "{json}");
    assert!(rows[1]["opens_in_ms"].is_u64(), "{json}");
}

#[tokio::test]
async fn of_many_locks_it_says_whether_those_are_shown_that_are_held_longest() {
    let since = |n: usize| holder().with_since(ago(n as u64 + 1));
    let (page, json) = say((0..300).map(|n| lock(n, since(n)))).await;
    let longest = "The 200 that are held longest, of 300.";
    assert!(page.contains(longest), "{page}");
    assert_eq!(json["store"]["locks"][0]["key"], "key-00299");

    let (page, _) = say((0..300).map(|n| lock(n, holder()))).await;
    assert!(page.contains("The first 200 of 300."), "{page}");

    // Of those that the store was not asked for one may be held longer.
    let (page, json) = say((0..10_001).map(|n| lock(n, since(n)))).await;
    assert!(page.contains("The first 200 of 10000 and more."), "{page}");
    assert!(page.contains("at least "), "{page}");
    assert_eq!(json["store"]["complete"], false);
}

#[tokio::test]
async fn each_section_has_the_count_of_all_that_is_of_it() {
    let locks = LockProvider::new(MemoryBackend::new());
    let names = (0..250).map(|id| LockName::new(&format!("e{id}"), "run", id).unwrap());
    let _held = locks.acquire_all(names, Duration::ZERO).await.unwrap();
    let waits = locks.clone();
    // Held for less long than 200 others.
    let in_line = LockName::new("e249", "run", 249).unwrap();
    let mut waiting = Box::pin(async move { waits.acquire(in_line, Duration::MAX).await });
    assert!((&mut waiting).now_or_never().is_none());
    let app = console::router(locks);
    let json = shown(&app).await;
    for (rows, total) in [("here", "here_total"), ("templates", "templates_total")] {
        assert_eq!(json[rows].as_array().unwrap().len(), 200, "{rows}");
        assert_eq!(json[total], 250, "{total}");
    }
    let page = text(&app).await;
    assert_eq!(page.matches("(250)").count(), 3, "{page}");
    assert_eq!(page.matches("The first 200 of 250.").count(), 2, "{page}");
    // Also of a lock that has no row.
    let line = &page[page.find("Longest line").unwrap()..page.find("Lost here lately").unwrap()];
    assert!(line.contains("|1|") && line.contains("e249:run"), "{line}");
}

#[tokio::test]
async fn more_losses_than_are_remembered_are_said_to_be_more() {
    let store = MemoryBackend::new();
    let locks = LockProvider::new(store.clone());
    // Other tests of this process can have lost some too.
    for id in 0..50 {
        let name = LockName::new("loss", "of", id).unwrap();
        let guard = locks.acquire(&name, Duration::ZERO).await.unwrap();
        assert!(store.revoke(&name));
        guard.lost().await;
    }
    let app = console::router(locks);
    assert_eq!(shown(&app).await["lost"].as_array().unwrap().len(), 50);
    let page = text(&app).await;
    assert_eq!(page.matches("50+").count(), 2, "{page}");
}

#[tokio::test]
async fn the_page_says_which_instance_has_answered() {
    let store = MemoryBackend::new().with_instance("web-1:4711").unwrap();
    let app = console::router(LockProvider::new(store));
    let page = text(&app).await;
    assert!(page.contains("Locks, as seen by |web-1:4711|"), "{page}");
    // A backend that does not say.
    let (page, json) = say([]).await;
    assert!(page.contains("|Locks|") && !page.contains("as seen by"));
    assert!(json["instance"].is_null(), "{json}");
}
