//! Locked routes behind a real nginx.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::{Router, routing};
use lock_core::memory::MemoryBackend;
use lock_core::{LockGuard, LockProvider};
use lock_tests::servers::Nginx;
use lock_tower::LockLayer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CLIENTS: usize = 20;
const MEGABYTE: usize = 1024 * 1024;

struct Served {
    locks: LockProvider,
    address: SocketAddr,
    /// How often the handler has run.
    runs: Arc<AtomicUsize>,
}

impl Served {
    async fn new(wait: Duration) -> Self {
        let locks = LockProvider::new(MemoryBackend::new());
        let layer = LockLayer::new(locks.clone(), "order:process:<id>").unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let handler = async move |body: Body| {
            counted.fetch_add(1, Ordering::SeqCst);
            let body = axum::body::to_bytes(body, usize::MAX).await;
            body.map_or(0, |body| body.len()).to_string()
        };
        let route = routing::post(handler).route_layer(layer.wait(wait));
        let router = Router::new().route("/orders/{id}", route);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            locks,
            address,
            runs,
        }
    }

    async fn hold(&self) -> LockGuard {
        let lock = self.locks.lock("order:process:7").unwrap();
        lock.acquire(Duration::ZERO).await.unwrap()
    }
}

fn upload(length: usize) -> Vec<u8> {
    let head = format!("POST /orders/7 HTTP/1.1\r\nhost: here\r\ncontent-length: {length}\r\n\r\n");
    let mut request = head.into_bytes();
    request.resize(request.len() + length, b'x');
    request
}

/// Sends and reads at the same time, as browsers do; gives the first line of the answer.
async fn status(address: SocketAddr, request: Vec<u8>) -> io::Result<String> {
    let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
    let sending = tokio::spawn(async move {
        // The server may have answered and closed before it has all.
        let _ = writer.write_all(&request).await;
        writer
    });
    let mut answer = Vec::new();
    while !answer.windows(2).any(|end| end == b"\r\n") {
        if reader.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    sending.abort();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn clients_that_leave_with_a_body_unread_give_up_their_places() {
    let served = Served::new(Duration::from_secs(60)).await;
    let nginx = Nginx::before(served.address).await;
    let held = served.hold().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = TcpStream::connect(nginx.address()).await.unwrap();
        client.write_all(&upload(50_000)).await.unwrap();
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(clients);
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(held);
    // The last in line.
    let answer = status(nginx.address(), upload(50_000)).await.unwrap();
    assert_eq!(answer, "HTTP/1.1 200 OK");
    assert_eq!(served.runs.load(Ordering::SeqCst), 1, "others have stayed");
}

/// What a client sees that is refused while it uploads this much, through each way of nginx to pass
/// a body on.
async fn refused(length: usize) {
    let served = Served::new(Duration::ZERO).await;
    let _held = served.hold().await;
    for directives in [
        &[][..],
        &[("proxy_http_version", "1.1")],
        &[
            ("proxy_request_buffering", "off"),
            ("proxy_http_version", "1.1"),
        ],
    ] {
        let nginx = Nginx::with(served.address, directives).await;
        for n in 0..5 {
            let answer = status(nginx.address(), upload(length)).await.unwrap();
            assert_eq!(answer, "HTTP/1.1 409 Conflict", "{directives:?} {n}");
        }
    }
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_uploads_half_a_megabyte() {
    refused(MEGABYTE / 2).await;
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_uploads_fifty_megabytes() {
    refused(50 * MEGABYTE).await;
}
