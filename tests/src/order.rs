//! An order of the example service, as it tells of it, and how old that is.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

use crate::orders::{Answer, Instance};
use crate::servers::{PostgresServer, Server};

/// How often [`assert_seen_within`] writes.
const LAST: i32 = 16;

/// An order that was read or written.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// What clients change.
    pub quantity: i32,
    /// `open` or `processed`.
    pub status: String,
    /// Of the request that processed it, in decimal.
    pub token: Option<String>,
    /// What a change is based on.
    pub version: String,
}

impl Order {
    /// The order of a 200.
    #[must_use]
    #[track_caller]
    pub fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{answer:#?}");
        serde_json::from_str(&answer.body).expect("the body is an order")
    }

    /// Reads it.
    pub async fn read(instance: &Instance, id: &str) -> Self {
        Self::of(&instance.get(&path(id)).await)
    }

    /// Places a new one.
    pub async fn place(instance: &Instance, id: &str, quantity: i32) -> Self {
        let order = json!({ "quantity": quantity });
        Self::of(&instance.put(&path(id), &order).await)
    }

    /// Asks for another quantity of it as it is here.
    pub async fn change(&self, instance: &Instance, quantity: i32) -> Answer {
        let change = json!({ "quantity": quantity, "version": self.version });
        instance.put(&path(&self.id), &change).await
    }
}

/// Where an order is.
#[must_use]
pub fn path(id: &str) -> String {
    format!("/orders/{id}")
}

/// How often an order was read from the database, which logs all statements.
#[must_use]
pub fn database_reads(server: &PostgresServer, id: &str) -> usize {
    let (log, parameter) = (server.log(), format!("$1 = '{id}'"));
    let lines: Vec<_> = log.lines().collect();
    let reads = lines.windows(2).filter(|pair| {
        pair[0].contains("FROM orders WHERE id = $1") && pair[1].ends_with(&parameter)
    });
    reads.count()
}

/// How often an instance could not take an order out of Redis that was changed, within the short time that it
/// gives Redis: for half a minute it can be read there as it was.
#[must_use]
pub fn left_in_redis(instance: &Instance) -> usize {
    let printed = instance.printed();
    let left = printed
        .iter()
        .filter(|line| line.contains("an order stays in Redis as it was"));
    left.count()
}

/// Writes through one instance and then through the other while both are read, and asserts that a read which begins `bound`
/// after the answer to a write sees that write; with another order where one was left in Redis.
pub async fn assert_seen_within(bound: Duration, instances: [&Instance; 2], id: &str) {
    let left = || instances.map(left_in_redis);
    let mut id = id.to_owned();
    loop {
        let before = left();
        match is_seen_within(bound, instances, &id).await {
            Ok(()) => return,
            Err(_) if left() != before => id.push('1'),
            Err(error) => panic!("{error}"),
        }
    }
}

async fn is_seen_within(
    bound: Duration,
    instances: [&Instance; 2],
    id: &str,
) -> Result<(), String> {
    let (writes, reads) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let is_over = Cell::new(false);
    let write = async {
        let mut order = Order::place(instances[0], id, 0).await;
        writes.borrow_mut().push((Instant::now(), 0));
        for quantity in 1..=LAST {
            sleep(Duration::from_millis(fastrand::u64(10..400))).await;
            // Long enough through one that the other knows nothing but what it looks for.
            let instance = instances[usize::from(quantity > 8)];
            order = Order::of(&order.change(instance, quantity).await);
            writes.borrow_mut().push((Instant::now(), quantity));
        }
        sleep(bound + Duration::from_millis(100)).await;
        is_over.set(true);
    };
    let read = async |instance: &Instance| {
        while !is_over.get() {
            let began = Instant::now();
            let answer = instance.get(&path(id)).await;
            let seen = (answer.status != 404).then(|| Order::of(&answer).quantity);
            reads.borrow_mut().push((began, seen));
            sleep(Duration::from_millis(3)).await;
        }
    };
    tokio::join!(write, read(instances[0]), read(instances[1]));
    let (writes, reads) = (writes.into_inner(), reads.into_inner());
    for (began, seen) in &reads {
        let due = writes
            .iter()
            .rfind(|(answered, _)| *answered + bound <= *began);
        let due = due.map(|(_, quantity)| *quantity);
        if *seen < due {
            return Err(format!("{seen:?} was read, and {due:?} was due"));
        }
    }
    let last = reads.iter().max_by_key(|(began, _)| *began);
    let last = last.and_then(|(_, seen)| *seen);
    match last {
        Some(LAST) => Ok(()),
        _ => Err(format!("{last:?} was read last, and not the last write")),
    }
}
