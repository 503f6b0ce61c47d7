//! `RouteLocks`: many routes, one table.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing;
use http::{Method, Request, StatusCode};
use lock_core::{LockError, LockPolicy};
use lock_tower::{HeldLock, RouteLocks};
use tower::Layer;
use tower::util::MapRequestLayer;

use crate::support::{Locks, Log, NAME, PROCESS, TEMPLATE, URI, post, send, text};

const NOW: LockPolicy = LockPolicy::background_job();

/// Answers with the name of its lock, or that it has none.
async fn name(held: Option<HeldLock>) -> String {
    held.map_or("unlocked".to_owned(), |held| held.name().to_string())
}

fn table(locks: &Locks) -> RouteLocks {
    RouteLocks::new(locks.provider.clone())
        .route(Method::POST, PROCESS, TEMPLATE, NOW)
        .unwrap()
        .route(Method::GET, "/reports/{id}", "report:read:<id>", NOW)
        .unwrap()
}

fn routes() -> Router {
    Router::new()
        .route("/orders/{id}", routing::any(name))
        .route(PROCESS, routing::any(name))
        .route("/reports/{id}", routing::get(name).post(name))
}

async fn name_of(router: &Router, method: Method, uri: &str) -> String {
    let response = send(router, method, uri).await;
    assert_eq!(response.status(), StatusCode::OK, "{uri}");
    text(response).await
}

