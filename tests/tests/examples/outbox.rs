//! The example `outbox`: instances that deliver in order, and are killed at it.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures_util::future::join_all;
use lock_tests::eventually;
use lock_tests::examples::program;
use lock_tests::servers::PostgresServer;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

const CUSTOMERS: [&str; 4] = ["ann", "bob", "cem", "dot"];
const ORDERS_EACH: u64 = 2_500;
const MESSAGES: usize = 10_000;
const BATCH: usize = 100;

/// Which deliveries are not answered, but cost the instance its life.
const FATAL: [usize; 5] = [33, 1_750, 4_001, 6_666, 9_099];

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Something that was posted.
#[derive(Clone, Debug)]
struct Delivery {
    process: u32,
    token: u64,
    id: u64,
    body: String,
}

/// The receiver of the messages.
struct Receiver {
    deliveries: Mutex<Vec<Delivery>>,
    /// Who is to be killed.
    victims: mpsc::UnboundedSender<u32>,
    /// A permit for each that was.
    killed: Semaphore,
}

impl Receiver {
    /// Takes a delivery, unless a later holder of the lock has been here.
    async fn receive(
        State(receiver): State<Arc<Self>>,
        headers: HeaderMap,
        body: String,
    ) -> StatusCode {
        let number = |name: &str| {
            let text = headers[name].to_str().unwrap();
            text.trim_start_matches("outbox/").parse::<u64>().unwrap()
        };
        let delivery = Delivery {
            process: u32::try_from(number("user-agent")).unwrap(),
            token: number("fencing-token"),
            id: number("message-id"),
            body,
        };
        let process = delivery.process;
        let count = {
            let mut deliveries = receiver.deliveries.lock().unwrap();
            let newest = deliveries.last().map_or(0, |last| last.token);
            if delivery.token < newest {
                return StatusCode::CONFLICT;
            }
            deliveries.push(delivery);
            deliveries.len()
        };
        if FATAL.contains(&count) {
            receiver.victims.send(process).unwrap();
            receiver.killed.acquire().await.unwrap().forget();
        }
        StatusCode::NO_CONTENT
    }
}

struct Instances<'a> {
    program: &'a Path,
    database: String,
    webhook: String,
    running: HashMap<u32, Child>,
}

impl Instances<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command
            .env("DATABASE_URL", &self.database)
            .env("WEBHOOK_URL", &self.webhook)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn start(&mut self) {
        let instance = self.command().spawn().unwrap();
        self.running.insert(instance.id().unwrap(), instance);
    }

    /// Has a customer place orders.
    async fn order(&self, customer: &str) {
        let count = ORDERS_EACH.to_string();
        let mut command = self.command();
        let ordered = command.args(["order", customer, &count]).status().await;
        assert!(ordered.unwrap().success());
    }

    /// Tells all to stop as Ctrl-C does, and waits until they have.
    async fn stop(self) {
        for (id, mut instance) in self.running {
            kill_process(Pid::from_raw(id.cast_signed()).unwrap(), Signal::INT).unwrap();
            let ended = timeout(PATIENCE, instance.wait()).await.unwrap();
            assert!(ended.unwrap().success());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_delivered_in_order_and_only_killed_batches_come_twice() {
    let (program, server) = (program("outbox"), PostgresServer::start().await);
    let (victims, mut dying) = mpsc::unbounded_channel();
    let receiver = Arc::new(Receiver {
        deliveries: Mutex::default(),
        victims,
        killed: Semaphore::new(0),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut instances = Instances {
        program: &program,
        database: server.url(),
        webhook: format!("http://{}/", listener.local_addr().unwrap()),
        running: HashMap::new(),
    };
    let app = Router::new().route("/", post(Receiver::receive));
    let app = app.with_state(Arc::clone(&receiver));
    let receiving = tokio::spawn(async move { axum::serve(listener, app).await });

    for _ in 0..3 {
        instances.start();
    }
    let mut killed = BTreeSet::new();
    let kill = async {
        for _ in FATAL {
            let victim = timeout(PATIENCE, dying.recv()).await.unwrap().unwrap();
            let mut instance = instances.running.remove(&victim).unwrap();
            instance.kill().await.unwrap();
            killed.insert(victim);
            receiver.killed.add_permits(1);
            instances.start();
        }
        instances
    };
    let customers = Instances {
        program: &program,
        database: server.url(),
        webhook: String::new(),
        running: HashMap::new(),
    };
    let order = join_all(CUSTOMERS.map(|customer| customers.order(customer)));
    let (instances, _) = tokio::join!(kill, order);
    let pool = server.pool().await;
    eventually("the outbox is empty", || async {
        let left = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM outbox");
        left.fetch_one(&pool).await.unwrap() == 0
    })
    .await;
    instances.stop().await;
    receiving.abort();

    let deliveries = receiver.deliveries.lock().unwrap().clone();
    judge(&deliveries, &killed);
}

/// What was delivered in one term of leadership.
struct Term {
    process: u32,
    ids: Vec<u64>,
}

fn judge(deliveries: &[Delivery], killed: &BTreeSet<u32>) {
    // By token, so in the order of the leaders.
    let mut terms: BTreeMap<u64, Term> = BTreeMap::new();
    for delivery in deliveries {
        let term = terms.entry(delivery.token).or_insert_with(|| Term {
            process: delivery.process,
            ids: Vec::new(),
        });
        assert_eq!(term.process, delivery.process);
        term.ids.push(delivery.id);
    }
    let terms: Vec<_> = terms.into_values().collect();
    let mut repeated = 0;
    for pair in terms.windows(2) {
        let [term, next] = pair else { unreachable!() };
        let again = term.ids.iter().filter(|id| next.ids.contains(id)).count();
        if again > 0 {
            // The next leader begins where the batch did in which the killed one ended.
            assert!(killed.contains(&term.process), "nobody else repeats");
            assert!(again <= BATCH, "{again} messages were delivered twice");
            assert!(next.ids.starts_with(&term.ids[term.ids.len() - again..]));
            repeated += again;
        }
    }
    let mut seen = BTreeSet::new();
    let first: Vec<_> = deliveries
        .iter()
        .filter(|delivery| seen.insert(delivery.id))
        .collect();
    assert_eq!(first.len(), MESSAGES);
    assert_eq!(
        deliveries.len(),
        MESSAGES + repeated,
        "nothing else comes twice"
    );
    assert!(
        repeated >= FATAL.len(),
        "each of those killed had delivered"
    );
    for customer in CUSTOMERS {
        let theirs = first.iter().map(|delivery| &delivery.body);
        let theirs: Vec<_> = theirs.filter(|body| body.starts_with(customer)).collect();
        let expected = (1..=ORDERS_EACH).map(|n| format!("{customer} has placed order {n}"));
        assert!(theirs.into_iter().eq(expected.collect::<Vec<_>>().iter()));
    }
}
