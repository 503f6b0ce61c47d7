//! The release, which the response waits for: within a bound, and whatever it says.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode, Version};
use http_body_util::{BodyExt, Channel};
use lock_core::backend::{Attempt, Backend, Grant, Lease, LockRequest};
use lock_core::{LockError, LockProvider};
use lock_tower::{HeldLock, HoldUntil, LockLayer, LockRejection};
use tokio::time::Instant;
use tower::ServiceExt;

use crate::support::{Log, PROCESS, TEMPLATE, URI, json, post, request, send, text};

/// A backend behind a network: it takes its time to release, and can fail.
#[derive(Clone)]
struct Remote {
    takes: Duration,
    fails: bool,
    released: Arc<Mutex<Option<Instant>>>,
}

struct RemoteGrant {
    remote: Remote,
    lease: Lease,
}

impl Remote {
    fn new(takes: Duration, fails: bool) -> Self {
        let released = Arc::default();
        Self {
            takes,
            fails,
            released,
        }
    }

    fn released(&self) -> Option<Instant> {
        *self.released.lock().unwrap()
    }
}

impl Backend for Remote {
    type Grant = RemoteGrant;
    const KIND: &'static str = "remote";

    async fn try_acquire(&self, _: &LockRequest) -> Result<Attempt<RemoteGrant>, LockError> {
        tokio::time::sleep(self.takes).await;
        let (remote, lease) = (self.clone(), Lease::unbounded());
        Ok(Attempt::Granted(RemoteGrant { remote, lease }))
    }

    fn changed(&self, _: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }

    async fn health(&self) -> Result<(), LockError> {
        Ok(())
    }
}

impl Grant for RemoteGrant {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    fn release(self) -> impl Future<Output = Result<(), LockError>> + Send + 'static {
        // As the contract has it: once begun, it goes on when it is dropped.
        let task = tokio::spawn(async move {
            tokio::time::sleep(self.remote.takes).await;
            *self.remote.released.lock().unwrap() = Some(Instant::now());
            let answer = (!self.remote.fails).then_some(());
            answer.ok_or_else(|| LockError::unavailable("cut off"))
        });
        async move { task.await.unwrap() }
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        let answer = (!self.remote.fails).then_some(1);
        std::future::ready(answer.ok_or_else(|| LockError::unavailable("cut off")))
    }
}

fn router(remote: &Remote) -> Router {
    let provider = LockProvider::builder(remote.clone())
        .response_timeout(Duration::from_secs(30))
        .build();
    let layer = LockLayer::new(provider, TEMPLATE).unwrap();
    Router::new()
        .route(PROCESS, routing::any(async || "done").layer(layer.clone()))
        .route(
            "/slowly/{id}",
            routing::any(async || "done").layer(layer.hold_until(HoldUntil::BodyEnd)),
        )
}

