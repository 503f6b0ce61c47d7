//! Distributed locks for Tower services and axum routes.
//!
//! A layer runs each request under the lock that a template names, and answers 409 when another
//! holds it. One route:
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! use std::time::Duration;
//! use axum::body::Body;
//! use axum::{Router, routing::post};
//! use http::{Request, StatusCode};
//! use lock_core::{LockError, LockProvider, memory::MemoryBackend};
//! use lock_tower::{HeldLock, LockLayer};
//! use tower::ServiceExt;
//!
//! async fn process(held: HeldLock) -> Result<String, LockError> {
//!     let token = held.fencing_token().await?; // for storage that refuses stale writers
//!     Ok(format!("{} as {token}", held.name()))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let locks = LockProvider::new(MemoryBackend::new());
//! let layer = LockLayer::new(locks.clone(), "order:process:<id>")?
//!     .param_as::<u64>("id") // `/orders/07` is order 7, and not another lock
//!     .wait(Duration::ZERO);
//! let app = Router::new().route("/orders/{id}/process", post(process).route_layer(layer));
//!
//! let request = || Request::post("/orders/7/process").body(Body::empty());
//! assert_eq!(app.clone().oneshot(request()?).await?.status(), StatusCode::OK);
//!
//! let elsewhere = locks.acquire("order:process:7", Duration::ZERO).await?;
//! assert_eq!(app.oneshot(request()?).await?.status(), StatusCode::CONFLICT);
//! # Ok(()) }
//! ```
//!
//! The routes of a router, each with a lock and a policy of its own:
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! # use axum::{Router, routing::{get, post}};
//! # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
//! # use lock_tower::RouteLocks;
//! # async fn handler() {}
//! # let locks = LockProvider::new(MemoryBackend::new());
//! let locked = RouteLocks::new(locks)
//!     .router()?
//!     .route("/orders/{id}/process", post(handler), "order:process:<id>", LockPolicy::user_request())?
//!     .route("/reports/{id}/rebuild", post(handler), "report:rebuild:<id>", LockPolicy::long_operation())?;
//! let app: Router = locked
//!     .into_router()
//!     .route("/orders/{id}", get(handler)); // not locked
//! # Ok::<(), LockError>(())
//! ```
//!
//! Or, for routes that are registered elsewhere, a table beside them:
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! # use axum::{Router, routing::{get, post}};
//! # use http::Method;
//! # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
//! # use lock_tower::RouteLocks;
//! # async fn handler() {}
//! # let locks = LockProvider::new(MemoryBackend::new());
//! let locks = RouteLocks::new(locks)
//!     .route(Method::POST, "/orders/{id}/process", "order:process:<id>", LockPolicy::user_request())?
//!     .route(Method::POST, "/reports/{id}/rebuild", "report:rebuild:<id>", LockPolicy::long_operation())?;
//! let app: Router = Router::new()
//!     .route("/orders/{id}", get(handler)) // not locked
//!     .route("/orders/{id}/process", post(handler))
//!     .route("/reports/{id}/rebuild", post(handler))
//!     .route_layer(locks);
//! # Ok::<(), LockError>(())
//! ```
//!
//! And any Tower service of HTTP requests, without axum (for gRPC see [`LockLayer::grpc`]):
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use lock_core::{LockError, LockName, LockProvider, memory::MemoryBackend};
//! use lock_tower::LockLayer;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! async fn import(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, std::io::Error> {
//!     Ok(Response::new(Full::from("imported")))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let locks = LockProvider::new(MemoryBackend::new());
//! let layer = LockLayer::new(locks, "file:import:<path>")?
//!     .key(|parts| {
//!         // `/a` and `/%61` are one file.
//!         let path = percent_encoding::percent_decode_str(parts.uri.path()).decode_utf8();
//!         let path = path.map_err(|_| LockError::invalid_name("the path is not UTF-8"))?;
//!         LockName::new("file", "import", path)
//!     });
//! let service = layer.layer(service_fn(import));
//! # let response = service.oneshot(Request::put("/a").body(Full::default())?).await?;
//! # assert_eq!(response.status(), 200);
//! # Ok(()) }
//! ```
//!
//! # What is guaranteed
//!
//! - **No handler runs without its lock.** A lock that is held, a backend that is down, a value that
//!   makes no name and a mistake in the set-up are answers of the layer, and different ones
//!   ([`LockRejection`]). The lock is taken after the service was ready and before it is called.
//! - **The lock is held until the work is done** ([`HoldUntil`]), and the handler's future is gone
//!   before the lock is. The response to work that is done is sent after the release (for a second at
//!   most), so that a client that has seen it does not meet its own lock.
//! - **A loss stops the work.** The handler's future is dropped and the answer says that the
//!   outcome is unknown; a body that is still sent is cut off with an error. What the handler has
//!   spawned or sent goes on: [`HeldLock::fencing_token`] lets storage refuse it.
//! - **A client that leaves does not unlock work that goes on.** The future of a request other than
//!   GET and HEAD is finished in a task of its own, in the span of its request, until it ends, its
//!   lock is lost, its policy's `max_hold` is over, or the runtime ends. A request that still waits
//!   for its lock gives up its place (see "Request bodies"). [`LockLayer::drop_on_disconnect`] stops all of them. Call
//!   `locks.shutdown(grace)` at the signal, beside the server's own shutdown: it waits for these.
//! - **A panic releases**, wherever it is caught.
//!
//! # What is locked
//!
//! The text of a route parameter, percent-decoded. Where a handler parses it, spellings of one value are
//! several locks: with `Path<u64>` the paths `/orders/7`, `/orders/07` and `/orders/+7` are one order, and
//! a UUID can be upper case. `LockLayer::param_as` and `RouteLocks::param_as` lock the value instead, and
//! so does `#[distributed_lock(..)]` on the handler. Text whose spellings mean one thing, such as e-mail
//! addresses, wants a type of its own that makes them one.
//!
//! # Where to put it
//!
//! From the outside to the inside:
//!
//! 1. *CORS*: inside the lock, a preflight waits for it, and a 409 has no CORS headers, so that a
//!    script never sees it. Where it has to be inside, [`LockLayer::method`] or an entry of `RouteLocks`
//!    for one method lets OPTIONS pass.
//! 2. *Authentication and rate limits*: the lock is acquired before extractors run. A client that can
//!    name a value can hold its lock, and make others wait.
//! 3. *Compression*: inside the lock it makes each body one of unknown size, which holds the lock
//!    until a slow client has read it.
//! 4. *`RequestBodyLimitLayer`* of tower-http bounds what a client can upload: the body of the request
//!    is read under the lock, and in part before (see "Request bodies" below).
//! 5. *A `TimeoutLayer` around the lock* answers a client that waited too long, for its lock too; a
//!    handler that is running goes on, locked, as if the client had left. Make it longer than the
//!    policy waits, or no client ever sees the 409.
//! 6. *`ConcurrencyLimit` and `LoadShed` around the lock* count the requests that wait for a lock, and
//!    do not count the handlers that run on after their clients have left. To bound the handlers, put
//!    them inside; to bound the waiters too, have one on each side.
//! 7. **The lock**, on routes: `route_layer` of a router or of a `MethodRouter` (`layer` on what
//!    `axum::routing::any` makes). A route that is added to a router after its `route_layer` is not
//!    locked. Around a whole router, a fallback or a `nest_service` no route has matched yet, and
//!    parameters are refused with 500. A router's `route_layer` also runs for a 405; that of a
//!    `MethodRouter` does not. Two layers with one lock around one handler wait for each other: the
//!    answer is always 409.
//! 8. *A `ConcurrencyLimit` inside the lock* bounds the handlers that run, those without a client
//!    included. In a plain Tower stack a request takes its permit before it waits for the lock, so that
//!    waiters count there too; axum asks a route for it only when the lock is held.
//! 9. *A `TimeoutLayer` inside the lock* stops the handler when its time is over, and frees the lock.
//!    So does [`max_hold`](LockLayer::max_hold), which also bounds the body.
//! 10. *`RequestBodyTimeoutLayer`* of tower-http bounds how long an upload may pause: without it a
//!     client that sends a byte a minute holds the lock.
//!
//! An entry of `RouteLocks` for one method leaves the other methods of its route unlocked. A handler
//! for any method (`axum::routing::any`) needs `RouteLocks::any`, or asks for [`HeldLock`], which
//! refuses a request without a lock.
//!
//! 409 and 503 of a layer are refusals before the handler ran: nothing was done, and a mesh or a proxy
//! may retry them. Those of a handler are its own: what the error of a lock is answered there is in
//! [`LockRejection`]. 500 with `"outcome": "unknown"` (`"reason": "lock-lost"`, `"lock-outcome-unknown"`)
//! must not be retried: something may have been done. 409 is no failure of the service, and
//! should not count as one.
//!
//! A lock whose name depends on the body, or on what an extractor gives, is not for a layer: use
//! `#[distributed_lock(..)]` on the handler, or a guard by hand.
//!
//! # Request bodies
//!
//! A server of HTTP/1.1 reads from a connection no more than the body that it is asked for, which has
//! two consequences for a request whose body no handler has read yet.
//!
//! - *The server does not see that the client has left.* While a request waits for its lock, the layer
//!   reads its body ahead, 128 KiB by default ([`LockLayer::read_ahead`]), and gives the handler the
//!   whole. A client that leaves gives up its place in line; one whose body is larger keeps it. A body
//!   that fails while the request waits ends the wait with 400, or 413 if it is larger than a limit
//!   outside allows. A client that expects `100 Continue` gets it when its request begins to wait; one
//!   that is refused without a wait is not asked to send.
//! - *An answer can be overtaken by the reset of the connection*, when the server closes it over
//!   what is unread; a proxy makes a 502 of that. So the body of a refused request is read on after
//!   the answer and thrown away, 1 MiB at most, and the connection stays open for 5 s at most. A
//!   client or a proxy that looks for an answer while it sends (nginx, curl, browsers) sees it
//!   whatever the size. One that first sends all sees it up to 1 MiB, and beyond that may see a reset.
//!   Where the rest may not be read, the answer says `Connection: close`. What a handler has left of
//!   its body is its own matter, also when a loss of the lock stops it.
//!
//! HTTP/2 has neither trouble, and none of this is done for it. What a request there has sent while it waits fills
//! the window of its stream, and takes as much from that of the connection, whose other uploads stop once it is full:
//! also that of the holder, whom all of them wait for then. Both windows of hyper are 1 MiB. So where clients upload over
//! one connection (a proxy, gRPC), give it more than those who wait can fill: `initial_connection_window_size` above
//! `initial_stream_window_size` times their number.
//!
//! The body of a request that gets its lock without a wait is not touched.
//!
//! # Features
//!
//! - `axum` (default): route parameters, `RouteLocks`, the extractor, the response, and the routes
//!   for probes in `health`. Without it:
//!   [`LockLayer::key`] and [`LockLayer::param`].
//! - `console`: the page for operators in `console`, who holds what.

