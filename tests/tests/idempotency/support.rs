//! A service that takes payments, and what its clients see.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use lock_core::LockProvider;
use lock_core::memory::MemoryBackend;
use lock_idempotency::{IdempotencyLayer, IdempotencyStore, MemoryStore};
use reqwest::{Client, Method, RequestBuilder};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Longer than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";

/// The size of a piece of a large response.
pub(crate) const CHUNK: usize = 32 * 1024;

/// What the handlers of a service did, and when they may go on.
pub(crate) struct Shop {
    runs: AtomicUsize,
    /// A permit for each handler that waits.
    pub(crate) begun: Semaphore,
    /// A permit for each that may go on.
    pub(crate) go: Semaphore,
}

/// A service on a socket, and a client of it.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) shop: Arc<Shop>,
    pub(crate) address: SocketAddr,
    client: Client,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.unwrap(),
        }
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.headers
            .get("idempotent-replayed")
            .is_some_and(|value| value == "true")
    }

    /// The member `reason` of a problem.
    pub(crate) fn reason(&self) -> String {
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{self:?}"
        );
        assert_eq!(self.headers["cache-control"], "no-store", "{self:?}");
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        problem["reason"].as_str().unwrap().to_owned()
    }
}

/// Answers with the number of the run, in `Location` and in a cookie, and with the payload. Headers of the
/// request say with which status, and whether to wait.
async fn pay(State(shop): State<Arc<Shop>>, headers: HeaderMap, body: Bytes) -> Response {
    let run = shop.runs.fetch_add(1, Ordering::SeqCst) + 1;
    if headers.contains_key("x-wait") {
        shop.begun.add_permits(1);
        shop.go.acquire().await.unwrap().forget();
    }
    let status = headers
        .get("x-status")
        .map_or(201, |value| value.to_str().unwrap().parse().unwrap());
    let place = [
        ("location", format!("/payments/{run}")),
        ("set-cookie", format!("run={run}")),
    ];
    let status = StatusCode::from_u16(status).unwrap();
    if let Some(chunks) = headers.get("x-chunks") {
        // In the middle it waits.
        let chunks: usize = chunks.to_str().unwrap().parse().unwrap();
        let pieces = stream::iter(0..chunks).then(move |number| {
            let shop = Arc::clone(&shop);
            async move {
                if number == chunks / 2 {
                    shop.go.acquire().await.unwrap().forget();
                }
                Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; CHUNK]))
            }
        });
        let kind = headers.get("x-type").cloned();
        let kind = kind.map(|kind| [("content-type", kind)]);
        return (status, place, kind, Body::from_stream(pieces)).into_response();
    }
    if headers.contains_key("x-stream") {
        // Of no known size.
        let pieces = body
            .into_iter()
            .map(|byte| Ok::<_, std::io::Error>(Bytes::from(vec![byte])));
        let pieces = Body::from_stream(stream::iter(pieces));
        return (status, place, pieces).into_response();
    }
    (status, place, body).into_response()
}

/// Who calls, as an authentication would have found.
fn user(parts: &axum::http::request::Parts) -> Option<String> {
    Some(parts.headers.get("x-user")?.to_str().ok()?.to_owned())
}

/// A layer over locks and a store in memory.
pub(crate) fn layer() -> IdempotencyLayer {
    layer_over(LockProvider::new(MemoryBackend::new()), MemoryStore::new())
}

pub(crate) fn layer_over(locks: LockProvider, store: impl IdempotencyStore) -> IdempotencyLayer {
    IdempotencyLayer::new(locks, store, user).unwrap()
}

impl Service {
    pub(crate) async fn start(layer: IdempotencyLayer) -> Self {
        let shop = Arc::new(Shop {
            runs: AtomicUsize::new(0),
            begun: Semaphore::new(0),
            go: Semaphore::new(0),
        });
        let app = Router::new()
            .route("/payments", any(pay).layer(layer.clone()))
            .route("/payments/{id}/refund", post(pay).route_layer(layer))
            .with_state(Arc::clone(&shop));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self {
            shop,
            address,
            client,
        }
    }

    pub(crate) fn runs(&self) -> usize {
        self.shop.runs.load(Ordering::SeqCst)
    }

    /// A request of ann, without a key.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.client.request(method, url).header("x-user", "ann")
    }

    /// A payment of this user.
    pub(crate) fn of(&self, user: &str, key: &str) -> RequestBuilder {
        let url = format!("http://{}/payments", self.address);
        let request = self.client.post(url).header("x-user", user);
        request.header("idempotency-key", key)
    }

    /// A payment of ann under [`KEY`].
    pub(crate) fn payment(&self) -> RequestBuilder {
        self.with_key(KEY).body("500 cents")
    }

    pub(crate) fn with_key(&self, key: &str) -> RequestBuilder {
        self.of("ann", key)
    }

    /// Waits for a handler that waits.
    pub(crate) async fn begun(&self) {
        let begun = tokio::time::timeout(PATIENCE, self.shop.begun.acquire()).await;
        begun.expect("a handler runs").unwrap().forget();
    }
}
