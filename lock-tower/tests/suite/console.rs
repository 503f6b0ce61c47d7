//! The operators' page: what its JSON has, what it says, and where it is.

mod counted;
mod looks;
mod said;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::future::join_all;
use http::Request;
use http_body_util::BodyExt;
use lock_core::memory::MemoryBackend;
use lock_core::{LockName, LockProvider};
use lock_tower::console::{self, Console};
use serde_json::{Value, json};
use tower::ServiceExt;

use self::counted::{Counted, Play};

async fn get(app: &Router, path: &str) -> Vec<u8> {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let answer = app.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .to_vec()
}

async fn shown(app: &Router) -> Value {
    serde_json::from_slice(&get(app, "/locks.json").await).unwrap()
}

fn members(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// Programs rely on them.
#[tokio::test]
async fn the_members_of_the_json_are_as_documented() {
    let store = MemoryBackend::new().with_instance("web-1:4711").unwrap();
    let locks = LockProvider::new(store.clone());
    let lost = locks
        .acquire("report:rebuild:7", Duration::ZERO)
        .await
        .unwrap();
    assert!(store.revoke(lost.name()));
    lost.lost().await;
    drop(lost);
    let _held = locks
        .acquire("order:process:42", Duration::ZERO)
        .await
        .unwrap();
    let shown = shown(&console::router(locks)).await;
    fn sorted(of: &str) -> Vec<&str> {
        let mut names: Vec<_> = of.split(' ').collect();
        names.sort_unstable();
        names
    }
    let has = |value: &Value, of: &str| {
        let mut found = members(value);
        found.sort_unstable();
        assert_eq!(found, sorted(of), "{value}");
    };
    let all = "backend instance taken_at store here here_total lost templates templates_total";
    has(&shown, all);
    let of_store = "error age_ms listed complete locks instances instances_total";
    has(&shown["store"], of_store);
    let lock = &shown["store"]["locks"][0];
    has(lock, "key name instance held_ms opens_in_ms mode awaited");
    has(&shown["store"]["instances"][0], "instance locks");
    has(&shown["here"][0], "lock name held_ms readers waiting");
    has(&shown["lost"][0], "lock name at held_ms reason");
    has(&shown["templates"][0], "lock held waiting contended failed");
    assert_eq!(shown["backend"], "memory");
    assert_eq!(shown["instance"], "web-1:4711");
    assert_eq!(shown["here_total"], 1);
    assert_eq!(shown["templates_total"], 2);
    assert_eq!(shown["store"]["instances_total"], 1);
    assert_eq!(lock["instance"], "web-1:4711");
    assert_eq!(shown["here"][0]["lock"], "order:process");
    assert_eq!(shown["lost"][0]["reason"], "revoked");
}

#[tokio::test]
async fn names_are_shown_where_that_was_asked_for_alone() {
    let locks = LockProvider::new(MemoryBackend::new());
    let name = LockName::new("user", "login", "ann@example.com").unwrap();
    let _held = locks.acquire(name, Duration::ZERO).await.unwrap();
    for (has_names, app) in [
        (false, console::router(locks.clone())),
        (true, Console::new(locks.clone()).names(true).into_router()),
    ] {
        for path in ["/locks", "/locks.json"] {
            let text = String::from_utf8(get(&app, path).await).unwrap();
            // The key of a store in memory is the name.
            let named = text
                .replace("user:login:ann@example.com", "NAME")
                .contains("NAME");
            assert_eq!(named, has_names, "{path}: {text}");
        }
    }
}

#[tokio::test]
async fn a_lock_that_is_read_is_shown_as_shared() {
    let locks = LockProvider::new(MemoryBackend::new());
    let lock = locks.lock("catalog:read:7").unwrap().shared();
    let _one = lock.acquire(Duration::ZERO).await.unwrap();
    let _other = lock.acquire(Duration::ZERO).await.unwrap();
    let app: Router = console::router(locks);
    let shown = shown(&app).await;
    let stored = shown["store"]["locks"].as_array().unwrap();
    assert!(stored.iter().all(|lock| lock["mode"] == "shared"));
    assert_eq!((stored.len(), &shown["here"][0]["readers"]), (2, &json!(2)));
    let page = String::from_utf8(get(&app, "/locks").await).unwrap();
    assert!(page.contains("shared by 2"), "{page}");
}

#[tokio::test]
async fn many_that_look_together_ask_the_store_once() {
    let store = Counted::new(Play::Say(Vec::new()));
    let app = store.page();
    let shown = join_all((0..50).map(|_| shown(&app))).await;
    assert_eq!(store.looks(), 1);
    // Of this instance they are shown one look as well.
    let mut taken: Vec<_> = shown.iter().map(|shown| &shown["taken_at"]).collect();
    taken.dedup();
    assert_eq!(taken.len(), 1, "{taken:?}");
}

/// Whatever it is nested under: the links of the page are relative.
#[tokio::test]
async fn the_links_of_the_page_lead_there_from_each_of_its_addresses() {
    let locks = LockProvider::new(MemoryBackend::new());
    let console = || console::router(locks.clone());
    for (app, page) in [
        (console(), "/locks"),
        (
            Router::new().nest("/internal", console()),
            "/internal/locks",
        ),
        (Router::new().nest("/locks", console()), "/locks/locks"),
        (Router::new().merge(console()), "/locks"),
    ] {
        let directory = page.strip_suffix("locks").unwrap();
        let html = String::from_utf8(get(&app, page).await).unwrap();
        for link in ["locks.css", "locks.js", "locks.json"] {
            assert!(html.contains(&format!("=\"{link}\"")), "{link}: {html}");
            get(&app, &format!("{directory}{link}")).await;
        }
        // As a browser resolves it.
        let request = Request::get(format!("{page}/")).body(Body::empty());
        let answer = app.clone().oneshot(request.unwrap()).await.unwrap();
        assert!(answer.status().is_redirection(), "{page}/: {answer:?}");
        assert_eq!(answer.headers()["location"], "../locks");
    }
}
