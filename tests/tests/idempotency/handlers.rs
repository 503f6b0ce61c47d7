//! What handlers see of the locks around them, and answers and set-ups that are odd.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use lock_core::LockProvider;
use lock_core::memory::MemoryBackend;
use lock_idempotency::{HeldLock, IdempotencyKey, IdempotencyLayer, MemoryStore};
use lock_tests::Log;
use lock_tower::LockLayer;
use tower::{Layer, ServiceExt};

use crate::store_in::is_replay;

fn locks() -> LockProvider {
    LockProvider::new(MemoryBackend::new())
}

fn layer() -> IdempotencyLayer {
    IdempotencyLayer::new(locks(), MemoryStore::new(), |_| "all").unwrap()
}

async fn send(app: &Router, method: &str, key: Option<&str>) -> Response {
    let mut request = Request::builder().method(method).uri("/payments/7");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Body::empty()).unwrap();
    app.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response) -> String {
    let bytes = to_bytes(response.into_body(), 64 * 1024).await.unwrap();
    String::from_utf8(bytes.into()).unwrap()
}

async fn which(held: HeldLock) -> String {
    held.name().as_str().to_owned()
}

async fn of_key(key: IdempotencyKey) -> String {
    key.held().name().as_str().to_owned()
}

#[tokio::test]
async fn a_handler_sees_the_lock_of_its_resource_not_of_the_key() {
    let resource = LockLayer::new(locks(), "payment:pay:<id>").unwrap();
    let outside = post(which)
        .route_layer(layer())
        .route_layer(resource.clone());
    let inside = post(which).route_layer(resource).route_layer(layer());
    for route in [outside, inside] {
        let app = Router::new().route("/payments/{id}", route);
        assert_eq!(
            text(send(&app, "POST", Some("a")).await).await,
            "payment:pay:7"
        );
        assert_eq!(text(send(&app, "POST", None).await).await, "payment:pay:7");
    }
    // Without a lock of its own it has none.
    let app = Router::new().route("/payments/{id}", post(which).route_layer(layer()));
    for key in [Some("a"), None] {
        let refused = send(&app, "POST", key).await;
        assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    // That of the key is there for what asks for it.
    let app = Router::new().route("/payments/{id}", post(of_key).route_layer(layer()));
    let name = text(send(&app, "POST", Some("a")).await).await;
    assert!(name.starts_with("idempotency:key:"), "{name}");
}

/// Whatever it looks like: nothing was done.
#[tokio::test]
async fn a_refusal_in_the_words_of_the_service_is_not_stored() {
    let locks = locks();
    let resource = LockLayer::new(locks.clone(), "payment:pay:<id>").unwrap();
    let resource = resource.wait(Duration::ZERO).on_rejection(|_| {
        let mut busy = axum::http::Response::new(Bytes::from_static(b"busy"));
        *busy.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
        busy
    });
    let route = post(async || StatusCode::CREATED).route_layer(resource);
    let app = Router::new().route("/payments/{id}", route.route_layer(layer()));
    let held = locks
        .acquire("payment:pay:7", Duration::ZERO)
        .await
        .unwrap();
    let refused = send(&app, "POST", Some("a")).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    held.release().await.unwrap();
    let answer = send(&app, "POST", Some("a")).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert!(!is_replay(&answer));
}

#[tokio::test]
async fn a_layer_twice_around_a_handler_says_so() {
    let log = Log::of_process();
    let layer = layer();
    let route = post(async || StatusCode::CREATED).route_layer(layer.clone());
    let app = Router::new().route("/payments/{id}", route.route_layer(layer));
    for _ in 0..2 {
        let refused = send(&app, "POST", Some("a")).await;
        assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(log.count("two layers of idempotency keys"), 1);
    assert_eq!(send(&app, "POST", None).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_lifetime_of_nothing_is_refused_and_not_taken_for_a_layer() {
    let log = Log::of_process();
    for lifetime in [Duration::ZERO, Duration::from_micros(999)] {
        let route = post(async || StatusCode::CREATED).route_layer(layer().lifetime(lifetime));
        let app = Router::new().route("/payments/{id}", route);
        let refused = send(&app, "POST", Some("a")).await;
        assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(log.count("`lifetime` of idempotency keys"), 1);
}

#[tokio::test]
async fn an_empty_scope_is_no_caller() {
    let layer = IdempotencyLayer::new(locks(), MemoryStore::new(), |parts| {
        let user = parts.headers.get("x-user")?;
        Some(user.to_str().ok()?.to_owned())
    });
    let route = post(async || StatusCode::CREATED).route_layer(layer.unwrap());
    let app = Router::new().route("/payments/{id}", route);
    for (user, status) in [("", 400), ("ann", 201)] {
        let request = Request::post("/payments/7")
            .header("idempotency-key", "a")
            .header("x-user", user);
        let request = request.body(Body::empty()).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), status, "{user:?}");
        if status == 400 {
            let text = text(answer).await;
            assert!(text.contains("idempotency-scope-missing"), "{text}");
        }
    }
}

/// A call of gRPC that fails has its status in headers, and no body.
#[tokio::test]
async fn an_answer_of_grpc_is_not_stored_without_its_status() {
    let app = |kind: &'static str| {
        let answer = move || async move {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            headers.insert("grpc-status", HeaderValue::from_static("5"));
            headers
        };
        Router::new().route("/payments/{id}", post(answer).route_layer(layer()))
    };
    for (kind, is_stored) in [
        ("application/grpc", false),
        ("Application/gRPC+proto", false),
        ("Text/Event-Stream", false),
        ("application/grpc-web", true),
    ] {
        let app = app(kind);
        send(&app, "POST", Some("a")).await;
        let again = send(&app, "POST", Some("a")).await;
        assert_eq!(is_replay(&again), is_stored, "{kind}");
        assert_eq!(again.headers().contains_key("grpc-status"), !is_stored);
    }
}

#[tokio::test]
async fn a_replay_has_the_headers_without_which_it_means_little() {
    let made = async || ([("content-location", "/payments/7/receipt")], "paid");
    // Around the whole router: the layer of a route does not see what the router adds.
    let app = layer().layer(Router::new().route("/payments/{id}", post(made)));
    let app = Router::new().fallback_service(app);
    for (method, status, name, value) in [
        ("POST", 200, "content-location", "/payments/7/receipt"),
        ("PUT", 405, "allow", "POST"),
    ] {
        let first = send(&app, method, Some(method)).await;
        assert_eq!(
            (first.status().as_u16(), is_replay(&first)),
            (status, false)
        );
        let again = send(&app, method, Some(method)).await;
        assert_eq!((again.status().as_u16(), is_replay(&again)), (status, true));
        assert_eq!(again.headers()[name], value);
    }
}
