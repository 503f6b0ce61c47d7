//! What a request locks.

use std::collections::HashSet;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing;
use http::request::Parts;
use http::{Method, StatusCode};
use lock_core::{LockError, LockName, lock_name};
use lock_tower::{HeldLock, LockLayer, RouteLocks};

use crate::support::{Locks, Log, NAME, PROCESS, TEMPLATE, URI, json, post, request, send, text};

/// Answers with the name of its lock.
async fn name(held: HeldLock) -> String {
    held.name().to_string()
}

fn router(path: &str, layer: LockLayer) -> Router {
    Router::new().route(path, routing::any(name).layer(layer))
}

async fn with_header(router: &Router, value: &str) -> axum::response::Response {
    let mut request = request(Method::POST, URI);
    request
        .headers_mut()
        .insert("x-tenant", value.parse().unwrap());
    tower::ServiceExt::oneshot(router.clone(), request)
        .await
        .unwrap()
}

fn tenant(parts: &Parts) -> Option<String> {
    parts
        .headers
        .get("x-tenant")?
        .to_str()
        .ok()
        .map(str::to_owned)
}

#[tokio::test]
async fn route_parameters_are_percent_decoded_and_escaped() {
    let locks = Locks::new();
    let router = router(PROCESS, locks.layer(TEMPLATE));
    for (uri, expected) in [
        ("/orders/7/process", "order:process:7"),
        ("/orders/%37/process", "order:process:7"),
        ("/orders/a%2Fb/process", "order:process:a%2Fb"),
        ("/orders/a:b/process", "order:process:a%3Ab"),
        ("/orders/caf%C3%A9/process", "order:process:caf%C3%A9"),
        ("/orders/Ab.c-d_e@f+g/process", "order:process:Ab.c-d_e@f+g"),
    ] {
        let response = post(&router, uri).await;
        assert_eq!(response.status(), StatusCode::OK, "{uri}");
        assert_eq!(text(response).await, expected, "{uri}");
    }
}

#[tokio::test]
async fn one_value_of_a_typed_parameter_is_one_lock() {
    async fn order(held: HeldLock, Path(id): Path<u64>) -> String {
        format!("{id} {}", held.name())
    }
    let locks = Locks::new();
    let layer = locks.layer(TEMPLATE).param_as::<u64>("id");
    let route = Router::new().route(PROCESS, routing::any(order).layer(layer));
    let table = RouteLocks::new(locks.provider.clone())
        .param_as::<u64>("id")
        .any(PROCESS, TEMPLATE, Duration::ZERO)
        .unwrap()
        .any("/reports/{name}", "report:rebuild:<name>", Duration::ZERO)
        .unwrap();
    let table = Router::new()
        .route(PROCESS, routing::any(order))
        .route("/reports/{name}", routing::any(name))
        .route_layer(table);
    for router in [&route, &table] {
        for spelling in ["7", "07", "+7", "%37", "0000000000000000000000007"] {
            let response = post(router, &format!("/orders/{spelling}/process")).await;
            assert_eq!(text(response).await, format!("7 {NAME}"), "{spelling}");
        }
        let held = locks.take(NAME).await;
        let response = post(router, "/orders/07/process").await;
        assert_eq!(response.status(), StatusCode::CONFLICT);
        drop(held);
        for none in ["seven", "-7", "18446744073709551616", "7.0", "%207"] {
            let response = post(router, &format!("/orders/{none}/process")).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{none}");
            assert_eq!(json(response).await["reason"], "lock-name-invalid");
        }
    }
    let other = post(&table, "/reports/007").await;
    assert_eq!(text(other).await, "report:rebuild:007");
}

