//! A router whose routes are registered together with their locks.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::routing::MethodRouter;
use lock_core::{LockError, LockPolicy, LockTemplate};
use tower_layer::layer_fn;

use super::RouteLocks;
use super::path::RoutePath;
use crate::{Lock, LockLayer};

/// Makes a [`Router`] of locked routes: each path is written once, beside its handlers, its lock and its
/// policy. From [`RouteLocks::router`].
///
/// ```
/// use axum::{Router, routing::{get, post}};
/// use lock_core::{LockError, LockPolicy, LockProvider};
/// use lock_tower::RouteLocks;
///
/// fn router(locks: LockProvider) -> Result<Router, LockError> {
///     let locked = RouteLocks::new(locks)
///         .router()?
///         .route("/orders/{id}/process", post(process), "order:process:<id>", LockPolicy::user_request())?
///         .route("/reports/{id}/rebuild", post(rebuild), "report:rebuild:<id>", LockPolicy::long_operation())?;
///     Ok(locked
///         .into_router()
///         .route("/orders/{id}", get(show))) // not locked
/// }
/// # async fn show() {}
/// # async fn process() {}
/// # async fn rebuild() {}
/// # let locks = LockProvider::new(lock_core::memory::MemoryBackend::new());
/// # let _ = router(locks).unwrap();
/// ```
///
/// The lock is around the handlers of its route and nothing else. So the router can be nested and merged as
/// any other, and a path that a request does not have cannot be written.
#[must_use = "a router does nothing until it is served"]
pub struct LockedRouter<S = ()> {
    locks: RouteLocks,
    router: Router<S>,
}

impl RouteLocks {
    /// Begins a router of locked routes, with the settings and the [`param`](Self::param)s of this table.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](lock_core::LockErrorKind::Misconfigured) when the table has entries: those are for
    /// routes that others register, and would lock none of this router.
    pub fn router<S>(self) -> Result<LockedRouter<S>, LockError>
    where
        S: Clone + Send + Sync + 'static,
    {
        match self.table.path() {
            Some(path) => Err(LockError::misconfigured(format!(
                "a router is begun with `RouteLocks` that have entries of their own, as for `{path}`; add that \
                 route to the router, or use another `RouteLocks` for it"
            ))),
            None => Ok(LockedRouter {
                locks: self,
                router: Router::new(),
            }),
        }
    }
}

impl<S> LockedRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    /// Adds a route whose methods run under the lock that the template names; see [`Router::route`].
    ///
    /// A request with a method that `handlers` do not name is answered as without a lock, and does not wait
    /// for it: with 405, or by a [fallback](MethodRouter::fallback). What takes any method, such as
    /// [`axum::routing::any`], belongs into [`any`](Self::any).
    ///
    /// # Errors
    ///
    /// [`InvalidName`](lock_core::LockErrorKind::InvalidName) when the template is not valid;
    /// [`Misconfigured`](lock_core::LockErrorKind::Misconfigured) when the path is not a valid route path, and
    /// when it lacks a parameter that the template names (and that no [`RouteLocks::param`] gives).
    ///
    /// # Panics
    ///
    /// As [`Router::route`], where the path overlaps with that of another route, and as
    /// [`MethodRouter::route_layer`], where `handlers` name no method.
    pub fn route<T>(
        mut self,
        path: &str,
        handlers: MethodRouter<S, Infallible>,
        template: T,
        policy: impl Into<LockPolicy>,
    ) -> Result<Self, LockError>
    where
        T: TryInto<LockTemplate, Error: Into<LockError>>,
    {
        let lock = self.lock(path, template, policy)?;
        Ok(self.add(path, handlers.route_layer(lock)))
    }

    /// Adds a route, all of whose requests run under the lock that the template names, whatever their method:
    /// OPTIONS as well, for which a CORS layer belongs outside of the router, and a method that is answered
    /// with 405.
    ///
    /// ```
    /// # use axum::{Router, http::Method, routing::any};
    /// # use lock_core::{LockError, LockPolicy, LockProvider};
    /// # use lock_tower::RouteLocks;
    /// fn router(locks: LockProvider) -> Result<Router, LockError> {
    ///     let locked = RouteLocks::new(locks)
    ///         .router()?
    ///         .any("/files/{path}", any(proxy), "file:change:<path>", LockPolicy::user_request())?;
    ///     Ok(locked.into_router())
    /// }
    /// # async fn proxy(_: Method) {}
    /// # let locks = LockProvider::new(lock_core::memory::MemoryBackend::new());
    /// # let _ = router(locks).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`route`](Self::route).
    ///
    /// # Panics
    ///
    /// As [`Router::route`], where the path overlaps with that of another route.
    pub fn any<T>(
        mut self,
        path: &str,
        handlers: MethodRouter<S, Infallible>,
        template: T,
        policy: impl Into<LockPolicy>,
    ) -> Result<Self, LockError>
    where
        T: TryInto<LockTemplate, Error: Into<LockError>>,
    {
        let lock = self.lock(path, template, policy)?;
        Ok(self.add(path, handlers.layer(lock)))
    }

    /// The lock of a route.
    fn lock<T>(
        &mut self,
        path: &str,
        template: T,
        policy: impl Into<LockPolicy>,
    ) -> Result<LockLayer, LockError>
    where
        T: TryInto<LockTemplate, Error: Into<LockError>>,
    {
        let known = RoutePath::parse(path)?;
        let rule = self.locks.rule(None, &known, template, policy.into())?;
        Ok(LockLayer::of(rule, Arc::clone(&self.locks.settings)))
    }

    fn add(mut self, path: &str, handlers: MethodRouter<S, Infallible>) -> Self {
        self.router = self.router.route(path, handlers);
        self
    }

    /// The router, for routes without locks, state, layers, and to be served.
    ///
    /// Where a [`RouteLocks::param`] is for none of its routes, they are all refused with 500, and the log says
    /// why: a misspelt name must not make another lock.
    pub fn into_router(self) -> Router<S> {
        let Self { locks, router } = self;
        if locks.table.params.mistake().is_none() || !router.has_routes() {
            return router;
        }
        let RouteLocks { table, settings } = locks;
        let rules = Arc::new(table.params.clone());
        let refuse = layer_fn(move |inner| {
            let rules = Arc::clone(&rules);
            Lock::new(inner, rules, Arc::clone(&settings))
        });
        router.route_layer(refuse)
    }
}

impl<S> From<LockedRouter<S>> for Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    fn from(locked: LockedRouter<S>) -> Self {
        locked.into_router()
    }
}

impl<S> fmt::Debug for LockedRouter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { locks, router } = self;
        f.debug_struct("LockedRouter")
            .field("settings", &locks.settings)
            .field("router", router)
            .finish()
    }
}