// Which feature an item needs, in the documentation of docs.rs.
#![cfg_attr(docsrs, feature(doc_cfg))]

/// What the layers of this project's other crates share with these.
#[doc(hidden)]
pub mod __private {
    pub use crate::refusal::Rest;
    pub use crate::rejection::{body_problem, body_too_large};
}
mod body;
#[cfg(feature = "console")]
pub mod console;
mod disconnect;
mod future;
#[cfg(feature = "axum")]
pub mod health;
mod held;
mod hold;
mod layer;
mod locked;
mod name;
mod refusal;
mod rejection;
mod replay;
#[cfg(feature = "axum")]
mod routes;
mod rule;
mod running;
mod service;
mod settling;
mod upload;

pub use body::LockedBody;
pub use future::ResponseFuture;
pub use held::HeldLock;
pub use hold::HoldUntil;
pub use layer::LockLayer;
pub use name::ParamValue;
pub use rejection::LockRejection;
pub use replay::ReplayedBody;
#[cfg(feature = "axum")]
pub use routes::{LockedRouter, RouteLocks};
pub use service::Lock;

/// Of the core, what handlers and routers name; the whole is [`lock_core`].
#[doc(no_inline)]
pub use lock_core::{
    self, CancellationToken, FencingToken, LockError, LockErrorKind, LockGuard, LockName,
    LockPolicy, LockProvider, LockTemplate, LossReason,
};
/// The crates whose types the signatures here have, in the versions that they mean.
#[doc(no_inline)]
pub use {bytes, http, http_body, tower_layer, tower_service};

#[cfg(feature = "axum")]
#[doc(no_inline)]
pub use axum;

/// The error of a body that was cut off, or whose service failed.
type BoxError = Box<dyn std::error::Error + Send + Sync>;
