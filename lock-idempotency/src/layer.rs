//! The layer.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderName, StatusCode};
use lock_core::{LockError, LockPolicy, LockProvider};
use lock_tower::{LockLayer, ParamValue};
use tower_layer::Layer;

use crate::answer::{not_locked, out_of_place};
use crate::key::Asking;
use crate::settings::Settings;
use crate::{Idempotency, IdempotencyStore, Recording};

/// What every key's lock is called: the hash says nothing of it.
const TEMPLATE: &str = "idempotency:key:<hash>";

/// Replays the stored response to a request that is sent again with its `Idempotency-Key`.
///
#[cfg_attr(feature = "axum", doc = "```")]
#[cfg_attr(not(feature = "axum"), doc = "```ignore")]
/// use std::time::Duration;
/// use axum::{Router, routing::post};
/// use lock_core::{LockError, LockProvider};
/// use lock_idempotency::{IdempotencyLayer, IdempotencyStore};
///
/// #[derive(Clone)]
/// struct Tenant(u64); // the authentication outside puts it into the request
///
/// fn routes(locks: LockProvider, store: impl IdempotencyStore) -> Result<Router, LockError> {
///     let layer = IdempotencyLayer::new(locks, store, |parts| Some(parts.extensions.get::<Tenant>()?.0))?
///         .required()
///         .lifetime(Duration::from_secs(7 * 24 * 60 * 60));
///     Ok(Router::new().route("/payments/{id}/refund", post(refund).route_layer(layer)))
/// }
///
/// async fn refund() {}
/// # let locks = LockProvider::new(lock_core::memory::MemoryBackend::new());
/// # let _ = routes(locks, lock_idempotency::MemoryStore::new()).unwrap();
/// ```
///
/// # Default
///
/// - the header `Idempotency-Key`, not required; requests without it pass;
/// - a request whose first is in progress is answered 409 and does not wait;
/// - records live for 24 h;
/// - bodies of requests up to 1 MiB, stored bodies of responses up to 64 KiB;
/// - answers that a retry would have again are stored: see the [crate](crate#what-is-stored);
/// - the store has 2 s for each answer.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct IdempotencyLayer {
    lock: LockLayer,
    settings: Arc<Settings>,
}

impl IdempotencyLayer {
    /// A layer that keeps responses in `store`, apart for each `scope`: the tenant or the user who calls.
    ///
    /// A key is unique for its caller alone, and what was answered to one must never be replayed to
    /// another. So there is no default. Take the scope from what the authentication outside this layer has
    /// found, never from what a client can choose. A service with one caller says so: `|_| "all"`.
    ///
    /// A request for which the scope is `None`, empty, or an error, is answered 400.
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # use lock_idempotency::{IdempotencyLayer, MemoryStore};
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// #[derive(Clone)]
    /// struct User(u64);
    ///
    /// let layer = IdempotencyLayer::new(locks, MemoryStore::new(), |parts| {
    ///     Some(parts.extensions.get::<User>()?.0)
    /// })?;
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// The locks have to reach as far as the store does: with a store that several instances share, locks in
    /// memory or in files let two of them run one request.
    ///
    /// # Errors
    ///
    /// None now; those of [`LockLayer::new`].
    pub fn new<K, F, V>(locks: LockProvider, store: K, scope: F) -> Result<Self, LockError>
    where
        K: IdempotencyStore,
        F: Fn(&Parts) -> V + Send + Sync + 'static,
        V: ParamValue,
    {
        let lock = LockLayer::new(locks, TEMPLATE)?
            .policy(LockPolicy::background_job())
            .on_rejection(|rejection| not_locked(&rejection))
            .key(|parts| {
                let asking = parts.extensions.get::<Arc<Asking>>();
                asking.ok_or_else(out_of_place)?.record.lock_name()
            });
        let scope = move |parts: &Parts| scope(parts).into_value();
        let settings = Arc::new(Settings::new(Arc::new(store), Arc::new(scope)));
        Ok(Self { lock, settings })
    }

    fn settings(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }

