//! Idempotency keys for Tower services and axum routes: a request that is sent again with the same
//! `Idempotency-Key` has its first answer replayed, and its handler does not run again.
//!
//! A lock keeps two requests from refunding a payment at the same time. The second still refunds once the
//! first is done. This layer keeps the answer of the first under the key that the client gave, and the lock
//! of that key while the first is in progress.
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! use axum::body::Body;
//! use axum::{Router, routing::post};
//! use http::{Request, StatusCode};
//! use lock_core::{LockProvider, memory::MemoryBackend};
//! use lock_idempotency::{IdempotencyLayer, MemoryStore};
//! use tower::ServiceExt;
//!
//! /// Who asks, as the authentication in front of the layer has found.
//! #[derive(Clone)]
//! struct Account(String);
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let locks = LockProvider::new(MemoryBackend::new());
//! let layer = IdempotencyLayer::new(locks, MemoryStore::new(), |parts| {
//!     Some(parts.extensions.get::<Account>()?.0.clone())
//! })?
//! .required();
//! let app = Router::new().route("/payments", post(async || StatusCode::CREATED).route_layer(layer));
//!
//! let pay = || {
//!     Request::post("/payments")
//!         .extension(Account("ann".into()))
//!         .header("idempotency-key", "8e03978e-40d5-43dd-bc93-6894a57f9324")
//!         .body(Body::from(r#"{"cents": 500}"#))
//! };
//! let first = app.clone().oneshot(pay()?).await?;
//! assert_eq!((first.status(), first.headers().get("idempotent-replayed")), (StatusCode::CREATED, None));
//!
//! let again = app.oneshot(pay()?).await?;
//! assert_eq!(again.status(), StatusCode::CREATED);
//! assert_eq!(again.headers()["idempotent-replayed"], "true");
//! # Ok(()) }
//! ```
//!
//! # What is promised
//!
//! - **Two requests with one key never run at the same time**, as far as the lock reaches: in the whole fleet
//!   with PostgreSQL or Redis.
//! - **An answer that was stored is replayed** for its lifetime, 24 h unless set, to the same caller, for the
//!   same request: scope, route, key, method, path with query, and body.
//! - **No handler runs when the store or the lock cannot be reached**, nor where the store can only be read:
//!   that is 503.
//! - **At least once.** A process that dies between the effect and the record has done the work and cannot
//!   say so: a retry does it again. So does a lock that is lost while the handler runs.
#![cfg_attr(
    feature = "postgres",
    doc = "- **Exactly one effect**, with [`PostgresStore::store_in`]: the record is written in the transaction of the \
           effect, so that both are there or neither. Wherever the process dies, a retry finds the record, or \
           nothing of the first attempt."
)]
#![cfg_attr(
    not(feature = "postgres"),
    doc = "- **Exactly one effect** takes the feature `postgres`: `PostgresStore::store_in` writes the record in the \
           transaction of the effect."
)]
//!
//! A step, and what a retry meets when the process dies right after it:
//!
//! | the process dies | without `store_in` | with `store_in` |
//! | --- | --- | --- |
//! | before the effect | nothing done; it runs | nothing done; it runs |
//! | after the effect, before the record | **it runs again** | nothing done (rolled back); it runs |
//! | after the record, before the answer | replayed | replayed |
//!
//! # Answers
//!
//! `application/problem+json`, as those of [`lock_core::answer`]; the `type` is
//! `urn:distributed-lock:problem:` and the `reason`.
//!
//! | the request | status | `reason` | was anything done |
//! | --- | --- | --- | --- |
//! | has no key where one is required | 400 | `idempotency-key-missing` | no |
//! | has a malformed key, or two keys | 400 | `idempotency-key-invalid` | no |
//! | comes from a caller without a scope | 400 | `idempotency-scope-missing` | no |
//! | has a body that breaks off | 400 | `request-body` | no |
//! | has a larger body than allowed | 413 | `request-body` | no |
//! | is still in progress (`Retry-After`) | 409 | `idempotency-key-in-use` | not by this one |
//! | has the key of another request | 422 | `idempotency-key-reused` | not by this one |
//! | meets a store that is down (`Retry-After`) | 503 | `idempotency-store-unavailable` | no |
//! | meets a lock that is down, or lost | 503, 500 | those of [`lock_core::answer`] | 500: unknown |
//!
//! An answer that was sent before has the header `Idempotent-Replayed: true`.
//!
//! Requests are the same byte for byte: JSON in another order, a query with one parameter more and a multipart
//! body with another boundary are other requests. Headers and the host are not compared; what they choose, such as
//! a tenant, belongs into the scope.
//!
//! # What is stored
//!
//! The status, headers of a list ([`keep_header`](IdempotencyLayer::keep_header); no cookies), and the body up
//! to 64 KiB, by default of 2xx, 3xx and 4xx. Not stored, so that a retry runs: 5xx, 408, 409, 421, 423, 425 and
//! 429; what is about headers, which are not compared (401, 406, 407, 412, 415, 417, 426, 428, 431); and whatever a
//! lock has refused. A response of unknown size is read to its end before it is sent,
//! up to the cap; a larger one, `text/event-stream` and `application/grpc` are sent as they are made, and not
//! stored, with a warning in the log.
//!
//! The store has hashes of scope, route, key and payload, and the answer as it was sent: it needs the
//! protection that the answers do.
//!
//! # Where to put it
//!
//! - *Authentication* outside: the scope is who it has found. Never take the scope from what a client can
//!   choose, or one caller reads what another was answered.
//! - *Compression* and *CORS* outside: a stored body is replayed to clients that may accept other encodings.
//! - *A lock of the resource* (`lock_tower::LockLayer`, `#[distributed_lock(..)]`) inside: a replay does not
//!   need it, and its 409 is not stored.
//! - On routes, with `route_layer`: the pattern of the route is part of what names a record, so that one key on
//!   two routes is two requests. Around a whole router, one key is one request of all its routes.
//!
//! GET, HEAD, OPTIONS and TRACE are left alone: they change nothing.
//!
//! # Jobs and consumers
//!
//! There is no `once = "24h"` for `#[distributed_lock(..)]`: the function would need a second provider to be installed, a
//! return value that can be stored and read again, and, with its record written after the body, it would do the
//! work *at least* once under a word that says otherwise. By hand it is one statement in the transaction of the
//! work, `INSERT .. ON CONFLICT DO NOTHING` with the number of the message, and exactly one effect: see the page
//! [`idempotency`](lock_core::guide::idempotency) of the guide.
//!
//! # Features
//!
//! - `axum` (default): the extractor [`IdempotencyKey`], and the pattern of the route in keys.
//! - `postgres`: `PostgresStore`, and `store_in` for handlers that write in the same database.
//! - `redis`: `RedisStore`.
//!
//! TLS to the stores comes with the `tls-*` features of `lock-core`.

