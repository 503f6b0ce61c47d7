//! A real server and client of gRPC, with the lock between them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use http::uri::PathAndQuery;
use lock_tower::{HeldLock, LockLayer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::service_fn;

use crate::support::{Locks, NAME, Work};

const UNARY: &str = "/orders.Orders/Process";
const STREAMING: &str = "/orders.Orders/Watch";

/// Messages that are text.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// The service: each of its answers names the lock that it runs under.
#[derive(Clone)]
struct Orders {
    work: Work,
    /// Where the streams get their messages from.
    feeds: mpsc::UnboundedSender<mpsc::UnboundedSender<String>>,
}

impl UnaryService<String> for Orders {
    type Response = String;
    type Future = BoxFuture<'static, Result<Response<String>, Status>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let work = self.work.clone();
        async move {
            work.run().await;
            let held: &HeldLock = request.extensions().get().unwrap();
            match request.get_ref().as_str() {
                "fail" => Err(Status::data_loss("of its own")),
                text => Ok(Response::new(format!("{text} {}", held.name()))),
            }
        }
        .boxed()
    }
}

impl ServerStreamingService<String> for Orders {
    type Response = String;
    type ResponseStream = BoxStream<'static, Result<String, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<String>) -> Self::Future {
        let (feed, mut messages) = mpsc::unbounded_channel();
        self.feeds.send(feed).unwrap();
        let messages = stream::poll_fn(move |cx| messages.poll_recv(cx)).map(Ok);
        async move { Ok(Response::new(messages.boxed())) }.boxed()
    }
}

struct Served {
    locks: Locks,
    work: Work,
    feeds: mpsc::UnboundedReceiver<mpsc::UnboundedSender<String>>,
    client: tonic::client::Grpc<Channel>,
}

impl Served {
    async fn new(configure: impl FnOnce(LockLayer) -> LockLayer) -> Self {
        let locks = Locks::new();
        let layer = locks.layer("order:process:<id>").param("id", |parts| {
            let id = parts.headers.get("order-id")?;
            id.to_str().ok().map(str::to_owned)
        });
        let work = Work::new();
        let (sender, feeds) = mpsc::unbounded_channel();
        let address = serve(
            Orders {
                work: work.clone(),
                feeds: sender,
            },
            configure(layer.grpc()),
        )
        .await;
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        let client = tonic::client::Grpc::new(channel.connect().await.unwrap());
        Self {
            locks,
            work,
            feeds,
            client,
        }
    }

    async fn unary(&self, text: &str) -> Result<String, Status> {
        self.unary_for(text, Some("7")).await
    }

    async fn unary_for(&self, text: &str, id: Option<&str>) -> Result<String, Status> {
        let mut client = self.client.clone();
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static(UNARY);
        let answer = client.unary(request(text, id), path, Text).await;
        answer.map(Response::into_inner)
    }

    async fn streaming(&self) -> Result<Streaming<String>, Status> {
        let mut client = self.client.clone();
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static(STREAMING);
        let answer = client.server_streaming(request("", Some("7")), path, Text);
        answer.await.map(Response::into_inner)
    }
}

fn request(text: &str, id: Option<&str>) -> Request<String> {
    let mut request = Request::new(text.to_owned());
    if let Some(id) = id {
        let metadata = request.metadata_mut();
        metadata.insert("order-id", id.parse().unwrap());
    }
    request
}

async fn serve(orders: Orders, layer: LockLayer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = service_fn(move |request: http::Request<Body>| {
        let orders = orders.clone();
        async move {
            let mut grpc = Grpc::new(Text);
            Ok::<_, Infallible>(match request.uri().path() {
                UNARY => grpc.unary(orders, request).await,
                _ => grpc.server_streaming(orders, request).await,
            })
        }
    });
    let server = Server::builder().layer(layer);
    tokio::spawn(server.serve_with_incoming(service, TcpIncoming::from(listener)));
    address
}

fn metadata<'a>(status: &'a Status, name: &str) -> &'a str {
    status.metadata().get(name).unwrap().to_str().unwrap()
}

#[tokio::test]
async fn contention_is_aborted_and_says_when_to_try_again() {
    let served = Served::new(|layer| layer).await;
    let held = served.locks.take(NAME).await;

    let status = served.unary("a").await.unwrap_err();

    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    assert_eq!(
        status.message(),
        "Another request is working on this; try again later."
    );
    let pushback: u64 = metadata(&status, "grpc-retry-pushback-ms").parse().unwrap();
    assert!((1_000..3_000).contains(&pushback), "{pushback}");
    assert_eq!(
        metadata(&status, "distributed-lock-reason"),
        "lock-contended"
    );
    assert_eq!(served.work.begun(), 0);
    drop(held);
    served.work.let_end();
    assert_eq!(served.unary("a").await.unwrap(), format!("a {NAME}"));
}

