//! Clients that leave, and connections that are upgraded, over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::Request;
use axum::response::IntoResponse;
use axum::{Router, routing};
use bytes::Bytes;
use http::{Method, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lock_tower::{HeldLock, LockLayer, LockRejection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Locks, NAME, PROCESS, Section, TEMPLATE, URI, Work, eventually};

/// Serves the work under the lock, on an address of its own.
async fn serve(work: &Work, layer: LockLayer) -> SocketAddr {
    serve_router(Router::new().route(PROCESS, routing::any(work.handler()).layer(layer))).await
}

async fn serve_router(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// Sends a request and does not wait for the answer.
async fn begin(address: SocketAddr, method: &Method) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {URI} HTTP/1.1\r\nhost: here\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_get_stops_with_its_client_and_its_lock_is_free() {
    let locks = Locks::new();
    let work = Work::new();
    let address = serve(&work, locks.layer(TEMPLATE)).await;
    for (times, method) in [Method::GET, Method::HEAD].iter().enumerate() {
        let client = begin(address, method).await;
        work.has_begun(times + 1).await;
        drop(client);
        eventually("the handler is dropped", || work.dropped() == times + 1).await;
        locks.all_free().await;
    }
    assert_eq!(work.ended(), 0);
}

#[tokio::test]
async fn other_methods_run_to_their_end_locked() {
    let locks = Locks::new();
    let work = Work::new();
    let address = serve(&work, locks.layer(TEMPLATE)).await;
    let methods = [
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    for (times, method) in methods.iter().enumerate() {
        let client = begin(address, method).await;
        work.has_begun(times + 1).await;
        drop(client);
        // Long enough for the server to have dropped the response.
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(!locks.is_free(NAME).await, "{method}");
        work.let_end();
        locks.all_free().await;
        assert_eq!((work.ended(), work.dropped()), (times + 1, 0), "{method}");
    }
}

#[tokio::test]
async fn drop_on_disconnect_stops_every_method() {
    let locks = Locks::new();
    let work = Work::new();
    let address = serve(&work, locks.layer(TEMPLATE).drop_on_disconnect()).await;
    let client = begin(address, &Method::POST).await;
    work.has_begun(1).await;
    drop(client);
    eventually("the handler is dropped", || work.dropped() == 1).await;
    locks.all_free().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_gives_up_its_place() {
    let locks = Locks::new();
    let work = Work::new();
    let address = serve(&work, locks.layer(TEMPLATE).wait(Duration::from_secs(60))).await;
    let held = locks.take(NAME).await;
    let leaves = begin(address, &Method::POST).await;
    let mut stays = begin(address, &Method::POST).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    drop(leaves);
    tokio::time::sleep(Duration::from_millis(30)).await;
    drop(held);

    work.has_begun(1).await;
    work.let_end();
    let mut answer = [0; 15];
    stays.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    assert_eq!((work.begun(), work.ended()), (1, 1));
    locks.all_free().await;
}

#[tokio::test]
async fn a_client_that_saw_its_answer_meets_no_lock_of_its_own() {
    let locks = Locks::new();
    let work = Work::new();
    let address = serve(&work, locks.layer(TEMPLATE)).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    for _ in 0..200 {
        work.let_end();
        let head = format!("POST {URI} HTTP/1.1\r\nhost: here\r\ncontent-length: 0\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"done") {
            assert!(
                client.read_buf(&mut answer).await.unwrap() > 0,
                "{answer:?}"
            );
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    }
    assert_eq!(work.ended(), 200);
}

#[tokio::test]
async fn a_stream_of_http_2_that_is_reset_is_a_client_that_leaves() {
    let locks = Locks::new();
    let work = Work::new();
    let address = serve(&work, locks.layer(TEMPLATE)).await;
    let client = http_2(address).await;
    let send = |method: Method| client.clone().send_request(of_http_2(address, method));

    let get = tokio::spawn(send(Method::GET));
    work.has_begun(1).await;
    get.abort();
    eventually("the handler is dropped", || work.dropped() == 1).await;
    locks.all_free().await;

    let post = tokio::spawn(send(Method::POST));
    work.has_begun(2).await;
    post.abort();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(!locks.is_free(NAME).await);
    work.let_end();
    locks.all_free().await;
    assert_eq!((work.ended(), work.dropped()), (1, 1));

    // The connection is as good as before.
    work.let_end();
    let response = send(Method::POST).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "done"
    );
}

/// A connection of HTTP/2, over which requests are sent.
async fn http_2(address: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (client, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

fn of_http_2(address: SocketAddr, method: Method) -> http::Request<Empty<Bytes>> {
    let request = http::Request::builder().method(method);
    let request = request.version(Version::HTTP_2);
    let request = request.uri(format!("http://{address}{URI}"));
    request.body(Empty::new()).unwrap()
}

/// In line, on their way to the lock, under it, and when they are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_resets_let_no_two_in_and_leak_nothing() {
    const CONNECTIONS: usize = 30;
    const RESETS: usize = 180;
    let locks = Locks::new();
    let section = Section::default();
    let inside = section.clone();
    let handler = async move || inside.pass(Duration::from_micros(200)).await;
    let layer = locks.layer(TEMPLATE).wait(Duration::from_secs(60));
    let route = routing::any(handler).layer(layer);
    let address = serve_router(Router::new().route(PROCESS, route)).await;
    let mut clients = JoinSet::new();
    for number in 0..CONNECTIONS {
        clients.spawn(async move {
            let mut client = http_2(address).await;
            let mut sent = 0;
            while sent < RESETS {
                // One on which there were too many resets is closed by the server.
                if client.ready().await.is_err() {
                    client = http_2(address).await;
                    continue;
                }
                let method = [Method::GET, Method::POST][sent % 2].clone();
                let patience = (sent * 97 + number * 31) % 5_000;
                let patience = Duration::from_micros(patience as u64);
                let answer = client.send_request(of_http_2(address, method));
                let _ = timeout(patience, answer).await;
                sent += 1;
            }
        });
    }
    clients.join_all().await;
    locks.all_free().await;
    assert!(section.entered() > 0);
    assert_eq!(section.overlaps(), 0);
    let mut client = http_2(address).await;
    let response = client.send_request(of_http_2(address, Method::POST));
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_upgraded_connection_is_locked_for_as_long_as_it_keeps_the_guard() {
    async fn upgrade(held: HeldLock, request: Request) -> Result<impl IntoResponse, LockRejection> {
        let guard = held.into_guard()?;
        tokio::spawn(async move {
            let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            let mut line = [0; 5];
            while stream.read_exact(&mut line).await.is_ok() {
                assert!(guard.is_valid());
                stream.write_all(&line).await.unwrap();
            }
            guard.release().await.unwrap();
        });
        let headers = [("connection", "upgrade"), ("upgrade", "echo")];
        Ok((StatusCode::SWITCHING_PROTOCOLS, headers))
    }
    let locks = Locks::new();
    let route = routing::get(upgrade).route_layer(locks.layer(TEMPLATE));
    let address = serve_router(Router::new().route(PROCESS, route)).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    let head =
        format!("GET {URI} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert!(
            client.read_buf(&mut answer).await.unwrap() > 0,
            "{answer:?}"
        );
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{answer:?}");

    for _ in 0..3 {
        client.write_all(b"hello").await.unwrap();
        let mut echo = [0; 5];
        client.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"hello");
        assert!(!locks.is_free(NAME).await);
    }
    drop(client);
    locks.all_free().await;
}