// Which feature an item needs, in the documentation of docs.rs.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
mod body;
mod header;
mod identity;
mod key;
mod layer;
mod record;
mod recorded;
mod recording;
mod service;
mod settings;
mod store;
mod upload;

pub use body::{RequestBody, ResponseBody};
pub use identity::{Fingerprint, RecordKey};
pub use key::IdempotencyKey;
pub use layer::IdempotencyLayer;
pub use record::Record;
pub use recorded::RecordedBody;
pub use recording::Recording;
pub use service::Idempotency;
#[cfg(feature = "postgres")]
pub use store::postgres::{PostgresStore, StoreInError};
#[cfg(feature = "redis")]
pub use store::redis::RedisStore;
pub use store::{IdempotencyStore, MemoryStore};

/// Of the core, what configurations and handlers name; the whole is [`lock_core`].
#[doc(no_inline)]
pub use lock_core::{self, LockError, LockErrorKind, LockPolicy, LockProvider};
/// The lock of a key, as handlers see it, and what a scope may be.
#[doc(no_inline)]
pub use lock_tower::{HeldLock, ParamValue};
/// The crates whose types the signatures here have, in the versions that they mean.
#[doc(no_inline)]
pub use {bytes, http, http_body, tower_layer, tower_service};

/// The error of a body, or of a service.
type BoxError = Box<dyn std::error::Error + Send + Sync>;
