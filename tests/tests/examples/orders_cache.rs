//! What instances of the example service share of their reads, through Redis.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use lock_tests::order::{Order, assert_seen_within, database_reads, left_in_redis, path};
use lock_tests::orders::{Instance, Shop};
use lock_tests::servers::{Direction, PostgresServer, Proxy, RedisServer, Server};
use lock_tests::{Lateness, Queued, eventually};
use rustix::process::Signal;
use serde_json::json;

/// What a read can be old.
const BOUND: Duration = Duration::from_secs(1);

/// Two instances with one database, which logs what it is asked, and one Redis.
struct Harness {
    here: Instance,
    there: Instance,
    /// Between Redis and the first of them.
    proxy: Proxy,
    server: PostgresServer,
    redis: RedisServer,
    _shop: Shop,
}

impl Harness {
    async fn new() -> Self {
        let settings = [("log_statement", "all")];
        let (server, redis) = tokio::join!(PostgresServer::with(&settings), RedisServer::start());
        let proxy = Proxy::to(redis.address()).await;
        let shop = Shop::new();
        let (here, there) = tokio::join!(
            open(&shop, &server, proxy.url(&redis.url())),
            open(&shop, &server, redis.url()),
        );
        Self {
            here,
            there,
            proxy,
            server,
            redis,
            _shop: shop,
        }
    }

    fn reads(&self, id: &str) -> usize {
        database_reads(&self.server, id)
    }

    /// Returns when the database has been asked for the order.
    async fn until_read(&self, id: &str) {
        eventually("the order is read", async || self.reads(id) > 0).await;
    }

    /// Orders that Redis has.
    async fn keys(&self) -> Vec<String> {
        self.redis.ask(&["KEYS", "*order:*"]).await.unwrap()
    }
}

/// An instance whose locks are in the database: what happens to Redis happens to the cache alone.
async fn open(shop: &Shop, server: &PostgresServer, redis_url: String) -> Instance {
    shop.open_with(&[
        ("DATABASE_URL", &server.url()),
        ("REDIS_URL", &redis_url),
        ("LOCK_PROVIDER", "postgres"),
    ])
    .await
}

#[tokio::test]
async fn fifty_reads_of_a_cold_order_in_two_processes_are_one_of_the_database() {
    /// What the service gives Redis; after that it reads the database.
    const ANSWER: Duration = Duration::from_millis(250);
    let harness = Harness::new().await;
    for round in 0..10 {
        let id = format!("cold-{round}");
        Order::place(&harness.here, &id, round).await;
        let queued = Queued::here_and_there();
        let answers = join_all((0..50).map(|number| {
            let instance = if number % 2 == 0 {
                &harness.here
            } else {
                &harness.there
            };
            Order::read(instance, &id)
        }))
        .await;
        assert!(answers.iter().all(|order| order.quantity == round));
        let (reads, queued) = (harness.reads(&id), queued.longest_since());
        assert!(reads == 1 || queued > ANSWER, "{reads} reads, {queued:?}");
    }
}

#[tokio::test]
async fn a_read_a_second_after_a_write_sees_it_through_either_instance() {
    let harness = Harness::new().await;
    assert_seen_within(BOUND, [&harness.here, &harness.there], "1").await;
}

#[tokio::test]
async fn what_was_processed_is_seen_a_second_later() {
    let harness = Harness::new().await;
    for id in 1.. {
        let (id, left) = (id.to_string(), left_in_redis(&harness.here));
        Order::place(&harness.here, &id, 1).await;
        for instance in [&harness.here, &harness.there] {
            assert_eq!(Order::read(instance, &id).await.status, "open");
        }
        let process = format!("/orders/{id}/process?work_ms=0");
        let receipt = harness.here.post(&process).await.receipt();
        tokio::time::sleep(BOUND).await;
        if left_in_redis(&harness.here) > left {
            continue;
        }
        for instance in [&harness.here, &harness.there] {
            let order = Order::read(instance, &id).await;
            assert_eq!(order.token, Some(receipt.token.to_string()));
        }
        break;
    }
}