#[tokio::test]
async fn each_entry_is_for_its_method_and_route() {
    let locks = Locks::new();
    let router = routes().route_layer(table(&locks));
    assert_eq!(name_of(&router, Method::POST, URI).await, NAME);
    assert_eq!(name_of(&router, Method::GET, URI).await, "unlocked");
    assert_eq!(
        name_of(&router, Method::POST, "/orders/7").await,
        "unlocked"
    );
    assert_eq!(
        name_of(&router, Method::GET, "/reports/9").await,
        "report:read:9"
    );
    assert_eq!(
        name_of(&router, Method::POST, "/reports/9").await,
        "unlocked"
    );
    assert_eq!(
        post(&router, "/elsewhere").await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn get_covers_head() {
    let locks = Locks::new();
    let router = routes().route_layer(table(&locks));
    let _held = locks.take("report:read:9").await;
    for method in [Method::GET, Method::HEAD] {
        assert_eq!(
            send(&router, method, "/reports/9").await.status(),
            StatusCode::CONFLICT
        );
    }
    assert_eq!(
        send(&router, Method::HEAD, "/reports/8").await.status(),
        StatusCode::OK
    );
    // And not the other way round.
    let head = RouteLocks::new(locks.provider.clone())
        .route(Method::HEAD, "/reports/{id}", "report:read:<id>", NOW)
        .unwrap();
    let router = routes().route_layer(head);
    assert_eq!(
        send(&router, Method::HEAD, "/reports/9").await.status(),
        StatusCode::CONFLICT
    );
    assert_eq!(
        name_of(&router, Method::GET, "/reports/9").await,
        "unlocked"
    );
}

#[tokio::test(start_paused = true)]
async fn each_entry_has_its_policy() {
    let locks = Locks::new();
    let table = RouteLocks::new(locks.provider.clone())
        .route(Method::POST, PROCESS, TEMPLATE, Duration::from_secs(3))
        .unwrap()
        .route(Method::GET, "/reports/{id}", "report:read:<id>", NOW)
        .unwrap();
    let router = routes().route_layer(table);
    let _held = (locks.take(NAME).await, locks.take("report:read:9").await);
    for (method, uri, wait, reason) in [
        (Method::POST, URI, 3, "lock-wait-timeout"),
        (Method::GET, "/reports/9", 0, "lock-contended"),
    ] {
        let started = tokio::time::Instant::now();
        let response = send(&router, method, uri).await;
        assert_eq!(started.elapsed().as_secs(), wait);
        assert_eq!(crate::support::json(response).await["reason"], reason);
    }
}

#[tokio::test]
async fn paths_are_full_ones_under_nest() {
    let locks = Locks::new();
    let full = RouteLocks::new(locks.provider.clone())
        .route(
            Method::POST,
            "/api/{tenant}/orders/{id}/process",
            "order:process:<tenant>:<id>",
            NOW,
        )
        .unwrap();
    let inside = Router::new().nest("/api/{tenant}", routes().route_layer(full.clone()));
    let outside = Router::new()
        .nest("/api/{tenant}", routes())
        .route_layer(full.clone());
    let service = Router::new().nest_service("/api/{tenant}", routes().route_layer(full));
    for router in [inside, outside, service] {
        assert_eq!(
            name_of(&router, Method::POST, "/api/a/orders/7/process").await,
            "order:process:a:7"
        );
        assert_eq!(
            name_of(&router, Method::GET, "/api/a/orders/7/process").await,
            "unlocked"
        );
    }
}

/// Refused with 500, and once in the log.
async fn is_mistake(router: &Router, uri: &str) -> String {
    let (log, _capturing) = Log::capture();
    for _ in 0..2 {
        assert_eq!(
            post(router, uri).await.status(),
            StatusCode::INTERNAL_SERVER_ERROR,
            "{uri}"
        );
    }
    let mut lines = log.lines("ERROR");
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

#[tokio::test]
async fn a_path_without_its_prefix_is_a_mistake_and_not_a_pass() {
    let locks = Locks::new();
    for router in [
        Router::new().nest("/api", routes().route_layer(table(&locks))),
        Router::new()
            .nest("/api", routes())
            .route_layer(table(&locks)),
        Router::new().nest_service("/api", routes().route_layer(table(&locks))),
    ] {
        let log = is_mistake(&router, "/api/orders/42/process").await;
        assert!(log.contains("`POST /api/orders/{id}/process`"), "{log}");
        assert!(log.contains("`POST /orders/{id}/process`"), "{log}");
        // What the table would not lock is not locked.
        assert_eq!(
            name_of(&router, Method::GET, "/api/orders/7/process").await,
            "unlocked"
        );
        assert_eq!(
            name_of(&router, Method::POST, "/api/orders/7").await,
            "unlocked"
        );
    }
}

#[tokio::test]
async fn other_parameter_names_are_a_mistake() {
    let locks = Locks::new();
    let router = Router::new()
        .route("/orders/{order}/process", routing::post(name))
        .route_layer(table(&locks));
    let log = is_mistake(&router, "/orders/42/process").await;
    assert!(log.contains("/orders/{order}/process"), "{log}");
}

#[tokio::test]
async fn a_wider_route_that_takes_the_request_is_a_mistake() {
    let locks = Locks::new();
    for path in ["/{*all}", "/{a}/{b}/{c}", "/orders/{*rest}"] {
        let router = Router::new()
            .route(path, routing::post(name))
            .route_layer(table(&locks));
        is_mistake(&router, "/orders/42/process").await;
        let other = send(&router, Method::POST, "/orders/42/other").await;
        assert_eq!(text(other).await, "unlocked");
    }
}

#[tokio::test]
async fn where_no_route_has_matched_is_a_mistake() {
    let locks = Locks::new();
    let whole = Router::new().fallback_service(table(&locks).layer(routes()));
    let again = Router::new().fallback_service(table(&locks).layer(routes()));
    let service = Router::new()
        .nest_service("/api", routes())
        .route_layer(table(&locks));
    let inside = table(&locks).layer(routes());
    let inside = Router::new().nest_service("/orders/{id}", inside);
    let rewritten = MapRequestLayer::new(|mut request: Request<Body>| {
        let path = request
            .uri()
            .path()
            .trim_start_matches("/v1")
            .replace("handle", "process");
        *request.uri_mut() = path.parse().unwrap();
        request
    });
    let rewritten = rewritten.layer(table(&locks).layer(routes()));
    let rewritten = Router::new().fallback_service(rewritten);
    for (router, uri, other) in [
        (&rewritten, "/v1/orders/42/handle", "/v1/orders/42"),
        (&whole, "/orders/42/process", "/orders/42"),
        (&service, "/api/orders/42/process", "/api/orders/42"),
        (&again, "/orders/42/proc%65ss", "/orders/42"),
        // The router inside sees `/process` alone.
        (&inside, "/orders/42/process", "/orders/42/nothing"),
    ] {
        let log = is_mistake(router, uri).await;
        assert!(log.contains("no route has matched"), "{log}");
        let other = post(router, other).await;
        assert_ne!(other.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}

#[tokio::test]
async fn a_literal_route_is_another_one_and_others_can_be_declared() {
    let locks = Locks::new();
    let routes = || {
        routes()
            .route("/orders/bulk/process", routing::post(name))
            .route("/admin/orders/{id}/process", routing::post(name))
    };
    let router = routes().route_layer(table(&locks));
    assert_eq!(
        name_of(&router, Method::POST, "/orders/bulk/process").await,
        "unlocked"
    );
    is_mistake(&router, "/admin/orders/42/process").await;
    let nested = Router::new().nest("/api", routes().route_layer(table(&locks)));
    assert_eq!(
        name_of(&nested, Method::POST, "/api/orders/bulk/process").await,
        "unlocked"
    );

    let declared = table(&locks)
        .unlocked(Method::POST, "/admin/orders/{id}/process")
        .unwrap();
    let router = routes().route_layer(declared);
    assert_eq!(
        name_of(&router, Method::POST, "/admin/orders/42/process").await,
        "unlocked"
    );
    assert_eq!(name_of(&router, Method::POST, URI).await, NAME);
}

#[tokio::test]
async fn an_entry_for_another_method_does_not_hide_a_mistake() {
    let locks = Locks::new();
    let empty = || RouteLocks::new(locks.provider.clone());
    // The prefix was forgotten for one method of the two.
    let table = empty()
        .route(Method::GET, "/api/orders/{id}", "order:read:<id>", NOW)
        .unwrap()
        .route(Method::POST, "/orders/{id}", "order:change:<id>", NOW)
        .unwrap();
    let router = Router::new().nest("/api", routes().route_layer(table));
    is_mistake(&router, "/api/orders/42").await;
    assert_eq!(
        name_of(&router, Method::GET, "/api/orders/7").await,
        "order:read:7"
    );
    assert_eq!(
        name_of(&router, Method::PUT, "/api/orders/7").await,
        "unlocked"
    );

    // A wider route has an entry too, for another method.
    let table = empty()
        .route(Method::POST, PROCESS, TEMPLATE, NOW)
        .unwrap()
        .route(Method::GET, "/orders/{id}/{action}", "order:read:<id>", NOW)
        .unwrap();
    let router = Router::new()
        .route("/orders/{id}/{action}", routing::any(name))
        .route_layer(table);
    is_mistake(&router, "/orders/42/process").await;
    let other = post(&router, "/orders/42/other").await;
    assert_eq!(text(other).await, "unlocked");

    // What is declared for one method is so for that one.
    let table = table_of_get(&locks)
        .unlocked(Method::GET, "/admin/orders/{id}/process")
        .unwrap();
    let router = Router::new()
        .route("/admin/orders/{id}/process", routing::any(name))
        .route_layer(table);
    assert_eq!(
        name_of(&router, Method::GET, "/admin/orders/7/process").await,
        "unlocked"
    );
    is_mistake(&router, "/admin/orders/42/process").await;
}

/// One route, for GET and POST.
fn table_of_get(locks: &Locks) -> RouteLocks {
    RouteLocks::new(locks.provider.clone())
        .route(Method::POST, PROCESS, TEMPLATE, NOW)
        .unwrap()
        .route(Method::GET, PROCESS, "order:read:<id>", NOW)
        .unwrap()
}

#[test]
fn one_shape_has_one_spelling_whatever_the_methods() {
    let locks = Locks::new();
    let other = "/orders/{order}/process";
    let any = || {
        RouteLocks::new(locks.provider.clone())
            .any(PROCESS, TEMPLATE, NOW)
            .unwrap()
    };
    let template = "order:process:<order>";
    for refused in [
        table(&locks).route(Method::DELETE, other, template, NOW),
        table(&locks).unlocked(Method::DELETE, other),
        table(&locks).any(other, template, NOW),
        any().route(Method::POST, other, template, NOW),
        any().unlocked(Method::POST, other),
        any().any(other, template, NOW),
        any().any(PROCESS, TEMPLATE, NOW),
    ] {
        let error = refused.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        assert!(error.to_string().contains(PROCESS), "{error}");
    }
    assert!(any().unlocked(Method::OPTIONS, PROCESS).is_ok());
    assert!(table(&locks).any(PROCESS, TEMPLATE, NOW).is_ok());
}

#[test]
fn bad_entries_are_refused() {
    let locks = Locks::new();
    let refused = |method: Method, path: &str, template: &str| -> LockError {
        table(&locks)
            .route(method, path, template, NOW)
            .unwrap_err()
    };
    for (method, path, template, wrong) in [
        (Method::POST, PROCESS, TEMPLATE, "has an entry already"),
        (
            Method::POST,
            "/orders/{order}/process",
            "order:process:<order>",
            "`/orders/{id}/process`",
        ),
        (
            Method::HEAD,
            "/reports/{id}",
            "report:read:<id>",
            "covers HEAD",
        ),
        (
            Method::POST,
            "/carts/{id}",
            "cart:pay:<cart>",
            "has the parameters `id`",
        ),
        (
            Method::POST,
            "/carts",
            "cart:pay:<cart>",
            "has no route parameters",
        ),
        (
            Method::POST,
            "carts/{id}",
            "cart:pay:<id>",
            "must start with `/`",
        ),
        (
            Method::POST,
            "/carts/:id",
            "cart:pay:<id>",
            "write `{name}`",
        ),
    ] {
        let error = refused(method, path, template);
        assert!(error.is_misconfigured(), "{error}");
        assert!(error.to_string().contains(wrong), "{error}");
    }
    assert!(refused(Method::POST, "/carts/{id}", "cart").is_invalid_name());
    let unlocked = table(&locks).unlocked(Method::POST, PROCESS).unwrap_err();
    assert!(unlocked.is_misconfigured());
    let head = RouteLocks::new(locks.provider.clone())
        .route(Method::HEAD, "/carts/{id}", "cart:read:<id>", NOW)
        .unwrap();
    assert!(
        head.route(Method::GET, "/carts/{id}", "cart:read:<id>", NOW)
            .is_err()
    );
    // Another method of the same route is another entry.
    assert!(
        table(&locks)
            .route(Method::DELETE, PROCESS, "order:delete:<id>", NOW)
            .is_ok()
    );
}

#[tokio::test]
async fn params_of_the_table_are_for_the_entries_that_name_them() {
    let locks = Locks::new();
    let table = RouteLocks::new(locks.provider.clone())
        .param("tenant", |parts| {
            parts
                .headers
                .get("x-tenant")?
                .to_str()
                .ok()
                .map(str::to_owned)
        })
        .route(Method::POST, PROCESS, "order:process:<tenant>:<id>", NOW)
        .unwrap()
        .route(Method::GET, "/reports/{id}", "report:read:<id>", NOW)
        .unwrap();
    let router = routes().route_layer(table);
    assert_eq!(
        name_of(&router, Method::GET, "/reports/9").await,
        "report:read:9"
    );
    assert_eq!(post(&router, URI).await.status(), StatusCode::BAD_REQUEST);
    let mut request = crate::support::request(Method::POST, URI);
    request
        .headers_mut()
        .insert("x-tenant", "acme".parse().unwrap());
    let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
    assert_eq!(text(response).await, "order:process:acme:7");
}

#[tokio::test]
async fn a_table_works_with_state_and_answers_in_its_own_way() {
    async fn handler(State(state): State<u8>, held: HeldLock) -> String {
        format!("{state} {}", held.name())
    }
    let locks = Locks::new();
    let table = table(&locks).on_rejection(|rejection| {
        let mut response = rejection.to_response();
        *response.status_mut() = StatusCode::LOCKED;
        response
    });
    let router = Router::new()
        .route(PROCESS, routing::post(handler))
        .route_layer(table)
        .with_state(3);
    assert_eq!(text(post(&router, URI).await).await, format!("3 {NAME}"));
    let _held = locks.take(NAME).await;
    assert_eq!(post(&router, URI).await.status(), StatusCode::LOCKED);
}
