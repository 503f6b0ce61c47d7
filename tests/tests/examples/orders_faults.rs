//! The service of the README when things go wrong: instances that die or freeze, clients that leave.

use std::time::{Duration, Instant};

use lock_core::LockName;
use lock_tests::orders::{Instance, PATIENCE, Shop, assert_one_at_a_time};
use lock_tests::{Lateness, boottime, eventually};
use rustix::process::Signal;
use tokio::time::sleep;

fn name(text: &str) -> LockName {
    text.parse().expect("the tests write names")
}

/// Returns when so many requests of the instance wait for locks of this template.
async fn until_waiting(instance: &Instance, lock: &str, waiters: usize) {
    let label = format!("lock=\"{lock}\"");
    eventually("they wait", async || {
        let metrics = instance.get("/metrics").await.body;
        let mut waiting = metrics
            .lines()
            .filter(|line| line.starts_with("distributed_lock_waiting{") && line.contains(&label));
        waiting.any(|line| line.ends_with(&format!(" {waiters}")))
    })
    .await;
}

#[tokio::test]
async fn a_killed_instance_frees_its_locks() {
    let shop = Shop::new();
    let (mut victim, survivor) = tokio::join!(shop.open(), shop.open());
    let _by_layer = victim
        .begin_post("/orders/1/process?work_ms=60000", "")
        .await;
    let transfer = r#"{"from":"alice","to":"bob","amount":1}"#;
    let _by_macro = victim
        .begin_post("/accounts/transfer?work_ms=60000", transfer)
        .await;
    for held in [
        "order:process:1",
        "account:transfer:alice",
        "account:transfer:bob",
    ] {
        shop.until_held(&name(held)).await;
    }
    // One that waits already, and one that comes after.
    let (waiter, late) = tokio::join!(survivor.post("/orders/1/process?work_ms=0"), async {
        until_waiting(&survivor, "order:process:<id>", 1).await;
        let late = Lateness::of(Duration::ZERO);
        victim.signal(Signal::KILL);
        late
    });
    late.at_most(Duration::from_millis(500)).await;
    let _ = waiter.receipt();

    assert!(!victim.wait().await.success());
    let late = Lateness::of(Duration::ZERO);
    let _ = survivor.transfer("bob", "alice", 0).await.receipt();
    late.at_most(Duration::from_millis(500)).await;
}

#[tokio::test]
async fn a_frozen_instance_keeps_its_locks_and_stays_the_only_holder() {
    let shop = Shop::new();
    let said = [("RUST_LOG", "orders=debug")];
    let (frozen, other) = tokio::join!(shop.open_with(&said), shop.open());
    let lock = shop.locks().lock("order:process:1").unwrap();

    // For longer than it takes to freeze an instance that has begun it.
    let work = frozen.post("/orders/1/process?work_ms=3000");
    let freeze = async {
        // It has its token: an answer that an instance waits for is late when it thaws.
        frozen
            .until_printed("at work lock=\"order:process:1\"")
            .await;
        frozen.freeze().await;
        // The work can end later than the service has a request wait.
        let wait = other.post_in_a_crowd("/orders/1/process?work_ms=0");
        let watch = async {
            // For longer than the work takes, and than any heartbeat.
            let until = Instant::now() + Duration::from_millis(4_500);
            while Instant::now() < until {
                let taken = lock.try_acquire(Duration::ZERO).await.unwrap();
                assert!(taken.is_none(), "taken from a frozen holder");
                sleep(Duration::from_millis(20)).await;
            }
            let thawed = boottime();
            frozen.signal(Signal::CONT);
            thawed
        };
        tokio::join!(wait, watch)
    };
    let (first, (second, thawed)) = tokio::join!(work, freeze);
    let (first, second) = (first.receipt(), second.receipt());
    assert_eq!((first.instance, second.instance), (frozen.id(), other.id()));
    assert!(first.finished_ns > thawed, "it was not frozen: {first:?}");
    assert_one_at_a_time(&[first, second]);
}