#[tokio::test]
async fn a_fill_that_has_read_before_a_write_does_not_put_the_old_order_back() {
    let harness = Harness::new().await;
    for round in 0..10 {
        let id = format!("raced-{round}");
        let left = left_in_redis(&harness.there);
        let placed = Order::place(&harness.there, &id, 1).await;
        // Between what it reads and what it stores there is time for a write.
        harness.proxy.delay(Duration::from_millis(60));
        let (_, changed) = join(Order::read(&harness.here, &id), async {
            harness.until_read(&id).await;
            Order::of(&placed.change(&harness.there, 2).await)
        })
        .await;
        harness.proxy.delay(Duration::ZERO);
        if left_in_redis(&harness.there) > left {
            continue;
        }
        assert_eq!(Order::read(&harness.there, &id).await, changed);
        assert_eq!(
            harness.reads(&id),
            2,
            "the change was read, and not from Redis"
        );
    }
}

/// Longer than a writer waits for anything, and shorter than the database may take.
const LATE: Duration = Duration::from_secs(3);

/// Has the answers to prepared statements come late, and those to pings of the pool not.
fn late(piece: &mut [u8]) {
    const BIND_COMPLETE: u8 = b'2';
    if piece.first() == Some(&BIND_COMPLETE) {
        // The proxy has a thread of its own.
        std::thread::sleep(LATE);
    }
}

#[tokio::test]
async fn a_fill_that_outlasts_the_wait_of_a_writer_puts_nothing_old_back() {
    let settings = [("log_statement", "all")];
    // Without its lock a read stores nothing.
    let (server, redis) =
        tokio::join!(PostgresServer::with(&settings), RedisServer::up_for_a_day());
    let proxy = Proxy::to(server.address()).await;
    let (shop, redis_url) = (Shop::new(), redis.url());
    let open = async |url: String| {
        let environment = [("DATABASE_URL", &*url), ("REDIS_URL", &*redis_url)];
        shop.open_with(&environment).await
    };
    let (here, there) = tokio::join!(open(proxy.url(&server.url())), open(server.url()));
    let placed = Order::place(&there, "1", 1).await;
    proxy.corrupt(Direction::ToClient, |piece| late(piece));
    let path = path("1");
    let (old, changed) = join(here.get(&path), async {
        eventually("the order is read", async || {
            database_reads(&server, "1") > 0
        })
        .await;
        Order::of(&placed.change(&there, 2).await)
    })
    .await;
    assert!(old.took >= LATE, "{old:?}");
    assert_eq!((Order::of(&old).quantity, changed.quantity), (1, 2));
    assert_eq!(Order::read(&there, "1").await, changed);
}

