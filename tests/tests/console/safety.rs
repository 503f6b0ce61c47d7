//! What others have named is text, and nothing but the page's own runs in it.

use std::time::Duration;

use lock_core::LockProvider;
use lock_core::memory::MemoryBackend;
use serde_json::json;

use crate::browser::{Browser, Service};

/// An instance may be called so: any printable characters without blanks.
const MARKUP: &str = "<script>document.title=1</script>";

#[tokio::test]
async fn names_with_markup_are_text() {
    for instance in [
        MARKUP,
        "\"><img/src=x/onerror=document.title=2>",
        "&lt;b&gt;'",
    ] {
        let store = MemoryBackend::new().with_instance(instance).unwrap();
        let locks = LockProvider::new(store);
        let service = Service::of(&locks).await;
        let guard = locks.acquire("job:nightly", Duration::ZERO).await.unwrap();
        let browser = Browser::at(&service).await;
        browser.until_refreshed().await;
        assert_eq!(browser.text("#store-rows td").await, instance);
        let found = browser
            .run("return [document.title, document.querySelectorAll('main script, main img, main b').length]")
            .await;
        assert_eq!(found, json!(["Locks", 0]));
        assert_eq!(
            service.json().await["store"]["locks"][0]["instance"],
            instance
        );
        guard.release().await.unwrap();
    }
}

/// Of the page itself, whose own parts load, and of what was slipped in.
#[tokio::test]
async fn the_policy_of_the_page_holds() {
    let locks = LockProvider::new(MemoryBackend::new());
    let service = Service::of(&locks).await;
    let browser = Browser::at(&service).await;
    browser.until_refreshed().await;
    const LOOK: &str = "
        const done = arguments[arguments.length - 1];
        const seen = new ReportingObserver(
            reports => reports.forEach(report => window.blocked.push(report.body.effectiveDirective)),
            { types: ['csp-violation'], buffered: true });
        window.blocked = [];
        seen.observe();";
    let own = browser
        .client
        .execute_async(
            &format!("{LOOK} setTimeout(() => done(window.blocked), 300);"),
            Vec::new(),
        )
        .await
        .unwrap();
    assert_eq!(own, json!([]));
    let styled = browser
        .run("return getComputedStyle(document.querySelector('.glance')).display")
        .await;
    assert_eq!(styled, "grid");

    let slipped_in = format!(
        "{LOOK}
        const script = document.createElement('script');
        script.textContent = 'window.ran = true';
        document.body.append(script);
        const elsewhere = document.createElement('script');
        elsewhere.src = 'http://127.0.0.1:9/x.js';
        document.body.append(elsewhere);
        document.body.insertAdjacentHTML('beforeend', '<p id=styled style=\"color:red\" onclick=\"window.ran=true\">x</p>');
        document.getElementById('styled').click();
        fetch('http://127.0.0.1:9/').catch(() => 0);
        setTimeout(() => done([window.ran === true, window.blocked.sort()]), 500);"
    );
    let found = browser
        .client
        .execute_async(&slipped_in, Vec::new())
        .await
        .unwrap();
    assert_eq!(found[0], false, "{found}");
    let blocked: Vec<_> = found[1]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of.as_str().unwrap())
        .collect();
    for kind in [
        "connect-src",
        "script-src-attr",
        "script-src-elem",
        "style-src-attr",
    ] {
        assert!(blocked.contains(&kind), "{kind}: {blocked:?}");
    }
}

#[tokio::test]
async fn no_answer_is_cached_or_framed_or_taken_for_another_type() {
    let locks = LockProvider::new(MemoryBackend::new());
    let service = Service::of(&locks).await;
    for (path, kind) in [
        ("locks", "text/html; charset=utf-8"),
        ("locks.json", "application/json"),
        ("locks.css", "text/css; charset=utf-8"),
        ("locks.js", "text/javascript; charset=utf-8"),
    ] {
        let answer = reqwest::get(service.url(path)).await.unwrap();
        assert_eq!(answer.status(), 200);
        let header = |name: &str| answer.headers()[name].to_str().unwrap();
        assert_eq!(header("content-type"), kind);
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("x-content-type-options"), "nosniff");
        let policy = header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
            "{policy}"
        );
    }
    // Nothing is changed here.
    let client = reqwest::Client::new();
    for method in ["POST", "PUT", "DELETE"] {
        let method = method.parse().unwrap();
        let answer = client
            .request(method, service.url("locks"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 405);
    }
}