#[tokio::test]
async fn a_client_that_leaves_frees_a_lock_of_the_macro_at_once() {
    let shop = Shop::new();
    let instance = shop.open().await;
    let transfer = r#"{"from":"alice","to":"bob","amount":1}"#;
    let client = instance
        .begin_post("/accounts/transfer?work_ms=60000", transfer)
        .await;
    shop.until_held(&name("account:transfer:bob")).await;

    let late = Lateness::of(Duration::ZERO);
    drop(client);
    for account in ["account:transfer:alice", "account:transfer:bob"] {
        let lock = shop.locks().lock(account).unwrap();
        lock.acquire(Duration::from_secs(5))
            .await
            .unwrap()
            .release()
            .await
            .unwrap();
    }
    late.at_most(Duration::from_millis(500)).await;
    assert!(
        !instance
            .printed()
            .iter()
            .any(|line| line.contains("transferred"))
    );
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_work_under_the_layer() {
    let shop = Shop::new();
    let instance = shop.open_with(&[("RUST_LOG", "orders=debug")]).await;
    let held = name("order:process:1");
    let client = instance
        .begin_post("/orders/1/process?work_ms=800", "")
        .await;
    // A request whose client leaves between the grant and that gives its lock back.
    instance
        .until_printed("at work lock=\"order:process:1\"")
        .await;
    drop(client);

    // Had it been freed while it was worked on, the order would not be processed by then.
    let guard = shop.locks().acquire(held, PATIENCE).await.unwrap();
    let later = guard.fencing_token().await.unwrap();
    let order: serde_json::Value =
        serde_json::from_str(&instance.get("/orders/1").await.body).unwrap();
    assert_eq!(order["status"], "processed");
    let earlier: u64 = order["token"]
        .as_str()
        .expect("a token is a string")
        .parse()
        .unwrap();
    assert!(earlier < later.get(), "{earlier} {later}");
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_is_not_served() {
    let shop = Shop::new();
    let instance = shop.open().await;
    let lock = shop.locks().lock("order:process:1").unwrap();
    let guard = lock.acquire(Duration::ZERO).await.unwrap();
    let waiting = instance
        .begin_post("/orders/1/process?work_ms=60000", "")
        .await;
    let until = async |waiters| until_waiting(&instance, "order:process:<id>", waiters).await;
    until(1).await;
    // The one behind it has waited as well, and is served in its place.
    let (answer, late) = tokio::join!(instance.post("/orders/1/process?work_ms=0"), async {
        until(2).await;
        drop(waiting);
        until(1).await;
        let late = Lateness::of(Duration::ZERO);
        guard.release().await.unwrap();
        late
    });
    late.at_most(Duration::from_millis(800)).await;
    let _ = answer.receipt();
}

#[tokio::test]
async fn one_instance_at_a_time_cleans_up() {
    let shop = Shop::new();
    let instances = tokio::join!(shop.open(), shop.open(), shop.open(), shop.open());
    let instances = [&instances.0, &instances.1, &instances.2, &instances.3];
    let runs = || -> Vec<(u64, u64)> {
        let lines = instances.iter().flat_map(|instance| instance.printed());
        let runs = lines.filter(|line| line.contains("tokens were cleaned up"));
        runs.map(|line| (field(&line, "started_ns="), field(&line, "finished_ns=")))
            .collect()
    };
    // They have started together, and so they try at the same moments.
    eventually("there are three runs", async || runs().len() >= 3).await;
    let mut seen = runs();
    seen.sort_unstable();
    for pair in seen.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "two at once: {pair:?}");
    }

    // While another process has the lock the work is not done, and that is no error.
    let lock = shop.locks().lock("job:cleanup-tokens").unwrap();
    let guard = lock.acquire(Duration::from_secs(5)).await.unwrap();
    let taken = boottime();
    sleep(Duration::from_millis(4_500)).await;
    let ran = |since: u64| runs().into_iter().any(|(started, _)| started >= since);
    assert!(!ran(taken), "cleaned up without the lock");
    guard.release().await.unwrap();
    eventually("they go on", async || ran(taken)).await;
    for instance in instances {
        assert!(!instance.printed().iter().any(|line| line.contains("ERROR")));
    }
}

/// The number after `key` in a line of the log.
fn field(line: &str, key: &str) -> u64 {
    let (_, rest) = line
        .split_once(key)
        .unwrap_or_else(|| panic!("no {key} in {line}"));
    let digits = rest
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .expect("a split has a first part");
    digits.parse().expect("only digits are left")
}
