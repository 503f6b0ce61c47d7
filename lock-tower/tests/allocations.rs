//! What the layer costs in allocations, counted around the same route with and without it.
//!
//! One test, since whatever runs beside it would be counted too.

use std::alloc::System;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::post;
use http::{Method, Request, StatusCode};
use lock_core::memory::MemoryBackend;
use lock_core::{LockPolicy, LockProvider};
use lock_tower::{LockLayer, RouteLocks};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::{Layer, Service};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const URI: &str = "/orders/0190d1ab-7f6c-7cc4-b1f2-6a1d3f5e9b07/process";
const PATH: &str = "/orders/{id}/process";
const TEMPLATE: &str = "order:process:<id>";
const ROUNDS: usize = 100;

/// A layer that does nothing.
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
    // A handler that waits is watched for a loss: that belongs to the price.
    tokio::task::yield_now().await;
    id
}

fn route() -> axum::routing::MethodRouter {
    post(handler).get(handler)
}

fn request(method: Method) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(URI)
        .body(Body::empty())
        .unwrap()
}

/// Allocations of one request, on average.
async fn allocations(mut router: Router, method: Method) -> f64 {
    let mut requests: Vec<_> = (0..ROUNDS + 10).map(|_| request(method.clone())).collect();
    let mut region = Region::new(ALLOCATOR);
    for n in (0..requests.len()).rev() {
        if n + 1 == ROUNDS {
            // Whatever is made once is made by now.
            region.reset();
        }
        let response = router.call(requests.pop().unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        drop(response);
    }
    let change = region.change();
    (change.allocations + change.reallocations) as f64 / ROUNDS as f64
}

/// What layers cost over the plain route.
async fn added(layered: Router, plain: Router, method: &Method) -> f64 {
    allocations(layered, method.clone()).await - allocations(plain, method.clone()).await
}

#[test]
fn an_uncontended_request_costs_ten_allocations_at_most() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        // As in a program without debug assertions.
        let locks = LockProvider::builder(MemoryBackend::new())
            .lock_order_watch(false)
            .build();
        let layer = LockLayer::new(locks.clone(), TEMPLATE).unwrap();
        let table = [Method::GET, Method::POST].into_iter().fold(
            RouteLocks::new(locks),
            |table, method| {
                let policy = LockPolicy::user_request();
                table.route(method, PATH, TEMPLATE, policy).unwrap()
            },
        );
        let plain = || Router::new().route(PATH, route());
        let routers = || {
            [
                (
                    "no-op layer",
                    Router::new().route(PATH, route().route_layer(Nothing)),
                ),
                (
                    "LockLayer",
                    Router::new().route(PATH, route().route_layer(layer.clone())),
                ),
                ("RouteLocks", plain().route_layer(table.clone())),
            ]
        };
        for method in [Method::POST, Method::GET] {
            for (what, router) in routers() {
                // With its state a router is as `axum::serve` has it; without, it makes the layered
                // route anew for each request, which costs what is cloned into it.
                let bare = added(router.clone(), plain(), &method).await;
                let router = router.with_state::<()>(());
                let served = added(router, plain().with_state::<()>(()), &method).await;
                println!("{method} {what}: {served} allocations ({bare} without state)");
                assert!(
                    bare.max(served) <= 10.0,
                    "{method} {what}: {served}, {bare} without state"
                );
            }
        }
    });
}
