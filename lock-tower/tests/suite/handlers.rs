//! Handlers that lock by themselves and return the error of the lock as it is, over real connections.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Router, routing};
use lock_core::{LockError, LockProvider, distributed_lock};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Locks, Log};

#[distributed_lock("payment:refund:<id>", provider = locks, wait = "0s")]
async fn refund(
    State(locks): State<LockProvider>,
    Path(id): Path<String>,
) -> Result<String, LockError> {
    Ok(format!("payment {id} is refunded"))
}

async fn rebuild(State(locks): State<LockProvider>) -> Result<(), LockError> {
    let wait = Duration::from_millis(150);
    let guard = locks.acquire("report:rebuild:2026", wait).await?;
    guard.release().await
}

async fn mistake() -> Result<(), LockError> {
    Err(LockError::misconfigured("the secret of names is too short"))
}

/// The head and the body of a response, from a real socket.
async fn request(router: Router, path: &str) -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: orders\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).await.unwrap();
    server.abort();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

fn router(locks: &Locks) -> Router {
    Router::new()
        .route("/payments/{id}/refund", routing::post(refund))
        .route("/reports/rebuild", routing::post(rebuild))
        .route("/mistake", routing::post(mistake))
        .with_state(locks.provider.clone())
}

fn problem(body: &str) -> Value {
    let mut problem: Value = serde_json::from_str(body).unwrap();
    let members = problem.as_object_mut().unwrap();
    for varying in ["retry_after_ms", "waited_ms"] {
        members.remove(varying);
    }
    problem
}

#[tokio::test]
async fn a_locked_handler_returns_the_error_of_its_lock() {
    let locks = Locks::new();
    let (head, body) = request(router(&locks), "/payments/7/refund").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(body, "payment 7 is refunded");

    let _held = locks.take("payment:refund:7").await;
    let (head, body) = request(router(&locks), "/payments/7/refund").await;
    assert!(head.starts_with("http/1.1 409"), "{head}");
    assert!(
        head.contains("content-type: application/problem+json"),
        "{head}"
    );
    assert!(head.contains("retry-after: ") && head.contains("cache-control: no-store"));
    assert_eq!(
        problem(&body),
        json!({
            "type": "urn:distributed-lock:problem:lock-contended",
            "title": "Locked by another request",
            "status": 409,
            "detail": "Another request is working on this; try again later.",
            "reason": "lock-contended",
            "lock": "payment:refund:<id>",
        })
    );
}

#[tokio::test]
async fn a_handler_answers_for_every_kind_of_error() {
    let locks = Locks::new();
    let (head, body) = request(router(&locks), "/payments/%20/refund").await;
    assert!(head.starts_with("http/1.1 200"), "{head} {body}");

    let _held = locks.take("report:rebuild:2026").await;
    let (head, body) = request(router(&locks), "/reports/rebuild").await;
    assert!(head.starts_with("http/1.1 409"), "{head}");
    assert_eq!(problem(&body)["reason"], "lock-wait-timeout");

    locks.store.set_available(false);
    let (head, body) = request(router(&locks), "/payments/7/refund").await;
    assert!(
        head.starts_with("http/1.1 503") && head.contains("retry-after: "),
        "{head}"
    );
    assert_eq!(problem(&body)["reason"], "lock-unavailable");
}

#[tokio::test]
async fn a_mistake_of_the_set_up_is_in_the_log_and_not_in_the_answer() {
    let (log, _listening) = Log::capture();
    let locks = Locks::new();
    for _ in 0..2 {
        let (head, body) = request(router(&locks), "/mistake").await;
        assert!(head.starts_with("http/1.1 500"), "{head}");
        assert!(!head.contains("retry-after"), "{head}");
        assert_eq!(problem(&body)["reason"], "lock-misconfigured");
        assert!(!body.contains("secret"), "{body}");
    }
    assert_eq!(log.lines("the secret of names is too short").len(), 1);
}
