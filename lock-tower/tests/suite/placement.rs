//! What layers around the lock and inside it do to it, as the documentation tells.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use http::{HeaderValue, Method, StatusCode};
use lock_core::LockPolicy;
use lock_tower::{HeldLock, LockLayer, RouteLocks};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::cors::CorsLayer;

use crate::support::{Locks, NAME, PROCESS, TEMPLATE, URI, Work, eventually, post, request, send};

const OTHER: &str = "/orders/8/process";
const NOW: LockPolicy = LockPolicy::background_job();

/// How many handlers of clients that have left run beside each other at a limit of one.
async fn at_work_at_a_limit_of_one(is_outside: bool) -> usize {
    let locks = Locks::new();
    let work = Work::new();
    let limit = GlobalConcurrencyLimitLayer::new(1);
    let route = routing::post(work.handler());
    let route = if is_outside {
        route.route_layer(locks.layer(TEMPLATE)).route_layer(limit)
    } else {
        route.route_layer(limit).route_layer(locks.layer(TEMPLATE))
    };
    let router = Router::new().route(PROCESS, route);
    tokio::select! {
        _ = post(&router, URI) => panic!("the handler has ended"),
        () = work.has_begun(1) => {}
    }
    let second = tokio::spawn(async move { post(&router, OTHER).await.status() });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let at_work = work.begun();
    work.let_end();
    work.let_end();
    assert_eq!(second.await.unwrap(), StatusCode::OK);
    locks.all_free().await;
    at_work
}

#[tokio::test]
async fn a_concurrency_limit_outside_does_not_count_handlers_whose_client_has_left() {
    assert_eq!(at_work_at_a_limit_of_one(true).await, 2);
    assert_eq!(at_work_at_a_limit_of_one(false).await, 1);
}

#[tokio::test]
async fn a_concurrency_limit_and_load_shed_outside_count_those_who_wait_for_a_lock() {
    async fn handler(_: Request) -> Result<Response, Infallible> {
        Ok("done".into_response())
    }
    let locks = Locks::new();
    let layer = locks
        .layer(TEMPLATE)
        .wait(std::time::Duration::from_secs(60));
    let layer = layer.param("id", |parts| {
        parts.uri.path().split('/').nth(2).map(str::to_owned)
    });
    let held = locks.take(NAME).await;
    let outside = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(1))
        .layer(layer)
        .service(service_fn(handler));
    let mut first = outside.clone();
    let waiting = first
        .ready()
        .await
        .unwrap()
        .call(request(Method::POST, URI));
    let waiting = tokio::spawn(waiting);
    tokio::task::yield_now().await;
    let shed = outside.oneshot(request(Method::POST, OTHER)).await;
    assert!(
        shed.unwrap_err()
            .is::<tower::load_shed::error::Overloaded>()
    );
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::OK);
}

fn cors() -> CorsLayer {
    let origin: HeaderValue = "https://shop.example".parse().unwrap();
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::POST])
}

fn from_browser(method: Method) -> Request {
    let mut request = request(method, URI);
    let headers = request.headers_mut();
    headers.insert("origin", HeaderValue::from_static("https://shop.example"));
    headers.insert(
        "access-control-request-method",
        HeaderValue::from_static("POST"),
    );
    request
}

async fn browser(router: &Router, method: Method) -> (StatusCode, bool) {
    let response = router.clone().oneshot(from_browser(method)).await.unwrap();
    let has_cors = response
        .headers()
        .contains_key("access-control-allow-origin");
    (response.status(), has_cors)
}

#[tokio::test]
async fn cors_belongs_outside() {
    let locks = Locks::new();
    let _held = locks.take(NAME).await;
    let handler = || routing::any(async || "done");
    let layer = |lock: LockLayer| {
        Router::new().route(
            PROCESS,
            handler().layer::<_, Infallible>(cors()).layer(lock),
        )
    };

    let outside = handler().layer(locks.layer(TEMPLATE));
    let outside = Router::new().route(PROCESS, outside).layer(cors());
    assert_eq!(
        browser(&outside, Method::OPTIONS).await,
        (StatusCode::OK, true)
    );
    assert_eq!(
        browser(&outside, Method::POST).await,
        (StatusCode::CONFLICT, true)
    );

    let inside = layer(locks.layer(TEMPLATE));
    assert_eq!(
        browser(&inside, Method::OPTIONS).await,
        (StatusCode::CONFLICT, false)
    );
    assert_eq!(
        browser(&inside, Method::POST).await,
        (StatusCode::CONFLICT, false)
    );

    let for_post = layer(locks.layer(TEMPLATE).method(Method::POST));
    assert_eq!(
        browser(&for_post, Method::OPTIONS).await,
        (StatusCode::OK, true)
    );
    assert_eq!(
        browser(&for_post, Method::POST).await,
        (StatusCode::CONFLICT, false)
    );

    let table = RouteLocks::new(locks.provider.clone());
    let table = table.route(Method::POST, PROCESS, TEMPLATE, NOW).unwrap();
    let entry = Router::new()
        .route(PROCESS, handler().layer(cors()))
        .route_layer(table);
    assert_eq!(
        browser(&entry, Method::OPTIONS).await,
        (StatusCode::OK, true)
    );
    assert_eq!(
        browser(&entry, Method::POST).await,
        (StatusCode::CONFLICT, false)
    );
}

