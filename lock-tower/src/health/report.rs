//! The answers.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use lock_core::{Health, ServerHealth};
use serde::Serialize;

#[derive(Serialize)]
struct Report {
    status: &'static str,
    servers: Vec<Server>,
}

/// Without the error, which can name hosts.
#[derive(Serialize)]
struct Server {
    name: &'static str,
    role: &'static str,
    status: &'static str,
    latency_ms: f64,
}

/// What is known; 503 when locks could not be granted, unless that is only to be reported.
pub(super) fn response(health: &Health, is_report: bool) -> Response {
    let status = match health.is_up() || is_report {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let servers = health.servers();
    let report = Report {
        status: match health.is_up() {
            true if servers.iter().all(ServerHealth::is_up) => "up",
            true => "degraded",
            false => "down",
        },
        servers: servers
            .iter()
            .map(|server| Server {
                name: server.name(),
                role: server.role().as_str(),
                status: if server.is_up() { "up" } else { "down" },
                latency_ms: millis(server.latency()),
            })
            .collect(),
    };
    json(status, &report)
}

/// This process answers.
pub(super) fn alive() -> Response {
    #[derive(Serialize)]
    struct Alive {
        status: &'static str,
    }
    json(StatusCode::OK, &Alive { status: "up" })
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Strings and finite numbers only.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// To the microsecond.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
