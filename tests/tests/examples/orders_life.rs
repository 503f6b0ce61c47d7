//! How an instance starts, tells how it is, and stops.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use lock_tests::eventually;
use lock_tests::orders::{PATIENCE, Shop, assert_one_at_a_time, command};
use rustix::process::Signal;
use tokio::net::TcpStream;

#[tokio::test]
async fn it_tells_its_backend_its_address_and_what_to_try() {
    let shop = Shop::new();
    let instance = shop.open().await;
    let _ = instance.until_printed("/accounts/transfer").await;
    let printed = instance.printed();
    let backend = format!(
        "Distributed locks: file locks in {} (embedded, this machine only)",
        shop.lock_dir().display()
    );
    assert!(
        printed
            .iter()
            .any(|line| line.contains("WARN") && line.contains(&backend)),
        "{printed:#?}"
    );
    let curls: Vec<_> = printed
        .iter()
        .filter(|line| line.trim_start().starts_with("curl "))
        .collect();
    assert_eq!(curls.len(), 4, "{printed:#?}");
    assert!(
        curls
            .iter()
            .all(|line| line.contains(&instance.address().to_string())),
        "{curls:#?}"
    );
}

#[tokio::test]
async fn what_it_tells_to_try_works() {
    let shop = Shop::new();
    let instance = shop.open().await;
    let _ = instance.until_printed("/accounts/transfer").await;
    for line in instance.printed() {
        if line.trim_start().starts_with("curl ") {
            let run = tokio::process::Command::new("bash")
                .args(["-c", &format!("{line} -sS")])
                .output();
            let output = run.await.expect("bash runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.starts_with("HTTP/1.1 200 OK"), "{line}: {output:?}");
        }
    }
}

#[tokio::test]
async fn it_says_that_it_is_well_without_a_lock() {
    let shop = Shop::new();
    let instance = shop.open().await;
    let health = instance.get("/health").await;
    assert_eq!(health.status, 200, "{health:?}");
    assert!(health.body.starts_with(r#"{"status":"up""#), "{health:?}");
    std::fs::remove_dir_all(shop.lock_dir()).unwrap();
    // An answer is given again for a second.
    eventually("it is down", || async {
        instance.get("/health").await.status == 503
    })
    .await;
    // And nothing runs unlocked.
    let refused = instance.post("/payments/7/refund?work_ms=0").await;
    assert_eq!(refused.problem(503)["reason"], "lock-unavailable");
}

#[tokio::test]
async fn work_without_a_bound_is_not_begun() {
    let shop = Shop::new();
    let instance = shop.open().await;
    for path in [
        "/orders/1/process?work_ms=18446744073709551615",
        "/payments/7/refund?work_ms=60001",
        "/users/zoe@example.org/login?work_ms=86400000",
    ] {
        let answer = instance.post(path).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(
            answer.body.contains("`work_ms` is 60000 at most"),
            "{answer:?}"
        );
    }
    // And nothing is locked.
    let _ = instance.post("/orders/1/process?work_ms=0").await.receipt();
}

#[tokio::test]
async fn what_cannot_be_used_ends_it_with_a_reason() {
    let shop = Shop::new();
    std::fs::write(shop.lock_dir(), "not a directory").unwrap();
    let output = command(&shop.lock_dir(), &[])
        .stderr(Stdio::piped())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && text.contains("not a directory"),
        "{text}"
    );

    let shop = Shop::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap().to_string();
    let mut second = command(&shop.lock_dir(), &[("BIND", &bind)]);
    let output = second.stderr(Stdio::piped()).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains(&bind), "{text}");
}

/// Requests that hold their locks finish, one that waits for a lock is refused, no connection is accepted
/// any more, the process ends well.
async fn stops_gracefully(signal: Signal) {
    let shop = Shop::new();
    let said = [("RUST_LOG", "orders=debug")];
    let (mut instance, other) = tokio::join!(shop.open_with(&said), shop.open());

    // Longer than it takes a busy machine to begin all three.
    let by_layer = instance.post("/orders/1/process?work_ms=5000");
    let by_macro = instance.transfer("carol", "dave", 5000);
    // It has its first lock, and waits for its second, which another process has to the end.
    let bob = shop.locks().lock("account:transfer:bob").unwrap();
    let bob = bob.acquire(PATIENCE).await.unwrap();
    let waiting = instance.transfer("aaron", "bob", 0);
    let stop = async {
        // That a lock is held can be seen before its request has it.
        for locks in [
            "order:process:1",
            "account:transfer:carol, account:transfer:dave",
        ] {
            let line = format!("at work lock={locks:?}");
            instance.until_printed(&line).await;
        }
        let first = "account:transfer:aaron".parse().unwrap();
        shop.until_held(&first).await;
        instance.signal(signal);
        eventually("nobody is let in any more", async || {
            TcpStream::connect(instance.address()).await.is_err()
        })
        .await;
    };
    let (by_layer, by_macro, waiting, ()) = tokio::join!(by_layer, by_macro, waiting, stop);

    let _ = by_macro.receipt();
    assert_eq!(waiting.problem(503)["reason"], "lock-closed");
    assert!(instance.wait().await.success());
    bob.release().await.unwrap();
    let next = other.post("/orders/1/process?work_ms=0").await.receipt();
    assert_one_at_a_time(&[by_layer.receipt(), next]);
}

#[tokio::test]
async fn sigterm_lets_requests_finish_that_hold_their_locks() {
    stops_gracefully(Signal::TERM).await;
}

#[tokio::test]
async fn ctrl_c_lets_requests_finish_that_hold_their_locks() {
    stops_gracefully(Signal::INT).await;
}

#[tokio::test]
async fn sigterm_lets_work_finish_that_outlives_its_client() {
    // Longer than it takes an instance to act on the signal.
    const WORK: Duration = Duration::from_secs(3);
    let shop = Shop::new();
    let mut instance = shop.open_with(&[("RUST_LOG", "orders=debug")]).await;
    let held = "order:process:1";
    let began = Instant::now();
    let client = instance
        .begin_post(
            &format!("/orders/1/process?work_ms={}", WORK.as_millis()),
            "",
        )
        .await;
    // A request whose client leaves between the grant and that gives its lock back.
    instance
        .until_printed("at work lock=\"order:process:1\"")
        .await;
    drop(client);
    instance.signal(Signal::TERM);
    let guard = shop.locks().acquire(held, PATIENCE).await.unwrap();
    // The lock was not acquired before the request was sent.
    assert!(began.elapsed() >= WORK, "{:?}", began.elapsed());
    assert!(instance.wait().await.success());
    assert!(
        !instance
            .printed()
            .iter()
            .any(|line| line.contains("still held"))
    );
    guard.release().await.unwrap();
}
