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
//! // Inside, and behind the authentication of operators.
//! let internal: Router = Router::new().nest("/internal", console::router(locks));
//! ```
//!
//! # Who may reach it
//!
//! **Put it inside, and behind authentication**: it names instances, which are often hosts, and, with
//! [`names`](Console::names), locks, which often have ids of users. It checks no user itself, and mounts where the
//! application says.
//!
//! An address that operators alone reach is not enough: their browsers reach it too, for any site that they visit. A
//! site can have its own name resolve to that address (DNS rebinding), is then of the same origin as the page, and reads
//! it. Authentication stops that, since a browser sends no cookie and no password of the page to another name. Where
//! there is none, refuse requests whose `Host` is not a name of the service.
//!
//! It changes nothing, takes no lock, and runs no script but its own: its Content-Security-Policy allows no other, and no
//! other page can show it in a frame.
//!
//! # What it names
//!
//! Without [`names`](Console::names), locks appear by template and by their keys in the store, which are hashes. The
//! keys of a backend of your own are shown as they are.
//!
//! The store is shown as a whole: also the locks of other applications and namespaces that use it. A lease table and a
//! store in memory have the names of all of them: with `names` the page shows those of other providers too, whatever
//! they chose for their own pages. Instances are always named. PostgreSQL names a session by its `application_name`, of
//! which the page shows the last word where another program holds an advisory lock.
//!
//! # Where it is
//!
//! Its links are relative, so it can be merged, nested under any path, or be behind a proxy that strips a prefix:
//! `nest("/internal", ..)` has it at `/internal/locks`, and `nest("/locks", ..)` at `/locks/locks`. With a slash at its
//! end, where the links would lead elsewhere, the address redirects to the page; keep a layer that trims slashes from
//! the paths of requests, without a redirect, away from these routes.
//!
//! # What it does by itself
//!
//! The page refreshes itself every two seconds while it is looked at, and replaces only what has changed. It says when a
//! refresh fails. It can be paused, and waits while text in it is selected. It is plain HTML without the script, too,
//! and works on a phone, by keyboard, and read aloud.
//!
//! Behind a load balancer another instance can answer each time: the heading says which one did.
//!
//! # What it costs
//!
//! The store is asked when a request comes here, by [`LockProvider::list`], which says what that costs and which right
//! Redis needs. There is one look at a time for all clients, and it goes on when they leave. Its answer is shown for three
//! times as long as it took, at least 1 s and at most 60 s; an error 5 s at most. A look that takes longer than half a second
//! is not waited for where there is an answer of the last minute: that is shown, with its age. Otherwise it is waited for,
//! for 2 s: then the page shows what was there before, or says that the store has not answered yet, and shows what this
//! process knows. 10,000 locks are asked for at most, and 200 shown.
//!
//! # `/locks.json`
//!
//! ```json
//! { "backend": "redis",
//!   "instance": "web-3:4711",
//!   "taken_at": "2026-03-01T12:00:00.000Z",
//!   "here": [
//!     { "lock": "order:process:<id>", "name": null, "held_ms": 12000, "readers": 0, "waiting": 3 } ],
//!   "here_total": 1,
//!   "lost": [
//!     { "lock": "job:nightly", "name": null, "at": "2026-03-01T11:58:00.000Z", "held_ms": 90000,
//!       "reason": "disconnected" } ],
//!   "templates": [
//!     { "lock": "order:process:<id>", "held": 1, "waiting": 3, "contended": 17, "failed": 0 } ],
//!   "templates_total": 1,
//!   "store": {
//!     "error": null,
//!     "age_ms": 250,
//!     "listed": 1,
//!     "complete": true,
//!     "locks": [
//!       { "key": "lock:{b17}:v1-u6aocdvupeluowze5ypvazua6t35axc4", "name": null, "instance": "web-3:4711",
//!         "held_ms": 12000, "opens_in_ms": null, "mode": "exclusive", "awaited": true } ],
//!     "instances": [ { "instance": "web-3:4711", "locks": 1 } ],
//!     "instances_total": 1 } }
//! ```
//!
//! Members stay as they are; others may be added. `null` is what is not known, or not shown.
//!
//! - `instance`: which instance has answered, as the store names it; [`LockProvider::instance`]. `here`, `lost` and
//!   `templates` are its own, as of `taken_at`.
//! - `here`: what it holds (`held_ms`), how many of its tasks hold it as `readers`, together, and how many
//!   wait for it. The first 200 of `here_total`.
//! - `lost`: the last 50 losses of this process, the latest first, with the reasons of
//!   [`LossReason::as_str`](lock_core::LossReason::as_str).
//! - `templates`: what of each is held and awaited here now, and how many acquires were contended or failed since the
//!   process began. The first 200 of `templates_total`.
//! - `store`: what is held in all namespaces, as the store said `age_ms` ago. `error` says why that is not known;
//!   `listed` is how many were found, `complete` whether that is all. `locks` are 200 of them: those that are held longest,
//!   where all were found and the store says since when. A lock that was released, and is
//!   [kept](lock_core::LockPolicy::with_at_least) closed, comes after them, with `opens_in_ms`. `awaited` and `held_ms` are
//!   `null` where the store does not tell, as PostgreSQL. A lock that is read has `mode` `shared`, and a row for each
//!   reader that the store can tell.
//! - `instances`: how many of these locks each holds, those with the most first: 200 of them. `instance` is `null` for
//!   the locks of which the store does not tell who holds them; `instances_total` does not count that row.

mod latest;
mod local;
mod page;
mod rows;
mod snapshot;
mod store;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use lock_core::LockProvider;

use self::snapshot::Source;

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
/// - [`names`](Self::names): they are not shown
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

    /// Whether names of locks are shown, with the values in them, and not their templates and keys alone: also those
    /// of [other providers](self#what-it-names) that the store has.
    pub const fn names(mut self, names: bool) -> Self {
        self.has_names = names;
        self
    }

    /// A router with the routes, to be merged or nested into another.
    pub fn into_router<S>(self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let source = Arc::new(Source::new(self.locks, self.has_names));
        let of_json = Arc::clone(&source);
        let page = move || {
            let source = Arc::clone(&source);
            async move {
                let page = page::page(&source.take().await);
                answer("text/html; charset=utf-8", page.into_string())
            }
        };
        let json = move || {
            let source = Arc::clone(&of_json);
            async move {
                match serde_json::to_string(&source.take().await) {
                    Ok(json) => answer("application/json", json),
                    Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                }
            }
        };
        let style = || async { answer("text/css; charset=utf-8", include_str!("style.css")) };
        let script = || async { answer("text/javascript; charset=utf-8", include_str!("page.js")) };
        // There the links of the page would lead elsewhere.
        let slash = || async { Redirect::temporary("../locks") };
        Router::new()
            .route("/locks", get(page))
            .route("/locks/", get(slash))
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
