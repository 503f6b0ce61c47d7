//! What the layer costs a request in time: the same route without it, with a layer that does
//! nothing, and with a lock that is free. `cargo bench -p lock-tower`

use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::{MethodRouter, get};
use divan::Bencher;
use http::{Method, Request};
use lock_core::memory::MemoryBackend;
use lock_core::{LockPolicy, LockProvider};
use lock_tower::{LockLayer, RouteLocks};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceExt};

const URI: &str = "/orders/0190d1ab-7f6c-7cc4-b1f2-6a1d3f5e9b07/process";
const PATH: &str = "/orders/{id}/process";
const TEMPLATE: &str = "order:process:<id>";
const METHODS: [&str; 2] = ["GET", "POST"];

fn main() {
    divan::main();
}

#[derive(Clone)]
struct Nothing;

#[derive(Clone)]
struct Same<S>(S);

impl<S> Layer<S> for Nothing {
    type Service = Same<S>;

    fn layer(&self, inner: S) -> Same<S> {
        Same(inner)
    }
}

impl<S: Service<R>, R> Service<R> for Same<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.0.call(request)
    }
}

async fn handler(Path(id): Path<String>) -> String {
    id
}

fn route() -> MethodRouter {
    get(handler).post(handler)
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn locks() -> LockProvider {
    LockProvider::new(MemoryBackend::new())
}

/// One request after the other, as `axum::serve` hands them to the router.
fn requests(bencher: Bencher<'_, '_>, method: &str, router: Router) {
    let runtime = runtime();
    let router: Router = router.with_state(());
    let method: Method = method.parse().expect("a method");
    bencher
        .with_inputs(|| {
            let request = Request::builder().method(method.clone()).uri(URI);
            (
                router.clone(),
                request.body(Body::empty()).expect("a request"),
            )
        })
        .bench_local_values(|(router, request)| {
            runtime
                .block_on(router.oneshot(request))
                .expect("a response")
        });
}

#[divan::bench(args = METHODS)]
fn a_without_layer(bencher: Bencher<'_, '_>, method: &str) {
    requests(bencher, method, Router::new().route(PATH, route()));
}

#[divan::bench(args = METHODS)]
fn b_no_op_layer(bencher: Bencher<'_, '_>, method: &str) {
    requests(
        bencher,
        method,
        Router::new().route(PATH, route().route_layer(Nothing)),
    );
}

#[divan::bench(args = METHODS)]
fn c_lock_layer(bencher: Bencher<'_, '_>, method: &str) {
    let layer = LockLayer::new(locks(), TEMPLATE).expect("a template");
    requests(
        bencher,
        method,
        Router::new().route(PATH, route().route_layer(layer)),
    );
}

#[divan::bench(args = METHODS)]
fn d_route_locks(bencher: Bencher<'_, '_>, method: &str) {
    let table =
        [Method::GET, Method::POST]
            .into_iter()
            .fold(RouteLocks::new(locks()), |table, method| {
                table
                    .route(method, PATH, TEMPLATE, LockPolicy::user_request())
                    .expect("an entry")
            });
    requests(
        bencher,
        method,
        Router::new().route(PATH, route()).route_layer(table),
    );
}
