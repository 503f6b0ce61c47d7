//! A page for operators: who holds what.
//!
//! | route | answers |
//! |---|---|
//! | `/locks` | the page: what is held in the store, by which instances; what this one holds and waits for, has lost and was refused |
//! | `/locks.json` | the same for programs |
//! | `/locks.css`, `/locks.js` | what the page is made of; it loads nothing else |
//!
//! ```
//! use axum::Router;
//! use lock_core::{LockProvider, memory::MemoryBackend};
//! use lock_tower::console;
//!
//! let locks = LockProvider::new(MemoryBackend::new());
//! // Behind the authentication of operators.
//! let internal: Router = Router::new().nest("/internal", console::router(locks));
//! ```
//!
//! **Put it behind authentication**, or on an address that operators alone reach: it names instances, which are
//! often hosts, and, with [`names`](Console::names), locks, which often have ids of users. It changes nothing,
//! takes no lock, and runs no script but its own: its Content-Security-Policy allows no other.
//!
//! The page refreshes itself every two seconds while it is looked at, keeps its place, says when that fails, and can be
//! paused. It is plain HTML without the script, too, and works on a phone, by keyboard, and read aloud.
//!
//! # What it costs
//!
//! The store is asked when a request comes here, once a second at most for all of them, by
//! [`LockProvider::list`], which says what that costs and which right Redis needs. It waits 2 s for the answer: without one
//! the page says so, and shows what this process knows. 10,000 locks are asked for at most, and the 200 shown
//! that are held longest.
//!
//! # `/locks.json`
//!
//! ```json
//! { "backend": "redis",
//!   "taken_at": "2026-03-01T12:00:00.000Z",
//!   "store": {
//!     "error": null,
//!     "listed": 2,
//!     "complete": true,
//!     "locks": [
//!       { "key": "lock:{b17}:v1-u6aocdvupeluowze5ypvazua6t35axc4", "name": null, "instance": "web-3:4711",
//!         "held_ms": 12000, "opens_in_ms": null, "mode": "exclusive", "awaited": true } ],
//!     "instances": [ { "instance": "web-3:4711", "locks": 2 } ] },
//!   "here": [
//!     { "lock": "order:process:<id>", "name": null, "held_ms": 12000, "readers": 0, "waiting": 3 } ],
//!   "lost": [
//!     { "lock": "job:nightly", "name": null, "at": "2026-03-01T11:58:00.000Z", "held_ms": 90000,
//!       "reason": "disconnected" } ],
//!   "templates": [
//!     { "lock": "order:process:<id>", "held": 1, "waiting": 3, "contended": 17, "failed": 0 } ] }
//! ```
//!
//! Members stay as they are; others may be added. `null` is what is not known, or not shown.
//!
//! - `store`: what is held in all namespaces. `error` says why that is not known; `listed` is how many were found,
//!   `complete` whether that is all; `locks` are the 200 of them that are held longest. `awaited` and `held_ms` are
//!   `null` where the store does not tell, as PostgreSQL.
//!   A lock that is read has `mode` `shared`, and a row for each reader that the store can tell.
//! - `here`: what this instance holds (`held_ms`), how many of its tasks hold it as `readers`, together, and how many
//!   wait for it.
//! - `lost`: the last 50 losses of this process, the latest first, with the reasons of
//!   [`LossReason::as_str`](lock_core::LossReason::as_str).
//! - `templates`: what of each is held and awaited here now, and how many acquires were contended or failed since the
//!   process began.

mod page;
mod snapshot;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use lock_core::LockProvider;

use self::snapshot::Latest;

/// Its own style, script and refresh, and nothing else from anywhere. The icon is an empty one.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes with the defaults of [`Console`].
pub fn router<S>(locks: LockProvider) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    Console::new(locks).into_router()
}

/// The page, and what can be chosen about it.
///
/// # Default
///
/// - [`names`](Self::names): no
///
/// ```
/// use axum::Router;
/// use lock_core::{LockProvider, memory::MemoryBackend};
/// use lock_tower::console::Console;
///
/// let locks = LockProvider::new(MemoryBackend::new());
/// let app: Router = Console::new(locks).names(true).into_router();
/// ```
#[derive(Clone, Debug)]
#[must_use = "routes do nothing until they are in a router"]
pub struct Console {
    locks: LockProvider,
    has_names: bool,
}

impl Console {
    /// The page of this provider.
    pub fn new(locks: LockProvider) -> Self {
        Self {
            locks,
            has_names: false,
        }
    }

    /// Whether names of locks are shown, with the values in them, and not their templates and keys alone.
    pub const fn names(mut self, names: bool) -> Self {
        self.has_names = names;
        self
    }

    /// A router with the routes, to be merged or nested into another.
    pub fn into_router<S>(self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let latest = Arc::new(Latest::new(self.locks, self.has_names));
        let of_json = Arc::clone(&latest);
        let page = move || {
            let latest = Arc::clone(&latest);
            async move {
                let page = page::page(&*latest.take().await);
                answer("text/html; charset=utf-8", page.into_string())
            }
        };
        let json = move || {
            let latest = Arc::clone(&of_json);
            async move {
                match serde_json::to_string(&*latest.take().await) {
                    Ok(json) => answer("application/json", json),
                    Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                }
            }
        };
        let style = || async { answer("text/css; charset=utf-8", include_str!("style.css")) };
        let script = || async { answer("text/javascript; charset=utf-8", include_str!("page.js")) };
        Router::new()
            .route("/locks", get(page))
            .route("/locks.json", get(json))
            .route("/locks.css", get(style))
            .route("/locks.js", get(script))
    }
}

/// Is kept by no cache, and means what its type says.
fn answer(kind: &'static str, body: impl IntoResponse) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
    ];
    (headers, body).into_response()
}