#[tokio::test]
async fn a_layer_for_some_methods_lets_the_others_pass() {
    let locks = Locks::new();
    let lock = locks
        .layer(TEMPLATE)
        .method(Method::GET)
        .method(Method::PUT);
    let router = Router::new().route(PROCESS, routing::any(async || "done").layer(lock));
    let _held = locks.take(NAME).await;
    for (method, status) in [
        (Method::GET, StatusCode::CONFLICT),
        (Method::HEAD, StatusCode::CONFLICT),
        (Method::PUT, StatusCode::CONFLICT),
        (Method::POST, StatusCode::OK),
        (Method::OPTIONS, StatusCode::OK),
    ] {
        assert_eq!(
            send(&router, method.clone(), URI).await.status(),
            status,
            "{method}"
        );
    }
}

#[tokio::test]
async fn routes_that_are_added_after_the_layer_are_not_locked() {
    async fn is_locked(held: Option<HeldLock>) -> String {
        held.is_some().to_string()
    }
    let locks = Locks::new();
    let router = Router::new()
        .route(PROCESS, routing::post(is_locked))
        .route_layer(locks.layer(TEMPLATE))
        .route("/late/{id}", routing::post(is_locked));
    assert_eq!(crate::support::text(post(&router, URI).await).await, "true");
    assert_eq!(
        crate::support::text(post(&router, "/late/7").await).await,
        "false"
    );
}

#[tokio::test]
async fn an_entry_for_one_method_of_a_handler_for_any_leaves_the_others_unlocked() {
    async fn is_locked(held: Option<HeldLock>) -> String {
        held.is_some().to_string()
    }
    async fn wants_lock(_: HeldLock) {}
    let locks = Locks::new();
    let table = || {
        let table = RouteLocks::new(locks.provider.clone());
        table.route(Method::POST, PROCESS, TEMPLATE, NOW).unwrap()
    };
    let router = Router::new()
        .route(PROCESS, routing::any(is_locked))
        .route_layer(table());
    let locked = async |router: &Router, method| {
        crate::support::text(send(router, method, URI).await).await == "true"
    };
    assert!(locked(&router, Method::POST).await);
    assert!(!locked(&router, Method::PUT).await);

    let strict = Router::new()
        .route(PROCESS, routing::any(wants_lock))
        .route_layer(table());
    assert_eq!(
        send(&strict, Method::PUT, URI).await.status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );

    let any = RouteLocks::new(locks.provider.clone());
    let any = any.any(PROCESS, TEMPLATE, NOW).unwrap();
    let any = any.unlocked(Method::OPTIONS, PROCESS).unwrap();
    assert!(
        any.clone()
            .any("/orders/{order}/process", "order:process:<order>", NOW)
            .is_err()
    );
    assert!(
        any.clone()
            .any("/carts/{id}", "cart:pay:<cart>", NOW)
            .is_err()
    );
    let router = Router::new()
        .route(PROCESS, routing::any(is_locked))
        .route_layer(any);
    for method in [
        Method::GET,
        Method::POST,
        Method::PUT,
        "PURGE".parse().unwrap(),
    ] {
        assert!(locked(&router, method.clone()).await, "{method}");
    }
    assert!(!locked(&router, Method::OPTIONS).await);
}

#[tokio::test]
async fn authentication_belongs_outside() {
    async fn refuse(_: Request, _: Next) -> StatusCode {
        StatusCode::UNAUTHORIZED
    }
    let locks = Locks::new();
    let _held = locks.take(NAME).await;
    let route = || routing::post(async || "done");
    let outside = route()
        .route_layer(locks.layer(TEMPLATE))
        .route_layer(from_fn(refuse));
    let outside = Router::new().route(PROCESS, outside);
    assert_eq!(post(&outside, URI).await.status(), StatusCode::UNAUTHORIZED);
    let inside = route()
        .route_layer(from_fn(refuse))
        .route_layer(locks.layer(TEMPLATE));
    let inside = Router::new().route(PROCESS, inside);
    assert_eq!(post(&inside, URI).await.status(), StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_service_inside_that_was_ready_waits_with_the_request_unless_it_is_called_by_itself() {
    let locks = Locks::new();
    let layer = || {
        let layer = locks
            .layer(TEMPLATE)
            .wait(std::time::Duration::from_secs(60));
        layer.param("id", |parts| {
            parts.uri.path().split('/').nth(2).map(str::to_owned)
        })
    };
    let held = locks.take(NAME).await;
    let work = Work::new();
    let handler = {
        let work = work.clone();
        service_fn(move |_: http::Request<Body>| {
            let work = work.clone();
            async move {
                work.run().await;
                Ok::<_, Infallible>("done".into_response())
            }
        })
    };
    let limited = GlobalConcurrencyLimitLayer::new(1).layer(handler);
    let lock = layer().layer(limited);
    let mut first = lock.clone();
    let waiting = first
        .ready()
        .await
        .unwrap()
        .call(request(Method::POST, URI));
    let waiting = tokio::spawn(waiting);
    let other = tokio::spawn(lock.oneshot(request(Method::POST, OTHER)));
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(work.begun(), 0, "the one that waits has the only permit");
    drop(held);
    work.let_end();
    work.let_end();
    waiting.await.unwrap().unwrap();
    other.await.unwrap().unwrap();
    eventually("both have run", || work.ended() == 2).await;
}
