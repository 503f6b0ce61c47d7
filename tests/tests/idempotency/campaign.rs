//! Payments whose clients send again by themselves, as their library does, while the processes that serve
//! them are killed: each payment has one effect, and each client has the answer that tells of it.

use std::collections::BTreeMap;
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::Extensions;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use lock_tests::child::Child;
use lock_tests::servers::Port;
use reqwest::{Client, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use sqlx::PgPool;
use tokio::sync::watch;

use crate::crashes::{PAYER, database};

/// How many payments, where it is set: the whole campaign has ten thousand.
const PAYMENTS: &str = "LOCK_PAYMENTS";

/// How many without.
const FEW: i64 = 400;

/// Processes that serve.
const PROCESSES: usize = 3;

/// Payments that are sent at the same time.
const CLIENTS: usize = 12;

/// Of a thousand payments so many kill the process that is at them, after a step that chance chooses.
const DEADLY: &str = "25";

/// How long a process lives that is killed from outside, in milliseconds.
const LIVES: std::ops::Range<u64> = 200..1_500;

/// What happened.
#[derive(Debug, Default)]
struct Counts {
    /// Requests, those that the library has sent again included.
    sent: AtomicUsize,
    /// What the library gave up, and the application has sent again.
    given_up: AtomicUsize,
    replayed: AtomicUsize,
    killed: AtomicUsize,
    died: AtomicUsize,
}

fn add(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::SeqCst);
}

/// Stands inside of what retries: counts what is sent.
struct Counting(Arc<Counts>);

#[async_trait]
impl Middleware for Counting {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        add(&self.0.sent);
        next.run(request, extensions).await
    }
}

/// A place where a process serves, and another after each that is killed or kills itself.
async fn serve(url: &str, port: &Port, counts: &Counts, mut over: watch::Receiver<bool>) {
    let address = format!("127.0.0.1:{}", port.number());
    loop {
        let mut process = Child::run(PAYER, &[url, "inside", &address, DEADLY]).await;
        let life = Duration::from_millis(fastrand::u64(LIVES));
        tokio::select! {
            _ = process.ended() => add(&counts.died),
            () = tokio::time::sleep(life) => {
                process.kill().await;
                add(&counts.killed);
            }
            _ = over.wait_for(|over| *over) => return,
        }
    }
}

/// A client with the retries of its library, by that library's own judgement of what can be tried again.
fn client(timeout: Duration, counts: &Arc<Counts>) -> ClientWithMiddleware {
    let waits = ExponentialBackoff::builder()
        .retry_bounds(Duration::from_millis(20), Duration::from_millis(500))
        .build_with_max_retries(5);
    ClientBuilder::new(
        Client::builder()
            .no_proxy()
            .timeout(timeout)
            .build()
            .unwrap(),
    )
    .with(RetryTransientMiddleware::new_with_policy(waits))
    .with(Counting(Arc::clone(counts)))
    .build()
}

/// Pays until there is an answer, whichever process gives it: the effect that it tells of.
async fn insist(
    payment: i64,
    ports: &[Port],
    clients: &[ClientWithMiddleware; 2],
    counts: &Counts,
) -> i64 {
    // Some clients hang up early at first.
    let mut client = &clients[usize::from(payment % 10 == 0)];
    loop {
        let port = ports[fastrand::usize(..ports.len())].number();
        let request = client
            .post(format!("http://127.0.0.1:{port}/payments/{payment}"))
            .header("idempotency-key", payment.to_string())
            .body("500 cents");
        client = &clients[0];
        let Ok(response) = request.send().await else {
            add(&counts.given_up);
            continue;
        };
        let status = response.status().as_u16();
        assert!(matches!(status, 201 | 409 | 500 | 503), "{response:?}");
        let is_replay = response.headers().contains_key("idempotent-replayed");
        match response.text().await {
            Ok(effect) if status == 201 => {
                if is_replay {
                    add(&counts.replayed);
                }
                return effect.parse().unwrap();
            }
            _ => add(&counts.given_up),
        }
    }
}

/// The effects of each payment.
async fn effects(pool: &PgPool) -> BTreeMap<i64, Vec<i64>> {
    let rows = sqlx::query_as("SELECT payment, array_agg(id) FROM payments GROUP BY payment");
    let rows: Vec<(i64, Vec<i64>)> = rows.fetch_all(pool).await.unwrap();
    rows.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_that_are_retried_amid_kills_have_one_effect() {
    let payments = env::var(PAYMENTS).map_or(FEW, |number| number.parse().unwrap());
    let (server, pool) = database().await;
    let (url, counts) = (server.url(), Arc::new(Counts::default()));
    let ports = [(); PROCESSES].map(|()| Port::reserve());
    let (end, over) = watch::channel(false);
    let serving = join_all(
        ports
            .iter()
            .map(|port| serve(&url, port, &counts, over.clone())),
    );
    let clients = [30_000, 8].map(|millis| client(Duration::from_millis(millis), &counts));
    let paying = async {
        let pay = async |payment| {
            let one = insist(payment, &ports, &clients, &counts);
            // Every fifth is sent twice, together.
            if payment % 5 != 0 {
                return (payment, one.await);
            }
            let (one, other) = tokio::join!(one, insist(payment, &ports, &clients, &counts));
            assert_eq!(one, other, "payment {payment} was answered in two ways");
            (payment, one)
        };
        let answers = stream::iter(1..=payments)
            .map(pay)
            .buffer_unordered(CLIENTS);
        let answers: BTreeMap<i64, i64> = answers.collect().await;
        end.send_replace(true);
        answers
    };
    let (answers, _) = tokio::join!(paying, serving);
    println!("{payments} payments: {counts:?}");
    let effects = effects(&pool).await;
    let twice: Vec<_> = effects.iter().filter(|(_, ids)| ids.len() != 1).collect();
    assert!(twice.is_empty(), "payments and their effects: {twice:?}");
    let answered = answers
        .into_iter()
        .map(|(payment, effect)| (payment, vec![effect]));
    assert_eq!(answered.collect::<BTreeMap<_, _>>(), effects);
    assert_eq!(effects.len(), usize::try_from(payments).unwrap());
    let ended = [&counts.killed, &counts.died].map(|count| count.load(Ordering::SeqCst));
    assert!(ended.iter().sum::<usize>() > 0, "no process ended");
}
