//! The orders of the example service in PostgreSQL: who may change them, on what grounds.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use lock_core::postgres::Fence;
use lock_core::{FencingToken, LockName};
use lock_tests::Lateness;
use lock_tests::order::{Order, assert_seen_within, database_reads, path};
use lock_tests::orders::{Answer, Instance, Shop, assert_one_at_a_time};
use lock_tests::servers::{PostgresServer, Server};
use rustix::process::Signal;
use serde_json::json;
use sqlx::PgPool;

/// Two instances with one database, which logs what it is asked.
struct Harness {
    here: Instance,
    there: Instance,
    server: PostgresServer,
    pool: PgPool,
    _shop: Shop,
}

impl Harness {
    async fn new() -> Self {
        let server = PostgresServer::with(&[("log_statement", "all")]).await;
        let (shop, pool, url) = (Shop::new(), server.pool().await, server.url());
        let environment = [("DATABASE_URL", url.as_str()), ("RUST_LOG", "orders=debug")];
        let (here, there) =
            tokio::join!(shop.open_with(&environment), shop.open_with(&environment));
        Self {
            here,
            there,
            server,
            pool,
            _shop: shop,
        }
    }

    /// By turns.
    fn instance(&self, number: usize) -> &Instance {
        if number.is_multiple_of(2) {
            &self.here
        } else {
            &self.there
        }
    }

    /// The token that the database has for an order.
    async fn token(&self, id: &str) -> Option<FencingToken> {
        let token = sqlx::query_scalar("SELECT token FROM orders WHERE id = $1");
        let token = token.bind(id).fetch_optional(&self.pool).await.unwrap();
        token.flatten()
    }

    /// Returns when the first instance has order 1 in work, with the token of its lock.
    async fn until_at_work(&self) {
        let line = "at work lock=\"order:process:1\"";
        let _ = self.here.until_printed(line).await;
    }
}

/// Processes an order for longer than it takes a busy machine to see that its lock is held, and to act on
/// that.
const SLOWLY: &str = "/orders/1/process?work_ms=3000";

/// Adds one to the quantity, again and again, until no other was faster; how often that was.
async fn add_one(instance: &Instance, id: &str) -> usize {
    let mut conflicts = 0;
    loop {
        let order = Order::read(instance, id).await;
        let answer = order.change(instance, order.quantity + 1).await;
        if answer.status == 200 {
            assert_eq!(Order::of(&answer).quantity, order.quantity + 1);
            return conflicts;
        }
        assert_eq!(answer.conflict()["reason"], "order-changed");
        conflicts += 1;
    }
}

#[tokio::test]
async fn changes_through_two_instances_at_once_lose_no_update() {
    let harness = Harness::new().await;
    Order::place(&harness.here, "1", 0).await;
    let clients = (0..12).map(async |number| {
        let mut conflicts = 0;
        for _ in 0..5 {
            conflicts += add_one(harness.instance(number), "1").await;
        }
        conflicts
    });
    let conflicts: usize = join_all(clients).await.into_iter().sum();
    let quantity: i32 = sqlx::query_scalar("SELECT quantity FROM orders WHERE id = '1'")
        .fetch_one(&harness.pool)
        .await
        .unwrap();
    assert_eq!(quantity, 60);
    assert!(conflicts > 0, "nobody was in anybody's way");
    println!("60 changes by 12 clients, {conflicts} conflicts");
}

#[tokio::test]
async fn of_two_changes_of_one_version_one_is_refused_with_409() {
    let harness = Harness::new().await;
    let mut order = Order::place(&harness.here, "1", 0).await;
    for round in 1..=20 {
        let (one, other) = join(
            order.change(&harness.here, round),
            order.change(&harness.there, -round),
        )
        .await;
        let (made, refused) = if one.status == 200 {
            (one, other)
        } else {
            (other, one)
        };
        assert_eq!(refused.conflict()["reason"], "order-changed");
        order = Order::of(&made);
        // The one that was refused has forgotten what it had read.
        for instance in [&harness.here, &harness.there] {
            assert_eq!(Order::read(instance, "1").await, order);
        }
    }
}