    /// The header that has the key.
    ///
    /// # Default
    ///
    /// `Idempotency-Key`.
    pub fn header(mut self, name: HeaderName) -> Self {
        self.settings().header = name;
        self
    }

    /// Answers a request without a key 400, and does not let it pass. GET, HEAD, OPTIONS and TRACE need
    /// none.
    pub fn required(mut self) -> Self {
        self.settings().is_required = true;
        self
    }

    /// How long a response is replayed. After that, a request with its key is a new one: longer than clients
    /// retry, queues and people included. With less than a millisecond requests with a key are answered 500, and
    /// the log says why.
    ///
    /// # Default
    ///
    /// 24 h.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.settings().lifetime = lifetime;
        self
    }

    /// How long a request waits while the first with its key is in progress, and how long the lock of a key
    /// is held at most. A request that has waited gets what the first was answered. A handler that takes longer
    /// than the lock is held is stopped in its work, and a retry runs again.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # use lock_idempotency::{IdempotencyLayer, MemoryStore};
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let layer = IdempotencyLayer::new(locks, MemoryStore::new(), |_| "all")?
    ///     .policy(LockPolicy::user_request().with_max_hold(Duration::from_secs(60)));
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// # Default
    ///
    /// [`LockPolicy::background_job`]: it does not wait, and is answered 409 with `Retry-After`; the lock is
    /// held for as long as the work takes.
    pub fn policy(mut self, policy: impl Into<LockPolicy>) -> Self {
        self.lock = self.lock.policy(policy);
        self
    }

    /// The largest body of a request with a key, in bytes; a larger one is answered 413. The body is in memory
    /// while the request is worked on: its hash is needed before.
    ///
    /// # Default
    ///
    /// 1 MiB.
    pub fn request_limit(mut self, bytes: usize) -> Self {
        self.settings().request_limit = bytes;
        self
    }

    /// The largest body of a response that is stored, in bytes. A larger one is sent and not stored, so that
    /// a retry runs again; the log warns of it.
    ///
    /// # Default
    ///
    /// 64 KiB.
    pub fn response_limit(mut self, bytes: usize) -> Self {
        self.settings().response_limit = bytes;
        self
    }

    /// Stores this header of responses as well.
    ///
    /// # Default
    ///
    /// `Allow`, `Cache-Control`, `Content-Disposition`, `Content-Encoding`, `Content-Language`,
    /// `Content-Location`, `Content-Type`, `ETag`, `Last-Modified`, `Link`, `Location`.
    pub fn keep_header(mut self, name: HeaderName) -> Self {
        let kept = &mut self.settings().kept_headers;
        if !kept.contains(&name) {
            kept.push(name);
        }
        self
    }

    /// Which responses are stored. One that is not is sent, and a retry runs the handler again: so leave out
    /// those alone that say that nothing was done.
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # use lock_idempotency::{IdempotencyLayer, MemoryStore};
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// // A caller that has corrected the state of things may try again with the same key.
    /// let layer = IdempotencyLayer::new(locks, MemoryStore::new(), |_| "all")?
    ///     .keep_statuses(|status| status.is_success());
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// Answers of a lock inside (409, 503, `lock-lost`) are never stored.
    ///
    /// # Default
    ///
    /// 2xx, 3xx and 4xx, but 408, 409, 421, 423, 425 and 429, which are of the moment, and 401, 406, 407, 412, 415, 417,
    /// 426, 428 and 431, which are about headers: a client may correct these and keep its key.
    pub fn keep_statuses<F>(mut self, keeps: F) -> Self
    where
        F: Fn(StatusCode) -> bool + Send + Sync + 'static,
    {
        self.settings().keeps_status = Arc::new(keeps);
        self
    }

    /// How long the store may take for one answer. A look that takes longer is answered 503; a response whose
    /// storing takes longer is sent, and the log says that it may not be stored.
    ///
    /// # Default
    ///
    /// 2 s.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.settings().store_timeout = timeout;
        self
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = Idempotency<S>;

    fn layer(&self, inner: S) -> Idempotency<S> {
        let lock = self.lock.layer(Recording::new(inner));
        Idempotency::new(lock, Arc::clone(&self.settings))
    }
}
