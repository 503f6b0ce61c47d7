//! The service of the README as Prometheus sees it: what was done is what is counted, and no name is
//! shown.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::cell::Cell;
use std::collections::BTreeMap;

use futures_util::future::join_all;
use lock_tests::orders::{Instance, Shop};
use lock_tests::servers::{PostgresServer, Server};
use lock_tests::{PostgresStore, eventually};
use sqlx::{AssertSqlSafe, PgConnection};

const ACQUIRE: &str = "distributed_lock_acquire_duration_seconds";
const HOLD: &str = "distributed_lock_hold_duration_seconds";

/// Values by series: the name and its labels in order.
#[derive(Debug)]
struct Scrape(BTreeMap<(String, BTreeMap<String, String>), f64>);

impl Scrape {
    async fn of(instance: &Instance) -> Self {
        let answer = instance.get("/metrics").await;
        assert_eq!(answer.status, 200);
        let is_text = |media: &String| media.starts_with("text/plain; version=0.0.4");
        assert!(
            answer.content_type.as_ref().is_some_and(is_text),
            "{answer:?}"
        );
        let lines = answer.body.lines().filter(|line| !line.is_empty());
        let lines = lines.filter(|line| !line.starts_with('#'));
        Self(lines.map(parse).collect())
    }

    /// The value of a series; zero where there is none.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels
            .iter()
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
        let series = (name.to_owned(), labels.collect());
        self.0.get(&series).copied().unwrap_or_default()
    }

    fn acquires(&self, lock: &str, outcome: &str) -> f64 {
        self.count(ACQUIRE, lock, outcome)
    }

    fn holds(&self, lock: &str, outcome: &str) -> f64 {
        self.count(HOLD, lock, outcome)
    }

    fn count(&self, metric: &str, lock: &str, outcome: &str) -> f64 {
        let labels = [
            ("backend", "postgres"),
            ("lock", lock),
            ("outcome", outcome),
        ];
        self.value(&format!("{metric}_count"), &labels)
    }

    fn gauge(&self, metric: &str, lock: &str) -> f64 {
        self.value(metric, &[("backend", "postgres"), ("lock", lock)])
    }
}

/// `name{label="value",..} 1`
fn parse(line: &str) -> ((String, BTreeMap<String, String>), f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').unwrap().split(',');
    let labels = labels.filter(|label| !label.is_empty()).map(|label| {
        let (label, value) = label.split_once('=').unwrap();
        (label.to_owned(), value.trim_matches('"').to_owned())
    });
    ((name.to_owned(), labels.collect()), value.parse().unwrap())
}

/// Has a session take or give up what the lock of this name is in the database.
async fn set(session: &mut PgConnection, name: &str, function: &str) {
    let key = PostgresStore::key_of(&name.parse().unwrap());
    let call = format!("SELECT {function}($1)");
    let call = sqlx::query(AssertSqlSafe(call)).bind(key);
    call.execute(session).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::float_cmp, reason = "counts are whole")]