#[tokio::test]
async fn a_new_order_is_placed_once() {
    let harness = Harness::new().await;
    let place = json!({ "quantity": 3 });
    let answers = (0..6).map(|number| harness.instance(number).put("/orders/1", &place));
    let answers = join_all(answers).await;
    let placed = answers.iter().filter(|answer| answer.status == 200);
    assert_eq!(placed.count(), 1, "{answers:#?}");
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(refused.conflict()["reason"], "order-changed");
    }
}

#[tokio::test]
async fn a_change_while_an_order_is_processed_is_kept_and_makes_other_versions_old() {
    let harness = Harness::new().await;
    let placed = Order::place(&harness.here, "1", 1).await;
    let (processed, changed) = join(harness.here.post(SLOWLY), async {
        harness.until_at_work().await;
        Order::of(&placed.change(&harness.there, 7).await)
    })
    .await;
    let receipt = processed.receipt();
    // Written since: by who processed it.
    assert_eq!(changed.change(&harness.there, 8).await.status, 409);
    let order = Order::read(&harness.there, "1").await;
    assert_eq!(order.quantity, 7);
    assert_eq!(order.status, "processed");
    assert_eq!(order.token, Some(receipt.token.to_string()));
}

#[tokio::test]
async fn two_instances_process_one_order_one_at_a_time_and_the_last_token_stays() {
    let harness = Harness::new().await;
    let answers = (0..20).map(|number| {
        let instance = harness.instance(number);
        instance.post_in_a_crowd("/orders/1/process?work_ms=10")
    });
    let answers = join_all(answers).await;
    let receipts: Vec<_> = answers.iter().map(Answer::receipt).collect();
    assert_one_at_a_time(&receipts);
    let last = receipts.iter().map(|receipt| receipt.token).max();
    assert_eq!(harness.token("1").await, last.map(FencingToken::new));
}

#[tokio::test]
async fn a_holder_that_was_overtaken_unawares_writes_nothing() {
    let harness = Harness::new().await;
    let (overtaken, ()) = join(harness.here.post(SLOWLY), async {
        harness.until_at_work().await;
        // What a later holder has shown. Its lock is still valid to the one at work.
        let name: LockName = "order:process:1".parse().unwrap();
        let later = FencingToken::new(i64::MAX.unsigned_abs());
        let mut tx = harness.pool.begin().await.unwrap();
        Fence::new().check(&mut tx, &name, later).await.unwrap();
        tx.commit().await.unwrap();
    })
    .await;
    let problem = overtaken.problem(500);
    assert_eq!(problem["reason"], "lock-lost");
    assert_eq!(problem["outcome"], "unknown");
    assert_eq!(harness.token("1").await, None);
    assert_eq!(harness.here.get("/orders/1").await.status, 404);
}

#[tokio::test]
async fn a_holder_that_was_frozen_and_overtaken_writes_nothing() {
    let harness = Harness::new().await;
    let (frozen, later) = join(harness.here.post(SLOWLY), async {
        harness.until_at_work().await;
        harness.here.freeze().await;
        // All sessions with locks; those of who is not frozen are made again.
        harness.server.terminate_backends("distributed_lock").await;
        // For as long, so that the first has done its work by then.
        let later = harness.there.post(SLOWLY).await.receipt();
        // It wakes up with its work done, and has not looked at its lock since.
        harness.here.signal(Signal::CONT);
        later
    })
    .await;
    assert_eq!(frozen.problem(500)["reason"], "lock-lost");
    assert_eq!(
        harness.token("1").await,
        Some(FencingToken::new(later.token))
    );
}

#[tokio::test]
async fn instances_that_start_at_once_all_find_their_tables() {
    let server = PostgresServer::start().await;
    let (shop, url) = (Shop::new(), server.url());
    let environment = [("DATABASE_URL", url.as_str()), ("RUST_LOG", "orders=debug")];
    let instances = join_all((0..6).map(|_| shop.open_with(&environment))).await;
    Order::place(&instances[0], "1", 3).await;
    for instance in &instances {
        assert_eq!(Order::read(instance, "1").await.quantity, 3);
    }
}

