//! The statements that are sent, as the server writes them down.

use std::collections::HashSet;
use std::time::Duration;

use lock_core::{LockError, LockName, LockProvider};
use lock_tests::servers::{PostgresServer, Proxy, Server};
use lock_tests::{OneBackend, is_held};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::{LEASE, PATIENCE, acquire, backend, client, numbered, take};

/// A statement of the library, and its parameters as one text.
#[derive(Debug)]
struct Statement {
    text: String,
    parameters: String,
}

impl Statement {
    /// What a server has logged of the library.
    fn all_of(server: &PostgresServer) -> Vec<Self> {
        let mut statements: Vec<Self> = Vec::new();
        for line in server.log().lines() {
            let Some((_, line)) = line.split_once(" distributed_lock ") else {
                continue;
            };
            if let Some((_, text)) = line.split_once("LOG:  execute ") {
                let text = text.split_once(": ").unwrap().1.to_owned();
                let parameters = String::new();
                statements.push(Self { text, parameters });
            } else if let Some((_, parameters)) = line.split_once("parameters: ") {
                statements.last_mut().unwrap().parameters = parameters.to_owned();
            }
        }
        statements
    }

    /// Whether it locks or unlocks.
    fn is_about_locks(&self) -> bool {
        self.text.contains("distributed_lock.session") && self.text.contains("pg_try_advisory_lock")
    }

    /// Whether it is one that has many commands.
    fn is_batch(&self) -> bool {
        self.text.contains("unnest($2::int2[]")
    }

    /// A parameter that is an array.
    fn array(&self, number: usize) -> Vec<i64> {
        let (_, rest) = self
            .parameters
            .split_once(&format!("${number} = '{{"))
            .unwrap();
        let (array, _) = rest.split_once('}').unwrap();
        array.split(',').map(|item| item.parse().unwrap()).collect()
    }
}

async fn logging() -> PostgresServer {
    PostgresServer::with(&[("log_statement", "all")]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_come_together_travel_together() {
    let server = logging().await;
    let proxy = Proxy::to(server.address()).await;
    let client = client(&proxy.url(&server.url())).await;
    let before = Statement::all_of(&server).len();
    proxy.delay(Duration::from_millis(50));
    let mut tasks = JoinSet::new();
    for number in 0..200 {
        let lock = client.lock(numbered(number)).unwrap();
        tasks.spawn(async move { lock.acquire(PATIENCE).await?.release().await });
    }
    let done: Result<(), LockError> = tasks.join_all().await.into_iter().collect();
    done.unwrap();
    let statements = Statement::all_of(&server).split_off(before);
    let sent = statements.iter().filter(|sent| sent.is_about_locks());
    // 400 commands.
    assert!(sent.count() <= 12, "{statements:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_comes_alone_is_sent_in_its_plain_form() {
    let server = logging().await;
    let client = client(&server.url()).await;
    let before = Statement::all_of(&server).len();
    for number in 0..5 {
        take(&client, numbered(number))
            .await
            .release()
            .await
            .unwrap();
    }
    let statements = Statement::all_of(&server).split_off(before);
    let sent: Vec<_> = statements
        .iter()
        .filter(|sent| sent.is_about_locks())
        .collect();
    assert_eq!(sent.len(), 10, "{sent:#?}");
    assert!(!sent.iter().any(|sent| sent.is_batch()), "{sent:#?}");
}

/// An unlock and a try of one key in one statement could be done in either order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_in_a_statement_once_and_none_is_in_a_transaction_of_several() {
    const NAMES: usize = 3;
    let server = logging().await;
    let backend = OneBackend::new(backend(&server.url()).await);
    let mut tasks = JoinSet::new();
    // Each provider has a queue of its own, so that many ask for one key at a time.
    for task in 0..24 {
        let client = LockProvider::new(backend.clone());
        tasks.spawn(async move {
            for round in 0..50 {
                let guard = acquire(&client, numbered((task + round) % NAMES), PATIENCE).await;
                if round % 2 == 0 {
                    guard.release().await.unwrap();
                }
            }
        });
    }
    tasks.join_all().await;
    let statements = Statement::all_of(&server);
    let mut batches = 0;
    for batch in statements.iter().filter(|sent| sent.is_batch()) {
        // What is about waiting is about another key.
        let steps = batch.array(2).into_iter().zip(batch.array(3));
        let keys: Vec<_> = steps
            .filter(|(step, _)| [1, 2, 3, 4, 8].contains(step))
            .map(|(_, key)| key)
            .collect();
        let distinct: HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len(), "{batch:#?}");
        batches += usize::from(keys.len() > 1);
    }
    assert!(batches > 10, "{batches} had several keys");
    for statement in &statements {
        let first = statement.text.split_whitespace().next().unwrap();
        assert!(
            ["SELECT", "LISTEN", "SET"].contains(&first),
            "{statement:?}"
        );
    }
}

/// What an administrator switches on who looks for something, and what is sent to clients of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_logs_and_explains_everything_keeps_locks_and_shows_no_name() {
    let server = PostgresServer::with(&[
        ("log_statement", "all"),
        ("log_min_duration_statement", "0"),
        ("shared_preload_libraries", "auto_explain"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_verbose", "on"),
        ("auto_explain.log_nested_statements", "on"),
        ("client_min_messages", "debug1"),
    ])
    .await;
    let name = LockName::new("order", "process", "confidential").unwrap();
    let (here, there) = (client(&server.url()).await, client(&server.url()).await);
    for _ in 0..3 {
        let guard = acquire(&here, name.clone(), PATIENCE).await;
        let before = guard.fencing_token().await.unwrap();
        assert!(is_held(&there, &name).await);
        let lock = there.lock(&name).unwrap();
        let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await.unwrap() });
        sleep(2 * LEASE).await;
        assert!(guard.is_valid());
        guard.release().await.unwrap();
        let next = waiting.await.unwrap();
        assert!(next.fencing_token().await.unwrap() > before);
        // Both come back.
        server.terminate_backends("distributed_lock").await;
        next.lost().await;
    }
    let log = server.log();
    assert!(log.contains("Query Text: "), "statements are explained");
    assert!(!log.contains("confidential"), "names are hashed");
}