#[tokio::test]
async fn each_failure_has_its_code() {
    let served = Served::new(|layer| layer).await;
    let status = served.unary_for("a", None).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    served.locks.store.set_available(false);
    let status = served.unary("a").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        metadata(&status, "grpc-retry-pushback-ms")
            .parse::<u64>()
            .is_ok()
    );
    served.locks.store.set_available(true);

    served.locks.provider.shutdown(Duration::ZERO).await;
    let status = served.unary("a").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(metadata(&status, "distributed-lock-reason"), "lock-closed");

    let mistaken = Served::new(|layer| layer.param("tenant", |_| "acme")).await;
    let status = mistaken.unary("a").await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(!status.message().contains("tenant"));
}

#[tokio::test]
async fn a_loss_while_the_method_runs_is_internal_and_not_tried_again() {
    let served = Served::new(|layer| layer).await;
    let (status, ()) = tokio::join!(served.unary("a"), async {
        served.work.has_begun(1).await;
        served.locks.revoke(NAME);
    });
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(metadata(&status, "distributed-lock-reason"), "lock-lost");
    assert_eq!(metadata(&status, "grpc-retry-pushback-ms"), "-1");
    assert_eq!(served.work.dropped(), 1);
}

#[tokio::test]
async fn a_status_of_the_method_is_its_own() {
    let served = Served::new(|layer| layer).await;
    served.work.let_end();
    let status = served.unary("fail").await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::DataLoss, "of its own")
    );
    served.locks.all_free().await;
}

#[tokio::test]
async fn a_client_that_has_seen_the_status_does_not_meet_its_own_lock() {
    let served = Served::new(|layer| layer).await;
    for n in 0..200 {
        served.work.let_end();
        let answer = served.unary("a").await;
        assert!(answer.is_ok(), "{n}: {answer:?}");
    }
}

#[tokio::test]
async fn a_stream_holds_the_lock_to_its_trailers() {
    let mut served = Served::new(|layer| layer).await;
    let mut stream = served.streaming().await.unwrap();
    let feed = served.feeds.recv().await.unwrap();
    feed.send("one".to_owned()).unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap(), "one");
    assert!(!served.locks.is_free(NAME).await);
    drop(feed);
    assert_eq!(stream.message().await.unwrap(), None);
    assert!(served.locks.is_free(NAME).await);
}

#[tokio::test]
async fn a_stream_whose_lock_is_lost_ends_with_a_status() {
    let mut served = Served::new(|layer| layer).await;
    let mut stream = served.streaming().await.unwrap();
    let feed = served.feeds.recv().await.unwrap();
    feed.send("one".to_owned()).unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap(), "one");
    served.locks.revoke(NAME);
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    assert_eq!(metadata(&status, "distributed-lock-reason"), "lock-lost");
    assert!(feed.send("two".to_owned()).is_err(), "it goes on");
}

#[tokio::test]
async fn a_client_that_cancels_its_stream_releases() {
    let mut served = Served::new(|layer| layer).await;
    let stream = served.streaming().await.unwrap();
    let _feed = served.feeds.recv().await.unwrap();
    assert!(!served.locks.is_free(NAME).await);
    drop(stream);
    served.locks.all_free().await;
}

#[tokio::test]
async fn a_client_that_cancels_while_it_waits_gives_up_its_place() {
    let served = Served::new(|layer| layer.wait(Duration::from_secs(60))).await;
    let held = served.locks.take(NAME).await;
    let patience = Duration::from_millis(100);
    for _ in 0..20 {
        assert!(
            tokio::time::timeout(patience / 20, served.unary("a"))
                .await
                .is_err()
        );
    }
    tokio::time::sleep(patience).await;
    drop(held);
    served.work.let_end();
    assert!(served.unary("last").await.is_ok());
    assert_eq!(served.work.begun(), 1);
}

#[tokio::test]
async fn other_requests_are_answered_as_without_it() {
    let locks = Locks::new();
    let layer = locks
        .layer("order:process:<id>")
        .param("id", |_| "7")
        .grpc();
    let service = service_fn(async |_: http::Request<&'static str>| {
        Ok::<_, Infallible>(http::Response::new(axum::body::Body::empty()))
    });
    let _held = locks.take(NAME).await;
    for (content_type, status) in [
        ("application/grpc", 200),
        ("application/grpc+proto", 200),
        ("application/grpc;a=b", 200),
        ("application/grpc-web", 409),
        ("application/json", 409),
    ] {
        let request = http::Request::post("/").header("content-type", content_type);
        let service = tower::Layer::layer(&layer, service);
        let response = tower::ServiceExt::oneshot(service, request.body("any").unwrap());
        assert_eq!(response.await.unwrap().status(), status, "{content_type}");
    }
}
