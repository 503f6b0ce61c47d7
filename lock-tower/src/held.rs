//! The lock of a request, as its handler sees it and as the layer owns it.

use std::fmt;
use std::future::Future;

use lock_core::__private::{Settle, SharedGuard};
use lock_core::{FencingToken, LockError, LockGuard, LockName, LossReason};
use tokio_util::sync::CancellationToken;

/// The lock that a request runs under: an extractor in axum, an extension of the request everywhere.
///
/// The layer holds the lock and releases it when the work is done; this is the handler's view of it.
/// It does not keep the lock held: work that goes on after the response takes the guard along with
/// [`into_guard`](Self::into_guard).
///
/// Where several locking layers are around one handler, this is the lock of the innermost. Where that
/// one lets a request pass unlocked, there is none: the lock of a layer outside is not the one that
/// the handler counts on. A handler that asks for it is refused with 500, and with `Option<HeldLock>`
/// gets `None`. So of two layers the one whose lock handlers ask for belongs inside.
///
#[cfg_attr(feature = "axum", doc = "```")]
#[cfg_attr(not(feature = "axum"), doc = "```ignore")]
/// use lock_tower::{HeldLock, LockError};
///
/// async fn process(held: HeldLock) -> Result<String, LockError> {
///     let token = held.fencing_token().await?;
///     // .. send `token` along with each write ..
///     Ok(format!("processed as {token}"))
/// }
/// # let _ = axum::Router::<()>::new().route("/", axum::routing::post(process));
/// ```
#[derive(Clone)]
pub struct HeldLock(SharedGuard);

impl HeldLock {
    /// The name of the lock.
    #[must_use]
    pub fn name(&self) -> &LockName {
        self.0.name()
    }

    /// Whether the lock is still held, and ours.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.0.is_valid()
    }

    /// Completes when the lock is lost, and never after it was released.
    ///
    /// The layer stops the handler then by itself. This is for what the handler has spawned.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by dropping it.
    pub fn lost(&self) -> impl Future<Output = LossReason> + Send + Unpin + use<> {
        self.0.lost()
    }

    /// A token that is cancelled when the lock is lost, for what the handler has spawned; see
    /// [`LockGuard::cancellation_token`]. It is not cancelled when the lock is released with the request.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.0.cancellation_token()
    }

    /// The fencing token of this hold: greater than that of any earlier holder of the same lock, the
    /// same at every call.
    ///
    /// # Errors
    ///
    /// [`Lost`](lock_core::LockErrorKind::Lost) when the lock is not ours any more,
    /// [`Unavailable`](lock_core::LockErrorKind::Unavailable) when the backend did not answer: 500, outcome
    /// unknown, as the answer of a handler, since it may have worked before it asked.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn fencing_token(&self) -> Result<FencingToken, LockError> {
        self.0.fencing_token().await
    }

    /// Takes the guard: the lock is held until the guard is released or dropped, and no longer until
    /// the end of the request. For an upgraded connection, and for work that is answered with 202
    /// and goes on in a task:
    ///
    #[cfg_attr(feature = "axum", doc = "```")]
    #[cfg_attr(not(feature = "axum"), doc = "```ignore")]
    /// use http::StatusCode;
    /// use lock_tower::{HeldLock, LockError};
    ///
    /// async fn rebuild(held: HeldLock) -> Result<StatusCode, LockError> {
    ///     let guard = held.into_guard()?;
    ///     tokio::spawn(async move {
    ///         if let Err(lost) = guard.protect(write_report()).await {
    ///             eprintln!("the report is incomplete: {lost}");
    ///         }
    ///     });
    ///     Ok(StatusCode::ACCEPTED)
    /// }
    /// # async fn write_report() {}
    /// # let _ = axum::Router::<()>::new().route("/", axum::routing::post(rebuild));
    /// ```
    ///
    /// While the handler runs, a loss of the lock stops it all the same, and cuts off a body that is
    /// made after it.
    ///
    /// # Errors
    ///
    /// [`Lost`](lock_core::LockErrorKind::Lost) when the lock was lost or released before,
    /// [`Misconfigured`](lock_core::LockErrorKind::Misconfigured) when the guard was taken already.
    pub fn into_guard(self) -> Result<LockGuard, LockError> {
        // One that is lost stays with the layer, which stops the handler.
        self.0.check()?;
        if let Some(guard) = self.0.take() {
            return Ok(guard);
        }
        // The layer can have released it meanwhile, where this runs in a task.
        self.0.check()?;
        let taken =
            "the guard of this request was taken already; `HeldLock::into_guard` gives it once";
        Err(LockError::misconfigured(taken).with_lock(self.name()))
    }
}

impl fmt::Debug for HeldLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldLock")
            .field("lock", &self.name().label())
            .field("valid", &self.is_valid())
            .finish()
    }
}

#[cfg(feature = "axum")]
mod extract {
    use std::convert::Infallible;

    use axum::extract::{FromRequestParts, OptionalFromRequestParts};
    use http::request::Parts;
    use lock_core::LockError;

    use super::HeldLock;
    use crate::LockRejection;
    use crate::name::Route;

    impl<S: Send + Sync> FromRequestParts<S> for HeldLock {
        type Rejection = LockRejection;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, LockRejection> {
            match parts.extensions.get::<Self>() {
                Some(held) => Ok(held.clone()),
                None => Err(without_a_lock(parts).into()),
            }
        }
    }

    /// Names the route and none of its values: there is a line in the log for each route.
    fn without_a_lock(parts: &Parts) -> LockError {
        let method = &parts.method;
        let route = match Route::of(parts).pattern() {
            Some(pattern) => format!("`{method} {pattern}`"),
            None => format!("a fallback ({method})"),
        };
        LockError::misconfigured(format!(
            "the handler of {route} extracts `HeldLock`, and the innermost layer around it holds no \
             lock for this route; put a `LockLayer` on the route, or an entry for its method and full \
             path into the `RouteLocks`"
        ))
    }

    impl<S: Send + Sync> OptionalFromRequestParts<S> for HeldLock {
        type Rejection = Infallible;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
            Ok(parts.extensions.get::<Self>().cloned())
        }
    }
}

/// The layer's claim to the guard: dropping it releases, unless the handler has taken the guard.
pub(crate) struct Owner(SharedGuard);

impl Owner {
    pub(crate) fn new(guard: LockGuard) -> Self {
        Self(guard.share())
    }

    /// The handler's view.
    pub(crate) fn held(&self) -> HeldLock {
        HeldLock(self.0.clone())
    }

    pub(crate) fn lock(&self) -> &str {
        self.0.name().label()
    }

    /// Whether the handler has taken the guard.
    pub(crate) fn is_taken(&self) -> bool {
        self.0.is_taken()
    }

    /// That the lock is ours now. One that the handler has taken may be released by now: of that
    /// one, [`lost`](Self::lost) alone tells.
    pub(crate) fn check(&self) -> Result<(), LockError> {
        match self.0.check() {
            Err(error) if !self.is_taken() => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn lost(&self) -> lock_core::Lost {
        self.0.lost()
    }

    /// Why the lock is lost, as an error.
    pub(crate) fn lost_error(&self, reason: LossReason) -> LockError {
        LockError::lost(reason.to_string()).with_lock(self.0.name())
    }

    /// Starts the release; `None` when the guard was taken.
    pub(crate) fn settle(self) -> Option<Settle> {
        self.0.take().map(LockGuard::settle)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Owner").field(&self.lock()).finish()
    }
}