#[tokio::test]
async fn a_writer_whose_client_has_left_still_takes_the_old_order_out_of_redis() {
    let harness = Harness::new().await;
    let placed = Order::place(&harness.here, "1", 1).await;
    assert_eq!(Order::read(&harness.there, "1").await.quantity, 1);
    assert_eq!(harness.keys().await.len(), 1);
    let pool = harness.server.pool().await;
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM orders FOR UPDATE")
        .execute(&mut *tx)
        .await
        .unwrap();
    let change = json!({ "quantity": 2, "version": placed.version }).to_string();
    let client = harness
        .here
        .begin_request("PUT", "/orders/1", &change)
        .await;
    eventually("the change waits for the row", async || {
        let waits = "SELECT count(*) FROM pg_stat_activity \
             WHERE application_name = 'orders' AND wait_event_type = 'Lock'";
        sqlx::query_scalar::<_, i64>(waits)
            .fetch_one(&pool)
            .await
            .unwrap()
            == 1
    })
    .await;
    drop(client);
    // So long does the service need to see that it is gone, and more.
    tokio::time::sleep(Duration::from_millis(200)).await;
    tx.commit().await.unwrap();
    eventually("the change is made", async || {
        let quantity = "SELECT quantity FROM orders";
        sqlx::query_scalar::<_, i32>(quantity)
            .fetch_one(&pool)
            .await
            .unwrap()
            == 2
    })
    .await;
    let (made, patience) = (Instant::now(), Duration::from_secs(10));
    while !harness.keys().await.is_empty() {
        assert!(made.elapsed() < patience, "Redis has the old order");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn without_redis_reads_and_writes_go_on() {
    let harness = Harness::new().await;
    let mut order = Order::place(&harness.here, "1", 0).await;
    let mut go_on = async |state: &str, bound: Duration| {
        let (late, quantity) = (Lateness::of(Duration::ZERO), order.quantity + 1);
        order = Order::of(&order.change(&harness.here, quantity).await);
        assert_eq!(Order::read(&harness.here, "1").await, order);
        let took = late.by_now();
        assert!(took < bound, "{state}: a write and a read took {took:?}");
        tokio::time::sleep(BOUND).await;
        assert_eq!(Order::read(&harness.there, "1").await, order);
    };
    // What the driver is to wait for Redis, for each of what is asked of it.
    harness.redis.freeze().await;
    go_on("frozen", Duration::from_secs(2)).await;
    harness.redis.thaw().await;
    harness.redis.kill().await;
    go_on("killed", Duration::from_secs(2)).await;
    harness.redis.restart().await;
    eventually("orders are stored in Redis again", async || {
        tokio::time::sleep(BOUND / 4).await;
        Order::read(&harness.there, "1").await;
        harness.keys().await.len() == 1
    })
    .await;
}

#[tokio::test]
async fn an_instance_starts_without_redis_and_not_with_a_wrong_address_of_it() {
    let (shop, server) = (Shop::new(), PostgresServer::start().await);
    let port = lock_tests::servers::Port::reserve();
    let nowhere = format!("127.0.0.1:{},password=hunter2", port.number());
    let instance = open(&shop, &server, nowhere).await;
    Order::place(&instance, "1", 3).await;
    assert_eq!(Order::read(&instance, "1").await.quantity, 3);

    let wrong = [
        ("LOCK_PROVIDER", "postgres".to_owned()),
        ("DATABASE_URL", server.url()),
        (
            "REDIS_URL",
            "redis://:hunter2@127.0.0.1?sll=true".to_owned(),
        ),
    ];
    let wrong = wrong
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let mut command = lock_tests::orders::command(&shop.lock_dir(), &wrong);
    let output = command.stderr(std::process::Stdio::piped()).output().await;
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        !output.status.success() && said.contains("unknown option (number 1)"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn that_there_is_no_order_is_known_for_a_second_at_most() {
    let harness = Harness::new().await;
    let pool = harness.server.pool().await;
    for round in 0..3 {
        let (ours, theirs) = (format!("ours-{round}"), format!("theirs-{round}"));
        for id in [&ours, &theirs] {
            let read = join(harness.here.get(&path(id)), harness.there.get(&path(id))).await;
            assert_eq!((read.0.status, read.1.status), (404, 404));
        }
        assert!(
            !harness
                .keys()
                .await
                .iter()
                .any(|key| key.ends_with(&theirs))
        );
        Order::place(&harness.here, &ours, 1).await;
        // Past the service, which does not learn of it.
        sqlx::query("INSERT INTO orders (id, quantity) VALUES ($1, 1)")
            .bind(&theirs)
            .execute(&pool)
            .await
            .unwrap();
        tokio::time::sleep(BOUND).await;
        for id in [&ours, &theirs] {
            let read = join(
                Order::read(&harness.here, id),
                Order::read(&harness.there, id),
            )
            .await;
            assert_eq!((read.0.quantity, read.1.quantity), (1, 1));
        }
    }
}

#[tokio::test]
async fn what_another_version_of_the_service_has_stored_is_read_anew() {
    let harness = Harness::new().await;
    let placed = Order::place(&harness.here, "1", 3).await;
    eventually("it is stored", async || {
        assert_eq!(Order::read(&harness.here, "1").await, placed);
        harness.keys().await.len() == 1
    })
    .await;
    let keys = harness.keys().await;
    let [key] = keys.as_slice() else {
        panic!("{keys:?}")
    };
    for stored in ["", "{}", "not JSON", r#"{"id":"1","quantity":"three"}"#] {
        let () = harness.redis.ask(&["SET", key, stored]).await.unwrap();
        tokio::time::sleep(BOUND).await;
        assert_eq!(Order::read(&harness.here, "1").await, placed);
    }
    // And what is stored goes by itself.
    eventually("it is stored for a while", async || {
        assert_eq!(Order::read(&harness.here, "1").await, placed);
        let milliseconds: i64 = harness.redis.ask(&["PTTL", key]).await.unwrap();
        (1..=30_000).contains(&milliseconds)
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_is_frozen_while_it_fills_holds_others_up_for_a_second_at_most() {
    let harness = Harness::new().await;
    Order::place(&harness.there, "1", 3).await;
    harness.proxy.delay(Duration::from_millis(100));
    let request = harness.here.begin_request("GET", "/orders/1", "").await;
    harness.until_read("1").await;
    harness.here.signal(Signal::STOP);
    let late = Lateness::of(Duration::ZERO);
    assert_eq!(Order::read(&harness.there, "1").await.quantity, 3);
    late.at_most(Duration::from_secs(2)).await;
    harness.here.signal(Signal::KILL);
    drop(request);
}