#[tokio::test]
async fn ids_that_no_order_has_or_can_have_are_told_apart() {
    let harness = Harness::new().await;
    assert_eq!(
        harness.here.get("/orders/1").await.problem(404)["reason"],
        "order-unknown"
    );
    let long: String = std::iter::repeat_with(fastrand::alphanumeric)
        .take(4_000)
        .collect();
    assert_eq!(harness.here.get(&path(&long)).await.status, 404);
    for id in ["%00", &long] {
        let answer = harness.here.put(&path(id), &json!({ "quantity": 1 })).await;
        assert_eq!(answer.problem(400)["reason"], "order-id-invalid");
    }
    assert_eq!(
        harness.here.get("/orders/%00").await.problem(400)["reason"],
        "order-id-invalid"
    );
    for id in [
        "a%3Ab",
        "'; DROP TABLE orders --",
        "%F0%9F%92%A5",
        "..%2F..%2Fetc",
    ] {
        let placed = harness.here.put(&path(id), &json!({ "quantity": 5 })).await;
        assert_eq!(
            Order::of(&placed),
            Order::of(&harness.there.get(&path(id)).await)
        );
    }
}

#[tokio::test]
async fn a_database_that_is_gone_or_hangs_is_503_and_no_error_is_kept() {
    let harness = Harness::new().await;
    Order::place(&harness.here, "1", 3).await;
    let is_refused = async || {
        let late = Lateness::of(Duration::ZERO);
        let (read, write) = join(
            harness.there.get("/orders/1"),
            harness.there.put("/orders/2", &json!({ "quantity": 1 })),
        )
        .await;
        late.at_most(Duration::from_secs(6)).await;
        for answer in [read, write] {
            assert_eq!(answer.problem(503)["reason"], "orders-unavailable");
            assert_eq!(answer.retry_after.as_deref(), Some("1"));
        }
    };
    harness.server.kill().await;
    is_refused().await;
    harness.server.restart().await;
    assert_eq!(Order::read(&harness.there, "1").await.quantity, 3);

    tokio::time::sleep(Duration::from_secs(1)).await;
    harness.server.freeze().await;
    is_refused().await;
    harness.server.thaw().await;
    assert_eq!(Order::read(&harness.there, "1").await.quantity, 3);
}

#[tokio::test]
async fn a_read_a_second_after_a_write_sees_it_through_either_instance() {
    let harness = Harness::new().await;
    assert_seen_within(Duration::from_secs(1), [&harness.here, &harness.there], "1").await;
}

#[tokio::test]
async fn concurrent_reads_of_one_instance_are_one_of_the_database() {
    let harness = Harness::new().await;
    for id in ["1", "2", "3", "nobody"] {
        if id != "nobody" {
            Order::place(&harness.here, id, 3).await;
        }
        let began = Instant::now();
        let answers = join_all((0..50).map(|number| {
            let (instance, path) = (harness.instance(number), path(id));
            async move { instance.get(&path).await.status }
        }))
        .await;
        let status = if id == "nobody" { 404 } else { 200 };
        assert!(
            answers.iter().all(|answer| *answer == status),
            "{answers:?}"
        );
        // One for each instance, and each second.
        let most = 2 * (1 + began.elapsed().as_secs());
        let reads = database_reads(&harness.server, id);
        assert!((2..=most).contains(&(reads as u64)), "{reads} reads");
    }
}

#[tokio::test]
async fn without_a_database_an_instance_checks_versions_as_well() {
    let shop = Shop::new();
    let instance = shop.open().await;
    assert_eq!(
        instance.get("/orders/1").await.problem(404)["reason"],
        "order-unknown"
    );
    let placed = Order::place(&instance, "1", 3).await;
    let again = instance.put("/orders/1", &json!({ "quantity": 4 })).await;
    assert_eq!(again.conflict()["reason"], "order-changed");
    let changed = Order::of(&placed.change(&instance, 5).await);
    assert_eq!(placed.change(&instance, 6).await.status, 409);
    let _ = instance.post("/orders/1/process?work_ms=0").await.receipt();
    assert_eq!(changed.change(&instance, 7).await.status, 409);
    let order = Order::read(&instance, "1").await;
    assert_eq!((order.quantity, order.status.as_str()), (5, "processed"));
}