#[tokio::test]
async fn a_typed_parameter_is_one_of_the_route_and_of_the_template() {
    let (_log, _capturing) = Log::capture();
    let locks = Locks::new();
    for layer in [
        locks
            .layer("order:process:<order>")
            .param_as::<u64>("order"),
        locks.layer(TEMPLATE).param_as::<u64>("order"),
    ] {
        let response = post(&router(PROCESS, layer), URI).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    let table = RouteLocks::new(locks.provider.clone()).param_as::<u64>("order");
    let refused = table.any(PROCESS, "order:process:<order>", Duration::ZERO);
    assert!(refused.unwrap_err().is_misconfigured());
    // The later of two for one parameter counts.
    let read = locks
        .layer(TEMPLATE)
        .param_as::<u64>("id")
        .param("id", |_| "x");
    assert_eq!(
        text(post(&router(PROCESS, read), URI).await).await,
        "order:process:x"
    );
    let typed = locks
        .layer(TEMPLATE)
        .param("id", |_| "x")
        .param_as::<u64>("id");
    assert_eq!(text(post(&router(PROCESS, typed), URI).await).await, NAME);
}

/// Each as it stands in the path; no two of them are one value.
#[tokio::test]
async fn odd_values_of_a_route_are_locks_of_their_own() {
    const ODD: [&str; 26] = [
        "%00",
        "%01",
        "%0A",
        "%0D%0A",
        "%20",
        "%09",
        "%22",
        "%25",
        "%2525",
        "%252F",
        "%2F",
        "%2F%2F",
        "%3A",
        "a%3Ab",
        "a%253Ab",
        "..%2F..",
        "%7E",
        "~~",
        "*",
        "%7Bid%7D",
        "%3Cid%3E",
        "caf%C3%A9",
        "cafe%CC%81",
        "%F0%9F%94%92",
        "%E2%80%AE",
        "%C2%A0",
    ];
    let locks = Locks::new();
    let router = router(PROCESS, locks.layer(TEMPLATE));
    let mut names = HashSet::new();
    for value in ODD {
        let response = post(&router, &format!("/orders/{value}/process")).await;
        assert_eq!(response.status(), StatusCode::OK, "{value}");
        let name = text(response).await;
        assert!(name.starts_with("order:process:"), "{value}: {name}");
        assert!(name.parse::<LockName>().is_ok(), "{value}: {name}");
        assert!(names.insert(name), "{value} is another one as well");
    }
    // No text.
    for value in ["%FF", "%C3", "%ED%A0%80"] {
        let response = post(&router, &format!("/orders/{value}/process")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{value}");
    }
    assert_eq!(locks.store.held(), 0);
}

#[tokio::test]
async fn two_spellings_of_one_value_are_one_lock() {
    let locks = Locks::new();
    let router = router(PROCESS, locks.layer(TEMPLATE));
    let _held = locks.take(NAME).await;
    assert_eq!(
        post(&router, "/orders/%37/process").await.status(),
        StatusCode::CONFLICT
    );
    assert_eq!(
        post(&router, "/orders/8/process").await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn long_values_and_many_parameters_work() {
    let locks = Locks::new();
    let many = router("/{a}/{b}/{c}/{d}/{e}", locks.layer("order:process:<e>:<a>"));
    assert_eq!(
        text(post(&many, "/1/2/3/4/5").await).await,
        "order:process:5:1"
    );
    let rest = router("/files/{*path}", locks.layer("file:write:<path>"));
    assert_eq!(
        text(post(&rest, "/files/a/b").await).await,
        "file:write:a%2Fb"
    );

    let one = router(PROCESS, locks.layer(TEMPLATE));
    let long = text(post(&one, &format!("/orders/{}/process", "x".repeat(5_000))).await).await;
    assert!(
        long.starts_with("order:process:xxx") && long.len() <= 100,
        "{long}"
    );
}

#[tokio::test]
async fn hashed_parameters_do_not_show() {
    let locks = Locks::new();
    let router = router(
        "/users/{email}/login",
        locks.layer("user:login:<email:hashed>"),
    );
    let name = text(post(&router, "/users/alice@example.org/login").await).await;
    assert!(
        name.starts_with("user:login:") && !name.contains("alice"),
        "{name}"
    );
}

#[tokio::test]
async fn nested_routers_give_the_parameters_of_the_whole_path() {
    let locks = Locks::new();
    let inner = router(PROCESS, locks.layer("order:process:<tenant>:<id>"));
    for outer in [
        Router::new().nest("/tenants/{tenant}", inner.clone()),
        Router::new().nest_service("/tenants/{tenant}", inner.clone()),
    ] {
        let response = post(&outer, "/tenants/acme/orders/7/process").await;
        assert_eq!(text(response).await, "order:process:acme:7");
    }
    let outside = inner.layer(locks.layer("order:view:<id>"));
    assert_eq!(
        text(
            post(
                &Router::new().nest("/tenants/{tenant}", outside),
                "/tenants/a/orders/7/process"
            )
            .await
        )
        .await,
        "order:process:a:7"
    );
}

#[tokio::test]
async fn a_param_comes_from_the_head_of_the_request() {
    let locks = Locks::new();
    let layer = locks
        .layer("order:process:<tenant>:<id>")
        .param("tenant", tenant);
    let router = router(PROCESS, layer);
    assert_eq!(
        text(with_header(&router, "acme").await).await,
        "order:process:acme:7"
    );
    assert_eq!(
        text(with_header(&router, "a:b").await).await,
        "order:process:a%3Ab:7"
    );
    // No value, no name.
    assert_eq!(post(&router, URI).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        with_header(&router, "").await.status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_param_is_preferred_to_one_of_the_route() {
    let locks = Locks::new();
    let layer = locks
        .layer(TEMPLATE)
        .param("id", |_| 1)
        .param("id", |_| 2_u64);
    assert_eq!(
        text(post(&router(PROCESS, layer), URI).await).await,
        "order:process:2"
    );
}

#[tokio::test]
async fn a_param_may_fail() {
    let locks = Locks::new();
    let layer = || locks.layer(TEMPLATE);
    let parse = |parts: &Parts| parts.uri.query().unwrap_or_default().parse::<u32>();
    let parsed = router(PROCESS, layer().param("id", parse));
    assert_eq!(
        text(post(&parsed, "/orders/7/process?12").await).await,
        "order:process:12"
    );
    assert_eq!(post(&parsed, URI).await.status(), StatusCode::BAD_REQUEST);

    // The kind of a lock error is kept.
    let down = |_: &Parts| Err::<&'static str, _>(LockError::unavailable("the directory is down"));
    let down = router(PROCESS, layer().param("id", down));
    assert_eq!(
        post(&down, URI).await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn a_key_makes_the_whole_name() {
    let locks = Locks::new();
    let layer = || locks.layer(TEMPLATE);
    let id = |parts: &Parts| {
        parts
            .uri
            .path()
            .split('/')
            .nth(2)
            .unwrap_or_default()
            .to_owned()
    };
    for layer in [
        layer().key(move |parts| LockName::new("order", "process", id(parts))),
        layer().key(move |parts| format!("order:process:{}", id(parts))),
        layer().key(move |parts| lock_name!("order:process:<id>", id = id(parts))),
        layer().key(|_| "order:process:7"),
    ] {
        assert_eq!(
            text(post(&router(PROCESS, layer.clone()), URI).await).await,
            NAME
        );
        // No route is needed.
        let fallback =
            Router::new().fallback_service(tower::Layer::layer(&layer, routing::any(name)));
        assert_eq!(text(post(&fallback, URI).await).await, NAME);
    }
    let bad = router(PROCESS, layer().key(|_| "no name"));
    assert_eq!(post(&bad, URI).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_template_without_parameters_needs_no_route() {
    let locks = Locks::new();
    let layer = locks.layer("report:rebuild:all");
    let router = Router::new().fallback(name).layer(layer);
    assert_eq!(
        text(post(&router, "/anything").await).await,
        "report:rebuild:all"
    );
    let _held = locks.take("report:rebuild:all").await;
    assert_eq!(
        post(&router, "/anything").await.status(),
        StatusCode::CONFLICT
    );
}

#[tokio::test]
async fn a_request_for_a_method_that_is_not_there_is_405_and_leaves_no_lock() {
    let locks = Locks::new();
    let route = || routing::post(name);
    let inside = Router::new().route(PROCESS, route().route_layer(locks.layer(TEMPLATE)));
    let around = Router::new()
        .route(PROCESS, route())
        .route_layer(locks.layer(TEMPLATE));
    for router in [&inside, &around] {
        assert_eq!(
            send(router, Method::GET, URI).await.status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
        assert_eq!(locks.store.held(), 0);
        assert_eq!(
            post(router, "/elsewhere").await.status(),
            StatusCode::NOT_FOUND
        );
        assert_eq!(text(post(router, URI).await).await, NAME);
    }
    // The layer inside the method is not asked, the one around the route is.
    let _held = locks.take(NAME).await;
    assert_eq!(
        send(&inside, Method::GET, URI).await.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(
        send(&around, Method::GET, URI).await.status(),
        StatusCode::CONFLICT
    );
}

#[test]
fn a_template_that_is_none_is_an_error_at_once() {
    let locks = Locks::new();
    for template in [
        "order",
        "order:process:<id",
        "order:process:<>",
        "Order:process:<id>",
    ] {
        let error = LockLayer::new(locks.provider.clone(), template).unwrap_err();
        assert!(error.is_invalid_name(), "{template}: {error}");
    }
    let template: lock_core::LockTemplate = TEMPLATE.parse().unwrap();
    assert!(LockLayer::new(locks.provider, template).is_ok());
}
