//! The page on a phone, by keyboard, read aloud, in the dark, and without its script.

use std::time::Duration;

use fantoccini::key::Key;
use lock_core::memory::MemoryBackend;
use lock_core::{LockGuard, LockProvider};
use serde_json::{Value, json};

use crate::browser::{Browser, Service};

/// An instance that holds a lock, and has lost one.
async fn busy() -> (Service, LockGuard) {
    let store = MemoryBackend::new();
    let long = "checkout-7d4b9c6f5-x2x8q.eu-central-1:4711";
    let locks = LockProvider::new(store.clone().with_instance(long).unwrap());
    let lost = locks
        .acquire("report:rebuild:2026", Duration::ZERO)
        .await
        .unwrap();
    assert!(store.revoke(lost.name()));
    lost.lost().await;
    let guard = locks.acquire("job:nightly", Duration::ZERO).await.unwrap();
    (Service::of(&locks).await, guard)
}

#[tokio::test]
async fn a_narrow_window_needs_no_sideways_scroll() {
    let (service, _guard) = busy().await;
    let browser = Browser::open(360, &[]).await;
    browser.client.goto(&service.url("locks")).await.unwrap();
    let widths = browser
        .run("return [innerWidth, document.documentElement.scrollWidth]")
        .await;
    assert_eq!(widths, json!([360, 360]));
    // What is wider scrolls in its own region.
    let is_inside = browser
        .run("return [...document.querySelectorAll('.scroll')].every(rows => rows.getBoundingClientRect().right <= 360)")
        .await;
    assert_eq!(is_inside, true);
    browser.keep_screenshot("narrow").await;
}

#[tokio::test]
async fn a_keyboard_comes_to_all_that_can_be_scrolled_or_pressed() {
    let (service, _guard) = busy().await;
    let browser = Browser::at(&service).await;
    browser.until_refreshed().await;
    browser
        .run("document.getElementById('pause').click()")
        .await;
    browser.run("document.activeElement.blur()").await;
    let mut reached = Vec::new();
    for _ in 0..8 {
        let focused = browser.client.active_element().await.unwrap();
        focused
            .send_keys(&char::from(Key::Tab).to_string())
            .await
            .unwrap();
        reached.push(browser.run("return document.activeElement.id").await);
    }
    for part in [
        "pause",
        "json",
        "store-rows",
        "instances-rows",
        "here-rows",
        "lost-rows",
        "templates-rows",
    ] {
        assert!(reached.contains(&Value::from(part)), "{part}: {reached:?}");
    }
}

#[tokio::test]
async fn regions_tables_and_failures_have_names_and_roles() {
    let (service, _guard) = busy().await;
    let browser = Browser::at(&service).await;
    let unnamed = browser
        .run(
            "const named = part => document.getElementById(part.getAttribute('aria-labelledby'))?.textContent;
            return [...document.querySelectorAll('section, [role=region]')].filter(part => !named(part)).length",
        )
        .await;
    assert_eq!(unnamed, 0);
    let cells = browser
        .run(
            "return [
                document.documentElement.lang,
                document.querySelectorAll('h1').length,
                document.querySelectorAll('table').length,
                document.querySelectorAll('table th:not([scope])').length,
                document.querySelectorAll('tbody tr > :first-child:not(th[scope=row])').length,
                document.getElementById('failure').getAttribute('role'),
                document.getElementById('notice').getAttribute('role'),
                document.querySelector('meta[name=viewport]').content.includes('user-scalable'),
            ]",
        )
        .await;
    assert_eq!(cells, json!(["en", 1, 5, 0, 0, "alert", "status", false]));
}

#[tokio::test]
async fn that_it_is_paused_is_seen_and_read() {
    let (service, _guard) = busy().await;
    let browser = Browser::at(&service).await;
    // With the focus before and after, which looks otherwise.
    const LOOK: &str = "
        const button = document.getElementById('pause');
        button.focus();
        const style = getComputedStyle(button);
        return [style.backgroundColor, style.color].join()";
    let before = browser.run(LOOK).await;
    assert_eq!(browser.text("#notice").await, "");
    browser
        .run("document.getElementById('pause').click()")
        .await;
    assert_ne!(browser.run(LOOK).await, before);
    assert_eq!(browser.text("#notice").await, "Paused.");
    browser
        .run("document.getElementById('pause').click()")
        .await;
    assert_eq!(browser.run(LOOK).await, before);
    assert_eq!(browser.text("#notice").await, "");
}

#[tokio::test]
async fn colours_follow_the_system_and_can_be_read() {
    let (service, _guard) = busy().await;
    // The ratio of WCAG between the colours of text and of what is behind it.
    const CONTRAST: &str = "
        const light = colour => {
            const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)
                .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
        };
        const behind = part => {
            const colour = getComputedStyle(part).backgroundColor;
            return colour === 'rgba(0, 0, 0, 0)' ? behind(part.parentElement) : colour;
        };
        const ratio = part => {
            const [one, other] = [light(getComputedStyle(part).color), light(behind(part))];
            return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        };
        return Math.min(...[...document.querySelectorAll('h1, h2, dt, dd, th, td, p, a, code')].map(ratio));";
    let mut backgrounds = Vec::new();
    for (scheme, name) in [(1, "light"), (0, "dark")] {
        let option = format!("--blink-settings=preferredColorScheme={scheme}");
        let browser = Browser::open(1_200, &[&option]).await;
        browser.client.goto(&service.url("locks")).await.unwrap();
        let contrast = browser.run(CONTRAST).await.as_f64().unwrap();
        assert!(contrast >= 4.5, "{name}: {contrast}");
        let background = browser
            .run("return getComputedStyle(document.body).backgroundColor")
            .await;
        backgrounds.push(background);
        browser.keep_screenshot(name).await;
    }
    assert_ne!(backgrounds[0], backgrounds[1]);
}

#[tokio::test]
async fn all_is_there_without_the_script() {
    let (service, _guard) = busy().await;
    let page = reqwest::get(service.url("locks"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for part in [
        "checkout-7d4b9c6f5",
        "report:rebuild",
        "revoked",
        "<noscript><meta http-equiv=\"refresh\"",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
}
