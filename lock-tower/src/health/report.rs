//! The answers.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use lock_core::ServerRole;
use serde::Serialize;

use super::monitor::State;

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
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
}

impl State {
    /// `None` while it is not known.
    fn is_up(&self) -> Option<bool> {
        self.health.as_ref().map(|health| health.is_up())
    }

    fn status(&self) -> &'static str {
        match self.is_up() {
            Some(true) => "up",
            Some(false) => "down",
            None => "unknown",
        }
    }
}

/// What is known; 503 when locks could not be granted, unless that is only to be reported.
pub(super) fn response(servers: &[State], is_report: bool) -> Response {
    let mut needed = servers
        .iter()
        .filter(|server| server.role == ServerRole::Locks);
    let failing = needed.find(|server| server.is_up() != Some(true));
    let status = match failing {
        Some(_) if !is_report => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    let is_degraded = || servers.iter().any(|server| server.is_up() == Some(false));
    let report = Report {
        status: match failing {
            Some(server) => server.status(),
            None if is_degraded() => "degraded",
            None => "up",
        },
        servers: servers
            .iter()
            .map(|server| Server {
                name: server.name,
                role: server.role.as_str(),
                status: server.status(),
                latency_ms: (server.health.as_ref()).map(|health| millis(health.latency())),
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
