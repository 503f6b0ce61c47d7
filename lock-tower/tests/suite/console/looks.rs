//! How often the store is asked, and what is shown while it does not answer.

use std::time::Duration;

use futures_util::future::join_all;
use lock_core::{Holder, ListedLock, LockMode};
use serde_json::json;
use tokio::time::{Instant, advance, sleep, sleep_until, timeout};

use super::counted::{Counted, Play};
use super::{get, shown};

const SECOND: Duration = Duration::from_secs(1);

fn one() -> Play {
    let holder = Holder::new(LockMode::Exclusive).with_instance("web-2:1");
    Play::Say(vec![ListedLock::new("key-1", holder)])
}

#[tokio::test(start_paused = true)]
async fn clients_that_leave_do_not_multiply_looks() {
    let store = Counted::new(Play::Hang);
    let app = store.page();
    let impatient = (0..10).map(|_| timeout(SECOND / 10, get(&app, "/locks")));
    assert!(join_all(impatient).await.iter().all(Result::is_err));
    // One after the other, too; the last of them after the time that the first look is waited for.
    for _ in 0..30 {
        let _ = timeout(SECOND / 10, get(&app, "/locks.json")).await;
    }
    assert_eq!(store.looks(), 1);
    store.play(one());
    sleep(SECOND / 100).await;
    // The answer to the look that the first of them has begun.
    let shown = shown(&app).await;
    assert!(shown["store"]["error"].is_null(), "{shown}");
    assert_eq!(store.looks(), 1);
}

#[tokio::test(start_paused = true)]
async fn before_its_first_answer_the_store_is_waited_for_once() {
    let store = Counted::new(Play::Hang);
    let provider = store.provider();
    let _held = provider.acquire("job:nightly", SECOND).await.unwrap();
    let app = lock_tower::console::router(provider);
    let begun = Instant::now();
    let first = shown(&app).await;
    assert_eq!(begun.elapsed().as_secs(), 2);
    let error = first["store"]["error"].as_str().unwrap();
    assert!(error.contains("has not answered yet"), "{first}");
    assert_eq!(first["store"]["age_ms"], json!(null));
    // What this process knows by itself.
    assert_eq!(first["here"][0]["lock"], "job:nightly");
    let html = String::from_utf8(get(&app, "/locks").await).unwrap();
    assert!(html.contains("has not answered yet") && html.contains("job:nightly"));
    assert!(!html.contains("No instance holds a lock."), "{html}");
    // Those that come later do not wait as long again.
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert_eq!(store.looks(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_a_look_is_slow_the_answer_before_is_shown_with_its_age() {
    let store = Counted::new(one());
    let app = store.page();
    assert_eq!(shown(&app).await["store"]["locks"][0]["key"], "key-1");
    store.play(Play::Hang);
    advance(5 * SECOND).await;
    let begun = Instant::now();
    for waited in [500, 500, 500] {
        let shown = shown(&app).await;
        assert_eq!(shown["store"]["locks"][0]["key"], "key-1", "{shown}");
        assert!(shown["store"]["age_ms"].as_u64().unwrap() >= 5_000);
        // Once for each look, and not for each client.
        assert_eq!(begun.elapsed(), Duration::from_millis(waited));
    }
    advance(5 * SECOND).await;
    let html = String::from_utf8(get(&app, "/locks").await).unwrap();
    assert!(html.contains("The store as of 10s ago."), "{html}");
    assert_eq!(store.looks(), 2);
    // It ends, and is shown.
    store.play(Play::Say(Vec::new()));
    sleep(SECOND / 100).await;
    let html = String::from_utf8(get(&app, "/locks").await).unwrap();
    assert!(
        html.contains("Nothing is held.") && !html.contains("As of"),
        "{html}"
    );
    assert_eq!(store.looks(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_asked_seldom_and_a_fast_one_once_a_second() {
    for (took, kept) in [(0, 1), (5, 15), (29, 60)] {
        let took = took * SECOND;
        let store = Counted::new(Play::Late(took));
        let app = store.page();
        let begun = Instant::now();
        shown(&app).await;
        sleep_until(begun + took + SECOND / 100).await;
        let answered = shown(&app).await;
        assert!(answered["store"]["error"].is_null(), "{answered}");
        assert_eq!(store.looks(), 1);
        // Within that time all are shown one answer.
        for _ in 0..9 {
            sleep(kept * SECOND / 10).await;
            shown(&app).await;
            assert_eq!(store.looks(), 1, "{took:?}");
        }
        sleep(kept * SECOND / 10).await;
        shown(&app).await;
        assert_eq!(store.looks(), 2, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_old_is_not_shown_where_another_comes_soon() {
    let store = Counted::new(one());
    let app = store.page();
    assert_eq!(shown(&app).await["store"]["listed"], 1);
    store.play(Play::Late(SECOND));
    advance(300 * SECOND).await;
    assert_eq!(shown(&app).await["store"]["listed"], 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_not_kept_for_as_long_as_it_took() {
    let store = Counted::new(Play::Hang);
    let app = store.page();
    shown(&app).await;
    // By itself a listing ends.
    sleep(30 * SECOND).await;
    let failed = shown(&app).await;
    assert!(failed["store"]["error"].is_string(), "{failed}");
    assert_eq!(store.looks(), 1);
    store.play(one());
    sleep(5 * SECOND).await;
    let there_again = shown(&app).await;
    assert_eq!(there_again["store"]["listed"], 1, "{there_again}");
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_panics_is_said_and_the_store_is_asked_again() {
    let store = Counted::new(Play::Panic);
    let app = store.page();
    let begun = Instant::now();
    let broken = shown(&app).await;
    let error = broken["store"]["error"].as_str().unwrap();
    assert!(error.contains("panicked"), "{broken}");
    // Without a wait for what cannot come.
    assert_eq!(begun.elapsed(), Duration::ZERO);
    store.play(one());
    sleep(SECOND).await;
    let shown = shown(&app).await;
    assert_eq!(shown["store"]["listed"], 1, "{shown}");
    assert_eq!(store.looks(), 2);
}

#[test]
fn a_look_whose_runtime_has_ended_is_begun_again() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let store = Counted::new(Play::Hang);
    let app = store.page();
    let left = runtime().block_on(async { timeout(SECOND / 10, get(&app, "/locks")).await });
    assert!(left.is_err());
    store.play(one());
    runtime().block_on(async {
        let broken = shown(&app).await;
        assert!(broken["store"]["error"].is_string(), "{broken}");
        sleep(2 * SECOND).await;
        assert_eq!(shown(&app).await["store"]["listed"], 1);
    });
    assert_eq!(store.looks(), 2);
}