async fn what_was_done_is_what_is_counted_and_no_name_is_shown() {
    const ORDER: &str = "order:process:<id>";
    const REFUND: &str = "payment:refund:<id>";
    // Milliseconds: as long as a waiter can wait, less what it takes to be served.
    const LINE: u32 = 1_000;
    let (shop, server) = (Shop::new(), PostgresServer::start().await);
    let instance = shop.open_with(&[("DATABASE_URL", &server.url())]).await;

    // One that works and one that waits, seen from outside.
    let (mut lines, seen) = (0.0, Cell::new(false));
    let line = async {
        while !seen.get() {
            let requests = [LINE, 0].map(|work_ms| {
                let (instance, path) =
                    (&instance, format!("/orders/zz7/process?work_ms={work_ms}"));
                async move { instance.post(&path).await }
            });
            for answer in join_all(requests).await {
                let _ = answer.receipt();
            }
            lines += 1.0;
        }
    };
    let look = async {
        eventually("one waits and one holds", || async {
            let scrape = Scrape::of(&instance).await;
            let (held, waiting) = ("distributed_lock_held", "distributed_lock_waiting");
            scrape.gauge(held, ORDER) == 1.0 && scrape.gauge(waiting, ORDER) == 1.0
        })
        .await;
        seen.set(true);
    };
    tokio::join!(line, look);
    // Load over many orders, accounts and users.
    let load = (0..40).map(|number| {
        let path = format!("/orders/zz{number}/process?work_ms=2");
        let instance = &instance;
        async move { instance.post(&path).await }
    });
    for answer in join_all(load).await {
        let _ = answer.receipt();
    }
    for number in 0..5 {
        let _ = instance.transfer("zzann", "zzbob", 0).await.receipt();
        let _ = instance
            .post(&format!("/users/zz{number}@example.org/login?work_ms=0"))
            .await
            .receipt();
    }
    let pool = server.pool().await;
    let mut elsewhere = pool.acquire().await.unwrap();
    // Contention: another client has it, and five do not wait.
    set(&mut elsewhere, "payment:refund:zz9", "pg_advisory_lock").await;
    let refunds = (0..5).map(|_| instance.post("/payments/zz9/refund?work_ms=0"));
    for answer in join_all(refunds).await {
        assert_eq!(answer.status, 409, "{answer:?}");
    }
    set(&mut elsewhere, "payment:refund:zz9", "pg_advisory_unlock").await;
    let _ = instance
        .post("/payments/zz9/refund?work_ms=0")
        .await
        .receipt();
    // A job that another instance is at: skipped, which is contention.
    let job = "job:cleanup-tokens";
    eventually("the job runs", || async {
        Scrape::of(&instance).await.acquires(job, "acquired") >= 1.0
    })
    .await;
    set(&mut elsewhere, job, "pg_advisory_lock").await;
    eventually("the job is skipped", || async {
        Scrape::of(&instance).await.acquires(job, "contended") >= 1.0
    })
    .await;
    // Renewals, by a heartbeat that a look at the health makes.
    assert_eq!(instance.get("/health").await.status, 200);
    // A loss, and then failure, which is not contention.
    let lost = instance.post("/orders/zz99/process?work_ms=60000");
    let kill = async {
        eventually("it works", || async {
            Scrape::of(&instance)
                .await
                .gauge("distributed_lock_held", ORDER)
                == 1.0
        })
        .await;
        server.kill().await;
    };
    let (lost, ()) = tokio::join!(lost, kill);
    assert_eq!(lost.problem(500)["reason"], "lock-lost");
    let refused = instance.post("/payments/zz9/refund?work_ms=0").await;
    assert_eq!(refused.status, 503);

    let scrape = Scrape::of(&instance).await;
    let counts = [
        (scrape.acquires(ORDER, "acquired"), 2.0 * lines + 41.0),
        (scrape.holds(ORDER, "released"), 2.0 * lines + 40.0),
        (scrape.holds(ORDER, "lost"), 1.0),
        (scrape.acquires(REFUND, "acquired"), 1.0),
        (scrape.acquires(REFUND, "contended"), 5.0),
        (scrape.acquires(REFUND, "unavailable"), 1.0),
        (scrape.holds(REFUND, "released"), 1.0),
        (scrape.acquires("account:transfer:<from>", "acquired"), 5.0),
        (scrape.acquires("account:transfer:<to>", "acquired"), 5.0),
        (
            scrape.acquires("user:login:<email:hashed>", "acquired"),
            5.0,
        ),
        (scrape.gauge("distributed_lock_held", ORDER), 0.0),
        (scrape.gauge("distributed_lock_waiting", ORDER), 0.0),
        (scrape.gauge("distributed_lock_held", REFUND), 0.0),
    ];
    for (position, (counted, done)) in counts.into_iter().enumerate() {
        assert_eq!(counted, done, "{position}: {scrape:#?}");
    }
    let reason = [("reason", "disconnected")];
    assert!(
        scrape.value("distributed_lock_lost_total", &reason) >= 1.0,
        "{scrape:#?}"
    );
    let postgres = [("backend", "postgres")];
    let renewed = scrape.value("distributed_lock_renew_headroom_seconds_count", &postgres);
    assert!(renewed >= 1.0, "{scrape:#?}");
    // In seconds: the line alone took most of one.
    let held = [
        ("backend", "postgres"),
        ("lock", ORDER),
        ("outcome", "released"),
    ];
    let held = scrape.value(&format!("{HOLD}_sum"), &held);
    assert!((1.0..60.0).contains(&held), "{held}");

    for (name, labels) in scrape.0.keys() {
        assert!(name.starts_with("distributed_lock_"), "{name}");
        let known: &[&str] = match name.as_str() {
            "distributed_lock_lost_total" => &["reason"],
            name if name.contains("renew_headroom") => &["backend", "le"],
            name if name.contains("_seconds") => &["backend", "lock", "outcome", "le"],
            _ => &["backend", "lock"],
        };
        for (label, value) in labels {
            assert!(known.contains(&&**label), "{name} has a label {label}");
            assert!(!value.contains("zz"), "{name} shows a name: {value}");
        }
    }
}
