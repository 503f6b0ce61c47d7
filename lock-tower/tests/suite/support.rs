//! What the tests share: locks, requests, work that can be watched, and the log.

use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::handler::Handler;
use axum::response::Response;
use http::{Method, Request};
use http_body_util::BodyExt;
use lock_core::memory::MemoryBackend;
use lock_core::{LockGuard, LockProvider};
use lock_tower::LockLayer;
use serde_json::Value;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

pub(crate) const PROCESS: &str = "/orders/{id}/process";
pub(crate) const TEMPLATE: &str = "order:process:<id>";
/// What a lock of `order:process:7` is acquired by.
pub(crate) const URI: &str = "/orders/7/process";
pub(crate) const NAME: &str = "order:process:7";

pub(crate) struct Locks {
    pub(crate) store: MemoryBackend,
    pub(crate) provider: LockProvider,
}

impl Locks {
    pub(crate) fn new() -> Self {
        let store = MemoryBackend::new();
        let provider = LockProvider::new(store.clone());
        Self { store, provider }
    }

    /// A layer that does not wait.
    pub(crate) fn layer(&self, template: &str) -> LockLayer {
        LockLayer::new(self.provider.clone(), template)
            .unwrap()
            .wait(Duration::ZERO)
    }

    pub(crate) async fn take(&self, name: &str) -> LockGuard {
        self.provider
            .lock(name)
            .unwrap()
            .acquire(Duration::ZERO)
            .await
            .unwrap()
    }

    /// Whether another caller could have the lock.
    pub(crate) async fn is_free(&self, name: &str) -> bool {
        let lock = self.provider.lock(name).unwrap();
        lock.try_acquire(Duration::ZERO).await.unwrap().is_some()
    }

    pub(crate) fn revoke(&self, name: &str) {
        assert!(
            self.store.revoke(&name.parse().unwrap()),
            "{name} was not held"
        );
    }

    /// Waits until nothing is held.
    pub(crate) async fn all_free(&self) {
        eventually("nothing is held", || self.store.held() == 0).await;
    }
}

/// Waits for what other tasks do.
pub(crate) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("not in 10 s: {what}");
}

pub(crate) fn request(method: Method, uri: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(uri)
        .body(Body::empty())
        .unwrap()
}

pub(crate) async fn send(router: &Router, method: Method, uri: &str) -> Response {
    router.clone().oneshot(request(method, uri)).await.unwrap()
}

pub(crate) async fn post(router: &Router, uri: &str) -> Response {
    send(router, Method::POST, uri).await
}

pub(crate) async fn text(response: Response) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) async fn json(response: Response) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

/// Work that says when it begins and ends, and ends when the test says so.
#[derive(Clone)]
pub(crate) struct Work(Arc<Watched>);

struct Watched {
    begun: AtomicUsize,
    ended: AtomicUsize,
    dropped: AtomicUsize,
    go_on: Semaphore,
}

impl Work {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Watched {
            begun: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
            go_on: Semaphore::new(0),
        }))
    }

    /// The work; when it is dropped before its end, that is counted.
    pub(crate) async fn run(&self) {
        struct Unfinished<'a>(&'a Watched, bool);
        impl Drop for Unfinished<'_> {
            fn drop(&mut self) {
                let counter = if self.1 {
                    &self.0.ended
                } else {
                    &self.0.dropped
                };
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
        let mut work = Unfinished(&self.0, false);
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        self.0.go_on.acquire().await.unwrap().forget();
        work.1 = true;
    }

    pub(crate) fn let_end(&self) {
        self.0.go_on.add_permits(1);
    }

    pub(crate) fn begun(&self) -> usize {
        self.0.begun.load(Ordering::SeqCst)
    }

    pub(crate) fn ended(&self) -> usize {
        self.0.ended.load(Ordering::SeqCst)
    }

    pub(crate) fn dropped(&self) -> usize {
        self.0.dropped.load(Ordering::SeqCst)
    }

    pub(crate) async fn has_begun(&self, times: usize) {
        eventually("the work has begun", || self.begun() >= times).await;
    }

    /// A handler that does this work.
    pub(crate) fn handler(&self) -> impl Handler<((),), ()> {
        let work = self.clone();
        async move || {
            work.run().await;
            "done"
        }
    }
}

/// A section of code that one may be in at a time.
#[derive(Clone, Default)]
pub(crate) struct Section(Arc<Entered>);

#[derive(Default)]
struct Entered {
    inside: AtomicBool,
    overlaps: AtomicUsize,
    entered: AtomicUsize,
}

impl Section {
    pub(crate) async fn pass(&self, work: Duration) {
        struct Leave<'a>(&'a Entered);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.inside.store(false, Ordering::SeqCst);
            }
        }
        if self.0.inside.swap(true, Ordering::SeqCst) {
            self.0.overlaps.fetch_add(1, Ordering::SeqCst);
        }
        let leave = Leave(&self.0);
        self.0.entered.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(work).await;
        drop(leave);
    }

    pub(crate) fn overlaps(&self) -> usize {
        self.0.overlaps.load(Ordering::SeqCst)
    }

    pub(crate) fn entered(&self) -> usize {
        self.0.entered.load(Ordering::SeqCst)
    }
}

/// The log of this thread, a line for each event, with the spans that it is in.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn capture() -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::registry().with(log.clone());
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn lines(&self, containing: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines
            .iter()
            .filter(|line| line.contains(containing))
            .cloned()
            .collect()
    }
}

impl<S> tracing_subscriber::Layer<S> for Log
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut line = Line(format!("{}", event.metadata().level()));
        for span in context.event_scope(event).into_iter().flatten() {
            write!(line.0, " in {}", span.name()).unwrap();
        }
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}
