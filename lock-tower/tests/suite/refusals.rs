//! Clients of HTTP/1.1 that are refused while they still send.

use std::time::{Duration, Instant};

use axum::{Router, routing};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Locks, NAME, PROCESS, TEMPLATE, URI};

/// A client of a route that is locked by another.
async fn refused(locks: &Locks) -> TcpStream {
    let route = routing::post(async || "done").route_layer(locks.layer(TEMPLATE));
    let router = Router::new().route(PROCESS, route);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    TcpStream::connect(address).await.unwrap()
}

fn upload(length: usize) -> Vec<u8> {
    let head = format!("POST {URI} HTTP/1.1\r\nhost: here\r\ncontent-length: {length}\r\n\r\n");
    let mut request = head.into_bytes();
    request.resize(request.len() + length, b'x');
    request
}

async fn answer(reader: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let read = reader.read_buf(&mut answer).await;
        let shown = String::from_utf8_lossy(&answer);
        assert!(*read.as_ref().unwrap_or(&0) > 0, "{read:?} {shown}");
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_looks_for_the_answer_when_all_is_sent_sees_it_and_goes_on() {
    let locks = Locks::new();
    let _held = locks.take(NAME).await;
    let mut client = refused(&locks).await;
    for _ in 0..5 {
        client.write_all(&upload(1_000_000)).await.unwrap();
        let answer = answer(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_sends_too_much_sees_the_answer_while_it_sends() {
    let locks = Locks::new();
    let _held = locks.take(NAME).await;
    let (mut reader, mut writer) = refused(&locks).await.into_split();
    let sending = tokio::spawn(async move { writer.write_all(&upload(50_000_000)).await });
    let answer = answer(&mut reader).await;
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    // It need not go on, and cannot.
    assert!(sending.await.unwrap().is_err());
}

#[tokio::test]
async fn one_that_sends_nothing_more_is_waited_for_only_so_long() {
    let locks = Locks::new();
    let _held = locks.take(NAME).await;
    let mut client = refused(&locks).await;
    let mut request = upload(1_000);
    request.truncate(request.len() - 1);
    client.write_all(&request).await.unwrap();
    let started = Instant::now();
    answer(&mut client).await;
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "the answer waits"
    );
    // The end, or a reset.
    let _ = client.read(&mut [0; 10]).await;
    let lingered = started.elapsed().as_secs();
    assert!((4..8).contains(&lingered), "{lingered}");
}

#[tokio::test]
async fn one_of_http_2_sees_the_answer_while_it_sends_and_its_connection_stays() {
    let locks = Locks::new();
    let _held = locks.take(NAME).await;
    let stream = TokioIo::new(refused(&locks).await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
    tokio::spawn(connection);
    for _ in 0..5 {
        let uri = format!("http://here{URI}");
        let request = http::Request::post(uri).version(http::Version::HTTP_2);
        let body = Full::new(Bytes::from(vec![b'x'; 5_000_000]));
        let response = client
            .send_request(request.body(body).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), 409);
        assert!(response.headers().get("connection").is_none());
        response.into_body().collect().await.unwrap();
    }
}
