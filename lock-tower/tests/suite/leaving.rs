//! Clients of HTTP/1.1 that leave while they wait for a lock, with a body that no handler reads yet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;

use axum::{Router, routing};

use http_body_util::BodyExt;
use lock_tower::LockLayer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower_http::limit::RequestBodyLimitLayer;

use crate::support::{Locks, NAME, PROCESS, TEMPLATE, URI};

const CLIENTS: usize = 20;
const WAIT: Duration = Duration::from_secs(60);

/// Serves a handler that answers with the length of the body, and counts how often it runs.
async fn serve(layer: LockLayer) -> (SocketAddr, Runs) {
    let runs = Runs::default();
    let counted = runs.clone();
    let handler = async move |body: Body| {
        counted.0.fetch_add(1, Ordering::SeqCst);
        let body = body.collect().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(body.to_bytes().len().to_string())
    };
    let route = routing::post(handler).route_layer(layer);
    (listen(Router::new().route(PROCESS, route)).await, runs)
}

async fn listen(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

#[derive(Clone, Default)]
struct Runs(Arc<AtomicUsize>);

impl Runs {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn head(headers: &str) -> Vec<u8> {
    format!("POST {URI} HTTP/1.1\r\nhost: here\r\n{headers}\r\n\r\n").into_bytes()
}

fn sized(length: usize) -> Vec<u8> {
    let mut request = head(&format!("content-length: {length}"));
    request.extend(vec![b'x'; length]);
    request
}

/// The chunks of a body, and its end if it is to have one.
fn chunked(chunks: usize, chunk: usize, end: &str) -> Vec<u8> {
    let mut request = head("transfer-encoding: chunked");
    for _ in 0..chunks {
        request.extend(format!("{chunk:x}\r\n{}\r\n", "x".repeat(chunk)).into_bytes());
    }
    request.extend(end.as_bytes());
    request
}

async fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// The answer, once it has ended in this.
async fn answer(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let read = stream.read_buf(&mut answer).await.unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

/// How many of the clients that leave, each after it has sent this, still are let in.
async fn still_in_line(request: &[u8]) -> usize {
    let locks = Locks::new();
    let (address, runs) = serve(locks.layer(TEMPLATE).wait(WAIT)).await;
    let held = locks.take(NAME).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(send(address, request).await);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(clients);
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(held);
    // The last in line: it comes after all that have stayed.
    let mut last = send(address, &sized(5)).await;
    assert!(
        answer(&mut last, "\r\n\r\n5")
            .await
            .starts_with("HTTP/1.1 200")
    );
    locks.all_free().await;
    runs.count() - 1
}

#[tokio::test]
async fn a_chunked_body() {
    assert_eq!(still_in_line(&chunked(3, 10, "0\r\n\r\n")).await, 0);
}

#[tokio::test]
async fn a_chunked_body_that_has_not_ended() {
    assert_eq!(still_in_line(&chunked(3, 10, "")).await, 0);
}

#[tokio::test]
async fn a_body_of_a_hundred_kilobytes() {
    assert_eq!(still_in_line(&sized(100_000)).await, 0);
}

#[tokio::test]
async fn a_client_that_expects_100() {
    let request = head("content-length: 100000\r\nexpect: 100-continue");
    assert_eq!(still_in_line(&request).await, 0);
}

#[tokio::test]
async fn an_upload_that_is_partial() {
    let mut request = sized(50_000);
    request.truncate(request.len() - 20_000);
    assert_eq!(still_in_line(&request).await, 0);
}

#[tokio::test]
async fn a_head_whose_body_has_not_come() {
    assert_eq!(still_in_line(&head("content-length: 100")).await, 0);
}

/// The answer, the length of the body, to a request that has to wait, and what is sent before it.
async fn waits(
    layer: impl FnOnce(LockLayer) -> LockLayer,
    request: &[u8],
    length: usize,
) -> (String, String) {
    let locks = Locks::new();
    let (address, _runs) = serve(layer(locks.layer(TEMPLATE).wait(WAIT))).await;
    let held = locks.take(NAME).await;
    let (head, body) = request.split_at(request.windows(4).position(is_blank).unwrap() + 4);
    let client = send(address, head).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut early = vec![0; 100];
    let read = client.try_read(&mut early).unwrap_or(0);
    early.truncate(read);
    let (mut reader, mut writer) = client.into_split();
    let body = body.to_vec();
    let sending = tokio::spawn(async move {
        writer.write_all(&body).await.unwrap();
        writer
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(held);
    let answer = answer(&mut reader, &format!("\r\n\r\n{length}")).await;
    sending.await.unwrap();
    (String::from_utf8(early).unwrap(), answer)
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes == b"\r\n\r\n"
}

#[tokio::test]
async fn a_handler_gets_the_whole_body_of_a_request_that_has_waited() {
    for length in [1, 5_000, 100_000, 2_000_000] {
        let (early, answer) = waits(|layer| layer, &sized(length), length).await;
        assert_eq!(early, "");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    for (chunks, chunk) in [(3, 10), (20_000, 1), (30, 50_000)] {
        let request = chunked(chunks, chunk, "0\r\n\r\n");
        let (_, answer) = waits(|layer| layer, &request, chunks * chunk).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_while_it_waits_unless_nothing_is_read_ahead() {
    let mut request = head("content-length: 5000\r\nexpect: 100-continue");
    request.extend(vec![b'x'; 5_000]);
    let (early, _) = waits(|layer| layer, &request, 5_000).await;
    assert_eq!(early, "HTTP/1.1 100 Continue\r\n\r\n");
    let (early, _) = waits(|layer| layer.read_ahead(0), &request, 5_000).await;
    assert_eq!(early, "");
}

#[tokio::test]
async fn a_client_that_expects_100_and_is_refused_without_a_wait_sends_nothing() {
    let locks = Locks::new();
    let (address, _runs) = serve(locks.layer(TEMPLATE)).await;
    let _held = locks.take(NAME).await;
    let request = head("content-length: 5000\r\nexpect: 100-continue");
    let mut client = send(address, &request).await;
    let answer = answer(&mut client, "}").await;
    assert!(answer.starts_with("HTTP/1.1 409 Conflict"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn beyond_what_is_read_ahead_clients_keep_their_places() {
    let locks = Locks::new();
    let (address, runs) = serve(locks.layer(TEMPLATE).wait(WAIT).read_ahead(1_000)).await;
    let held = locks.take(NAME).await;
    for _ in 0..CLIENTS {
        drop(send(address, &sized(100_000)).await);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(held);
    let mut last = send(address, &sized(5)).await;
    answer(&mut last, "\r\n\r\n5").await;
    assert_eq!(runs.count(), CLIENTS + 1);
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_ends_the_wait() {
    let locks = Locks::new();
    let route = routing::post(async || "done").route_layer(locks.layer(TEMPLATE).wait(WAIT));
    let router = Router::new().route(PROCESS, route);
    let address = listen(router.layer(RequestBodyLimitLayer::new(1_000))).await;
    let _held = locks.take(NAME).await;
    let mut client = send(address, &chunked(3, 500, "")).await;
    let answer = answer(&mut client, "}").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("request-body"), "{answer}");
}
