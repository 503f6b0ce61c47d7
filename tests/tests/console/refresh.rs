//! The page refreshes itself, in place.

use std::time::Duration;

use fantoccini::key::Key;
use lock_core::memory::MemoryBackend;
use lock_core::{LockName, LockProvider};
use lock_tower::console::Console;
use serde_json::json;
use tokio::time::sleep;

use crate::browser::{Browser, Service};

/// Longer than from one refresh to the next.
const A_REFRESH: Duration = Duration::from_secs(3);

/// So many that the page is longer than the window.
async fn long_page() -> (Service, Browser, lock_core::LockGuards) {
    let locks = LockProvider::new(MemoryBackend::new());
    let names = (0..150).map(|id| LockName::new("order", "process", id).unwrap());
    let guards = locks.acquire_all(names, Duration::ZERO).await.unwrap();
    let service = Service::of(&locks).await;
    let browser = Browser::at(&service).await;
    (service, browser, guards)
}

#[tokio::test]
async fn a_refresh_keeps_the_place_and_the_focus() {
    let (_service, browser, _guards) = long_page().await;
    let place = "return [window.scrollY, document.activeElement.id]";
    browser
        .run("document.getElementById('here-rows').focus(); window.scrollTo(0, 1234)")
        .await;
    let before = browser.run(place).await;
    assert_eq!(before[0], 1_234);
    for _ in 0..2 {
        browser.until_refreshed().await;
        assert_eq!(browser.run(place).await, before);
    }
}

#[tokio::test]
async fn a_refresh_that_fails_is_said_until_one_succeeds() {
    let (service, browser, _guards) = long_page().await;
    browser.until_refreshed().await;
    assert_eq!(browser.text("#failure").await, "");
    let taken = browser.text("#taken").await;
    service.set_down(true);
    browser
        .until_reads("#failure", |said| {
            said.starts_with("Not refreshed since ") && said.contains("503")
        })
        .await;
    // What was there stays.
    assert!(browser.text("#taken").await >= taken);
    assert!(browser.text("#store-rows").await.contains("order:process"));
    browser.keep_screenshot("failed").await;
    service.set_down(false);
    browser.until_reads("#failure", str::is_empty).await;
    browser.until_refreshed().await;
}

#[tokio::test]
async fn it_is_paused_and_goes_on_by_a_key() {
    let (_service, browser, _guards) = long_page().await;
    browser.until_refreshed().await;
    let pause = async || {
        let button = browser.client.active_element().await.unwrap();
        button
            .send_keys(&char::from(Key::Enter).to_string())
            .await
            .unwrap();
    };
    // The first that a keyboard comes to.
    browser
        .run("document.getElementById('pause').focus()")
        .await;
    pause().await;
    let is_pressed = "return document.getElementById('pause').ariaPressed";
    assert_eq!(browser.run(is_pressed).await, "true");
    // One that was under way.
    sleep(Duration::from_millis(500)).await;
    let taken = browser.text("#taken").await;
    sleep(A_REFRESH).await;
    assert_eq!(browser.text("#taken").await, taken);
    pause().await;
    assert_eq!(browser.run(is_pressed).await, "false");
    browser.until_refreshed().await;
}

#[tokio::test]
async fn what_a_person_marks_is_not_taken_away() {
    let (_service, browser, _guards) = long_page().await;
    browser.until_refreshed().await;
    for part in ["#store-rows tbody th", "#heading code"] {
        let mark = format!("getSelection().selectAllChildren(document.querySelector('{part}'))");
        browser.run(&mark).await;
        let marked = browser.run("return String(getSelection())").await;
        sleep(A_REFRESH).await;
        assert_eq!(browser.run("return String(getSelection())").await, marked);
        assert_eq!(
            browser.text("#notice").await,
            "Not refreshed while text is selected.",
            "{part}"
        );
        browser.run("getSelection().empty()").await;
        browser.until_refreshed().await;
        browser.until_reads("#notice", str::is_empty).await;
    }
}

/// Its answer comes after that, and is not shown.
#[tokio::test]
async fn a_refresh_under_way_does_not_override_what_a_person_does_meanwhile() {
    let (service, browser, _guards) = long_page().await;
    const CLICK: &str = "document.getElementById('pause').click()";
    const SELECT: &str = "getSelection().selectAllChildren(document.getElementById('taken'))";
    const UNSELECT: &str = "getSelection().empty()";
    for (begin, end) in [(CLICK, CLICK), (SELECT, UNSELECT)] {
        browser.until_refreshed().await;
        service.withhold();
        service.until_asked().await;
        let taken = browser.text("#taken").await;
        browser.run(begin).await;
        service.let_go();
        sleep(A_REFRESH).await;
        assert_eq!(browser.text("#taken").await, taken, "{begin}");
        // It was not broken off by a failure.
        assert_eq!(browser.text("#failure").await, "", "{begin}");
        browser.run(end).await;
        browser.until_refreshed().await;
    }
}

#[tokio::test]
async fn what_has_not_changed_is_not_replaced() {
    let (_service, browser, _guards) = long_page().await;
    browser.until_refreshed().await;
    browser
        .run(
            "document.getElementById('json').focus();
            window.before = [...document.querySelectorAll('section, table, #json, dl')];
            window.blurs = 0;
            document.getElementById('json').addEventListener('blur', () => window.blurs += 1)",
        )
        .await;
    for _ in 0..2 {
        browser.until_refreshed().await;
    }
    let kept = browser
        .run(
            "return [window.before.every(part => part.isConnected), window.blurs, document.activeElement.id]",
        )
        .await;
    assert_eq!(kept, json!([true, 0, "json"]));
}

#[tokio::test]
async fn rows_that_come_and_go_leave_the_focus_and_the_scroll_of_their_table() {
    let locks = LockProvider::new(MemoryBackend::new());
    let wide = "w".repeat(200);
    let name = |id: &str| LockName::new("order", "process", id).unwrap();
    let _stays = locks.acquire(name(&wide), Duration::ZERO).await.unwrap();
    let service = Service::start(Console::new(locks.clone()).names(true)).await;
    let browser = Browser::open(360, &[]).await;
    browser.client.goto(&service.url("locks")).await.unwrap();
    browser
        .run("const rows = document.getElementById('store-rows'); rows.focus(); rows.scrollLeft = 40")
        .await;
    let place = "const rows = document.getElementById('store-rows');
        return [document.activeElement.id, rows.scrollLeft]";
    let before = browser.run(place).await;
    assert_eq!(before, json!(["store-rows", 40]));
    let comes = locks.acquire(name("7"), Duration::ZERO).await.unwrap();
    let has_it = |rows: &str| rows.contains("order:process:7");
    browser.until_reads("#store-rows", has_it).await;
    assert_eq!(browser.run(place).await, before);
    comes.release().await.unwrap();
    browser
        .until_reads("#store-rows", |rows| !has_it(rows))
        .await;
    assert_eq!(browser.run(place).await, before);
}
