//! The release, which the response waits for: within a bound, and whatever it says.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::routing;
use http::{Method, StatusCode};
use lock_core::backend::{Attempt, Backend, Grant, Lease, LockRequest};
use lock_core::{LockError, LockProvider};
use lock_tower::{HoldUntil, LockLayer};
use tokio::time::Instant;

use crate::support::{Log, PROCESS, TEMPLATE, URI, post, send, text};

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
        std::future::ready(Ok(1))
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
