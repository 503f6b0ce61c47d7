//! Processes that are killed in the middle of a payment: with the record in the transaction of the effect
//! there is one effect, without it at least one.

use std::time::Duration;

use futures_util::future::join_all;
use lock_tests::child::Child;
use lock_tests::servers::PostgresServer;
use sqlx::PgPool;

pub(crate) const PAYER: &str = env!("CARGO_BIN_EXE_payer");

struct Payer {
    process: Child,
    address: String,
}

impl Payer {
    async fn start(url: &str, mode: &str) -> Self {
        let mut process = Child::run(PAYER, &[url, mode]).await;
        let address = process.answer().await;
        Self { process, address }
    }

    /// The answer; `None` when the process died instead.
    async fn pay(&self, payment: i64, dies_after: Option<&str>) -> Option<(u16, String)> {
        let url = format!("http://{}/payments/{payment}", self.address);
        let request = reqwest::Client::new()
            .post(url)
            .header("idempotency-key", payment.to_string());
        let request = match dies_after {
            Some(step) => request.header("x-die", step),
            None => request,
        };
        let response = request.timeout(Duration::from_secs(60)).send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    /// Pays until that is done, as a client that retries does.
    async fn insist(&self, payment: i64) -> String {
        loop {
            match self.pay(payment, None).await.expect("it lives") {
                (201, body) => return body,
                // The server has not noticed yet that the holder died.
                (409 | 503, _) => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        }
    }
}

pub(crate) async fn database() -> (PostgresServer, PgPool) {
    let server = PostgresServer::start().await;
    let pool = PgPool::connect(&server.url()).await.unwrap();
    let table = "CREATE TABLE payments (id bigserial PRIMARY KEY, payment bigint NOT NULL)";
    sqlx::raw_sql(table).execute(&pool).await.unwrap();
    (server, pool)
}

async fn effects(pool: &PgPool, payment: i64) -> i64 {
    let count = sqlx::query_scalar("SELECT count(*) FROM payments WHERE payment = $1");
    count.bind(payment).fetch_one(pool).await.unwrap()
}

/// Effects of a payment whose first process died after each step.
async fn effects_of_deaths(mode: &str) -> Vec<i64> {
    let (server, pool) = database().await;
    let other = Payer::start(&server.url(), mode).await;
    let mut found = Vec::new();
    for (payment, step) in (1..).zip(["begin", "effect", "record"]) {
        let mut first = Payer::start(&server.url(), mode).await;
        assert_eq!(first.pay(payment, Some(step)).await, None, "{step}");
        assert!(!first.process.ended().await.success());
        let answer = other.insist(payment).await;
        assert_eq!(other.insist(payment).await, answer);
        found.push(effects(&pool, payment).await);
    }
    found
}

#[tokio::test]
async fn a_record_inside_the_transaction_means_one_effect() {
    assert_eq!(effects_of_deaths("inside").await, [1, 1, 1]);
}

#[tokio::test]
async fn a_record_after_the_effect_means_at_least_one() {
    // Dead between the effect and the record, it is not known that it was done.
    assert_eq!(effects_of_deaths("after").await, [1, 2, 1]);
}

#[tokio::test]
async fn three_processes_that_die_pay_each_payment_once() {
    const PAYMENTS: i64 = 150;
    let (server, pool) = database().await;
    let url = server.url();
    let clients = (0..3).map(|client| {
        let url = &url;
        async move {
            let mut payer = Payer::start(url, "inside").await;
            let mut deaths = 0;
            for payment in 1..=PAYMENTS {
                // All three send each payment, in different orders, and some kill who serves it.
                let payment = (payment * (client + 1) + client) % (PAYMENTS + 1);
                let step = ["begin", "effect", "record"][usize::try_from(payment % 3).unwrap()];
                if (payment + client) % 10 == 0 && payer.pay(payment, Some(step)).await.is_none() {
                    deaths += 1;
                    payer = Payer::start(url, "inside").await;
                }
                payer.insist(payment).await;
            }
            deaths
        }
    });
    let deaths: usize = join_all(clients).await.into_iter().sum();
    assert!(deaths > 0);
    let twice: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT payment, count(*) FROM payments GROUP BY payment HAVING count(*) <> 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(
        twice.is_empty(),
        "payments and their effects: {twice:?}; {deaths} deaths"
    );
    let paid: i64 = sqlx::query_scalar("SELECT count(*) FROM payments")
        .fetch_one(&pool)
        .await
        .unwrap();
    let records = sqlx::query_scalar("SELECT count(*) FROM distributed_lock_idempotency");
    let records: i64 = records.fetch_one(&pool).await.unwrap();
    assert_eq!(paid, records, "{deaths} deaths");
}