#[tokio::test(start_paused = true)]
async fn the_response_waits_for_the_release() {
    let remote = Remote::new(Duration::from_millis(300), false);
    let started = Instant::now();
    let response = post(&router(&remote), URI).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(remote.released(), Some(Instant::now()));
    assert_eq!(started.elapsed().as_millis() / 100, 6);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_body_waits_for_the_release() {
    let remote = Remote::new(Duration::from_millis(300), false);
    let response = post(&router(&remote), "/slowly/7").await;
    assert_eq!(remote.released(), None);
    assert_eq!(text(response).await, "done");
    assert_eq!(remote.released(), Some(Instant::now()));
}

/// A body whose length the client knows, piece by piece.
async fn of_known_length() -> Response {
    let (mut pieces, body) = Channel::<Bytes>::new(1);
    tokio::spawn(async move {
        for piece in ["do", "ne"] {
            pieces
                .send_data(Bytes::from_static(piece.as_bytes()))
                .await
                .unwrap();
        }
        // Its end is not known yet.
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    let response = Response::builder().header(CONTENT_LENGTH, 4);
    response.body(Body::new(body)).unwrap()
}

/// A client of HTTP/1 has all with the last byte, and its server asks for no more. In HTTP/2 there can be trailers.
#[tokio::test(start_paused = true)]
async fn the_last_byte_of_a_known_length_waits_for_the_release() {
    for (version, waits) in [(Version::HTTP_11, true), (Version::HTTP_2, false)] {
        let remote = Remote::new(Duration::from_millis(300), false);
        let locks = LockProvider::new(remote.clone());
        let layer = LockLayer::new(locks, TEMPLATE).unwrap();
        let layer = layer.hold_until(HoldUntil::BodyEnd);
        let router = Router::new().route(PROCESS, routing::post(of_known_length).layer(layer));
        let mut request = request(Method::POST, URI);
        *request.version_mut() = version;
        let response = router.oneshot(request).await.unwrap();
        let mut body = response.into_body();
        let mut frame = async || body.frame().await.map(|frame| frame.unwrap().into_data());
        assert_eq!(frame().await.unwrap().unwrap(), "do");
        assert_eq!(remote.released(), None);
        assert_eq!(frame().await.unwrap().unwrap(), "ne");
        assert_eq!(remote.released(), waits.then(Instant::now), "{version:?}");
        assert!(frame().await.is_none());
        assert!(remote.released().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_does_not_wait_for_long() {
    let (log, _capturing) = Log::capture();
    let remote = Remote::new(Duration::from_secs(10), false);
    let started = Instant::now();
    assert_eq!(text(post(&router(&remote), URI).await).await, "done");
    assert_eq!(started.elapsed().as_secs(), 11);
    assert_eq!(remote.released(), None);
    assert_eq!(log.lines("was not released").len(), 1);
    // It goes on.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(remote.released().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_does_not_replace_the_answer() {
    let remote = Remote::new(Duration::from_millis(300), true);
    let response = post(&router(&remote), URI).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await, "done");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_a_line_and_not_one_for_each_response() {
    let (log, _capturing) = Log::capture();
    let remote = Remote::new(Duration::from_secs(2), false);
    let router = router(&remote);
    let uris: Vec<_> = (0..50).map(|id| format!("/orders/{id}/process")).collect();
    let responses = uris.iter().map(|uri| post(&router, uri));
    for response in futures_util::future::join_all(responses).await {
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(log.lines("was not released").len(), 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(post(&router, URI).await.status(), StatusCode::OK);
    let lines = log.lines("was not released");
    assert!(lines.len() == 2 && lines[1].contains("50"), "{lines:?}");
}

/// Two handlers that let the errors of their guard go out as the answer.
fn careless(remote: &Remote) -> Router {
    let locks = LockProvider::new(remote.clone());
    let layer = LockLayer::new(locks.clone(), TEMPLATE).unwrap();
    let release = async move || {
        let guard = locks.acquire("report:rebuild:7", Duration::ZERO).await?;
        guard.protect(async {}).await?;
        guard.release().await
    };
    let token = async |held: HeldLock| held.fencing_token().await.map(|token| token.to_string());
    Router::new()
        .route("/release", routing::post(release))
        .route(PROCESS, routing::post(token).layer(layer))
}

#[tokio::test(start_paused = true)]
async fn what_fails_after_the_work_is_no_refusal() {
    let remote = Remote::new(Duration::from_millis(300), true);
    for uri in ["/release", URI] {
        let response = post(&careless(&remote), uri).await;
        assert_eq!(
            response.status(),
            StatusCode::INTERNAL_SERVER_ERROR,
            "{uri}"
        );
        assert!(!response.headers().contains_key("retry-after"), "{uri}");
        let problem = json(response).await;
        assert_eq!(problem["reason"], "lock-outcome-unknown", "{problem:#}");
        assert_eq!(problem["outcome"], "unknown");
        assert!(problem.get("retry_after_ms").is_none(), "{problem:#}");
    }
    let error = LockError::contended().with_outcome_unknown();
    assert!(error.is_contended() && error.is_outcome_unknown());
    let rejection = LockRejection::from(error);
    assert_eq!(rejection.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!((rejection.grpc_code(), rejection.retry_after()), (13, None));
    let grpc = rejection.to_grpc_response();
    assert_eq!(grpc.headers()["grpc-retry-pushback-ms"], "-1");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_during_the_release_does_not_stop_it() {
    let (log, _capturing) = Log::capture();
    for method in [Method::GET, Method::POST] {
        let remote = Remote::new(Duration::from_millis(300), false);
        let router = router(&remote);
        let patience = Duration::from_millis(450);
        let sending = tokio::time::timeout(patience, send(&router, method, URI));
        assert!(sending.await.is_err());
        assert_eq!(remote.released(), None);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(remote.released().is_some());
    }
    // The handler was done before.
    assert_eq!(log.lines("client"), Vec::<String>::new());
}
