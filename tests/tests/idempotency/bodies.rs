//! Bodies that are binary, large, streamed or broken off.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Answer, CHUNK, KEY, PATIENCE, Service, layer};

/// Sends this as it is, and reads the answer to its end, or as far as it comes.
async fn raw(service: &Service, parts: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(service.address).await.unwrap();
    for part in parts {
        // A server that has answered may have closed.
        if stream.write_all(part).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn head(length: &str) -> String {
    format!(
        "POST /payments HTTP/1.1\r\nhost: shop\r\nconnection: close\r\nx-user: ann\r\n\
         idempotency-key: {KEY}\r\n{length}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_binary_body_is_replayed_byte_for_byte() {
    let service = Service::start(layer()).await;
    let bytes: Vec<u8> = (0..=255).cycle().take(60_000).collect();
    for is_replay in [false, true, true] {
        let answer = Answer::of(service.with_key(KEY).body(bytes.clone())).await;
        assert_eq!(
            (answer.is_replay(), &answer.body[..]),
            (is_replay, &bytes[..])
        );
    }
    let mut other = bytes.clone();
    other[59_999] ^= 1;
    assert_eq!(
        Answer::of(service.with_key(KEY).body(other)).await.status,
        422
    );
    assert_eq!(service.runs(), 1);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413_and_nothing_runs() {
    let service = Service::start(layer().request_limit(1_000)).await;
    assert_eq!(
        Answer::of(service.with_key("fits").body(vec![7; 1_000]))
            .await
            .status,
        201
    );
    let large = Answer::of(service.with_key(KEY).body(vec![7; 1_001])).await;
    assert_eq!((large.status, &*large.reason()), (413, "request-body"));
    // One that says what it is going to send is refused before it does.
    let answer = raw(&service, &[head("content-length: 900000000").as_bytes()]).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(service.runs(), 1);
}

#[tokio::test]
async fn a_streamed_body_counts_as_it_comes() {
    let service = Service::start(layer().request_limit(1_000)).await;
    let chunked = head("transfer-encoding: chunked");
    let small: &[&[u8]] = &[
        chunked.as_bytes(),
        b"3\r\n500\r\n",
        b"6\r\n cents\r\n",
        b"0\r\n\r\n",
    ];
    let first = raw(&service, small).await;
    assert!(first.starts_with("HTTP/1.1 201"), "{first}");
    // The same payload in one piece.
    assert!(Answer::of(service.payment()).await.is_replay());
    let piece = [b"1f4\r\n".as_slice(), &[b'x'; 500], b"\r\n"].concat();
    let large = raw(
        &service,
        &[chunked.as_bytes(), &piece, &piece, &piece, b"0\r\n\r\n"],
    )
    .await;
    assert!(large.starts_with("HTTP/1.1 413"), "{large}");
    assert_eq!(service.runs(), 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_runs_nothing() {
    let service = Service::start(layer()).await;
    {
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        stream
            .write_all(head("content-length: 100").as_bytes())
            .await
            .unwrap();
        stream.write_all(b"500 ce").await.unwrap();
    }
    let malformed = [head("transfer-encoding: chunked").as_bytes(), b"zz\r\n"].concat();
    let answer = raw(&service, &[&malformed]).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(service.runs(), 0);
    assert_eq!(Answer::of(service.payment()).await.status, 201);
}

#[tokio::test]
async fn a_response_beyond_the_cap_is_sent_whole_and_runs_again() {
    let service = Service::start(layer().response_limit(1_000)).await;
    for (key, size, is_streamed, is_kept) in [
        ("fits", 1_000, false, true),
        ("large", 1_001, false, false),
        ("stream", 1_000, true, true),
        ("large stream", 3_000, true, false),
    ] {
        let bytes: Vec<u8> = (0..=255).cycle().take(size).collect();
        for is_first in [true, false] {
            let mut request = service.with_key(&format!("\"{key}\"")).body(bytes.clone());
            if is_streamed {
                request = request.header("x-stream", "1");
            }
            let answer = Answer::of(request).await;
            assert_eq!(
                (answer.status, &answer.body[..]),
                (201, &bytes[..]),
                "{key}"
            );
            assert_eq!(answer.is_replay(), is_kept && !is_first, "{key}");
        }
    }
}

/// What is made is sent: neither the record nor its cap holds up a response that will not be stored.
#[tokio::test]
async fn a_stream_is_sent_while_it_is_made_and_runs_again() {
    let service = Service::start(layer()).await;
    // Fifty megabytes; and events, which are fewer than the cap.
    for (key, chunks, kind) in [
        ("huge", 1_600, "text/plain"),
        ("events", 2, "text/event-stream"),
    ] {
        for _ in 0..2 {
            let request = service.with_key(key).header("x-chunks", chunks.to_string());
            let mut response = request.header("x-type", kind).send().await.unwrap();
            assert!(!response.headers().contains_key("idempotent-replayed"));
            let mut size = 0;
            while size < chunks / 2 * CHUNK {
                size += response.chunk().await.unwrap().expect("half of it").len();
            }
            // The work is not done, and its key is in use.
            let meanwhile = Answer::of(service.with_key(key)).await;
            assert_eq!(
                (meanwhile.status, &*meanwhile.reason()),
                (409, "idempotency-key-in-use")
            );
            service.shop.go.add_permits(1);
            while let Some(chunk) = response.chunk().await.unwrap() {
                size += chunk.len();
            }
            assert_eq!(size, chunks * CHUNK, "{key}");
        }
    }
    assert_eq!(service.runs(), 4);
}
