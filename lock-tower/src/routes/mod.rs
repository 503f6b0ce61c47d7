//! Locks for the routes of a whole router, in one table.

mod params;
mod path;
mod router;
mod table;

use std::error::Error;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Body;
use lock_core::{LockError, LockErrorKind, LockPolicy, LockProvider, LockTemplate};
use tower_layer::Layer;

use crate::name::{Naming, Param, ParamValue, listed};
use crate::rule::{Rule, Settings};
use crate::{HoldUntil, Lock, LockRejection, ReplayedBody};
use path::RoutePath;
pub use router::LockedRouter;
use table::Table;

/// Locks for the routes of a router, each with a policy of its own.
///
/// ```
/// use axum::{Router, routing::{get, post}};
/// use http::Method;
/// use lock_core::{LockError, LockPolicy, LockProvider};
/// use lock_tower::RouteLocks;
///
/// fn router(locks: LockProvider) -> Result<Router, LockError> {
///     let locks = RouteLocks::new(locks)
///         .route(Method::POST, "/orders/{id}/process", "order:process:<id>", LockPolicy::user_request())?
///         .route(Method::POST, "/reports/{id}/rebuild", "report:rebuild:<id>", LockPolicy::long_operation())?;
///     Ok(Router::new()
///         .route("/orders/{id}", get(show))
///         .route("/orders/{id}/process", post(process))
///         .route("/reports/{id}/rebuild", post(rebuild))
///         .route_layer(locks))
/// }
/// # async fn show() {}
/// # async fn process() {}
/// # async fn rebuild() {}
/// # let locks = LockProvider::new(lock_core::memory::MemoryBackend::new());
/// # let _ = router(locks).unwrap();
/// ```
///
/// Where the routes are not registered yet, [`router`](Self::router) registers them with their locks, and no
/// path is written twice.
///
/// A parameter of a route is locked as text, where `7` and `07` are two locks, unless
/// [`param_as`](Self::param_as) gives the type that the handlers have.
///
/// Where several requests may hold a lock at a time, the template says how many:
///
/// ```
/// # use http::Method;
/// # use lock_core::{LockError, LockPolicy, LockProvider, LockTemplate, memory::MemoryBackend};
/// # use lock_tower::RouteLocks;
/// # let locks = LockProvider::new(MemoryBackend::new());
/// let exports = LockTemplate::parse("export:run:<tenant>")?.permits(5);
/// let locks = RouteLocks::new(locks)
///     .route(Method::POST, "/tenants/{tenant}/export", exports, LockPolicy::user_request())?;
/// # Ok::<(), LockError>(())
/// ```
///
/// So it does where requests are readers, that hold their lock together: entries of one name with and without
/// [`shared`](LockTemplate::shared).
///
/// ```
/// # use http::Method;
/// # use lock_core::{LockError, LockPolicy, LockProvider, LockTemplate, memory::MemoryBackend};
/// # use lock_tower::RouteLocks;
/// # let locks = LockProvider::new(MemoryBackend::new());
/// let catalog = LockTemplate::parse("catalog:read:<id>")?;
/// let locks = RouteLocks::new(locks)
///     .route(Method::GET, "/catalogs/{id}", catalog.clone().shared(), LockPolicy::user_request())?
///     .route(Method::POST, "/catalogs/{id}/import", catalog, LockPolicy::user_request())?;
/// # Ok::<(), LockError>(())
/// ```
///
/// Settings are for all entries, and [`param`](Self::param)s for all that name them, before the call and after
/// it. A second `param` of the same name is for the entries after it.
///
/// # Paths
///
/// An entry names its route by the full path, as the router matches it and as
/// [`MatchedPath`](axum::extract::MatchedPath) gives it: under `nest("/api", ..)` that is
/// `/api/orders/{id}/process`. An entry for GET covers HEAD.
///
/// A request that no entry is for is not locked. So a wrong path in the table must not look like
/// that: a request whose path ends in the shape of an entry for its method, and matches none, is
/// refused with 500, and the log says which path is meant. That its route has an entry for another
/// method changes nothing about it. The shape of `/orders/{id}/process` is
/// that of `/api/orders/7/process`; a route that names a part literally (`/orders/bulk/process`) has
/// another one. A route of that shape which is meant to go without a lock is declared by
/// [`unlocked`](Self::unlocked), for each of its methods. Entries for one route name its parameters
/// alike: `/orders/{id}` beside `/orders/{order}` is refused.
///
/// An entry that names no route at all, by a misspelt path, locks nothing and cannot be told from a
/// route to come: ask for [`HeldLock`](crate::HeldLock) in the handler, which is refused with 500
/// where no lock is held.
///
/// Put the table on routes, with `route_layer`: around a whole router, where no route has matched
/// yet, each request that has the shape of an entry is refused.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct RouteLocks {
    table: Arc<Table>,
    settings: Arc<Settings>,
}

impl RouteLocks {
    /// An empty table.
    pub fn new(locks: LockProvider) -> Self {
        Self {
            table: Arc::default(),
            settings: Arc::new(Settings::new(locks)),
        }
    }

    /// Locks the requests with this method to this route.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](lock_core::LockErrorKind::InvalidName) when the template is not valid;
    /// [`Misconfigured`](lock_core::LockErrorKind::Misconfigured) when there cannot be so many permits or such a
    /// policy, or neither for [readers](LockTemplate::shared), when the path is not a valid route path, when it lacks a parameter that the template names (and that no
    /// [`param`](Self::param) before this gives), and when the route has an entry already.
    pub fn route<T>(
        mut self,
        method: Method,
        path: &str,
        template: T,
        policy: impl Into<LockPolicy>,
    ) -> Result<Self, LockError>
    where
        T: TryInto<LockTemplate, Error: Into<LockError>>,
    {
        let path = RoutePath::parse(path)?;
        let rule = self.rule(Some(&method), &path, template, policy.into())?;
        self.table().add(method, path, Some(rule))?;
        Ok(self)
    }

    /// Locks the requests to this route whatever their method, those apart that have an entry of their
    /// own. For handlers that take any method (`axum::routing::any`): an entry for one method lets
    /// the others pass, and their requests run without a lock.
    ///
    /// It locks OPTIONS as well: a CORS layer belongs outside the lock, or
    /// `.unlocked(Method::OPTIONS, ..)` goes with it.
    ///
    /// # Errors
    ///
    /// As [`route`](Self::route).
    pub fn any<T>(
        mut self,
        path: &str,
        template: T,
        policy: impl Into<LockPolicy>,
    ) -> Result<Self, LockError>
    where
        T: TryInto<LockTemplate, Error: Into<LockError>>,
    {
        let path = RoutePath::parse(path)?;
        let rule = self.rule(None, &path, template, policy.into())?;
        self.table().add_any(path, rule)?;
        Ok(self)
    }

    fn table(&mut self) -> &mut Table {
        Arc::make_mut(&mut self.table)
    }

    fn rule<T>(
        &mut self,
        method: Option<&Method>,
        path: &RoutePath,
        template: T,
        policy: LockPolicy,
    ) -> Result<Rule, LockError>
    where
        T: TryInto<LockTemplate, Error: Into<LockError>>,
    {
        let mut naming = Naming::new(template)?;
        policy.check()?;
        if naming.template().is_shared() && policy.at_least().is_some() {
            return Err(LockError::misconfigured(format!(
                "the template `{}` is `shared`, and its policy has `at_least`: a reader closes the lock to no other \
                 reader; take one of the two off",
                naming.template()
            )));
        }
        self.table().params.take(&mut naming);
        if let Some(missing) = naming.route_params().find(|name| !path.has_param(name)) {
            let method = method
                .map(|method| format!("{method} "))
                .unwrap_or_default();
            return Err(LockError::misconfigured(format!(
                "the template `{}` names `{missing}`, and the route `{method}{path}` has {}; name \
                 the parameter as the route does, or give it with `.param(..)` before this entry",
                naming.template(),
                listed(path.params()),
            )));
        }
        Ok(Rule {
            naming,
            policy,
            methods: Vec::new(),
        })
    }

    /// Declares that requests with this method to this route are not locked, though their path ends
    /// in the shape of an entry.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](lock_core::LockErrorKind::Misconfigured) when the path is not a valid
    /// route path, or when the route has an entry already.
    pub fn unlocked(mut self, method: Method, path: &str) -> Result<Self, LockError> {
        let path = RoutePath::parse(path)?;
        self.table().add(method, path, None)?;
        Ok(self)
    }

    /// Takes the parameter `name` from the head of the request, and not from the route, for those
    /// entries whose template names it; as [`LockLayer::param`](crate::LockLayer::param).
    ///
    /// The entries can come before it or after it; where the route does not have the parameter, after it. A
    /// second one of the same name, or a [`param_as`](Self::param_as), is for the entries after it, and those
    /// before keep the first. One that no entry takes is a mistake, by its spelling or its place: requests to the
    /// entries are refused with 500, and the log says why.
    pub fn param<F, V>(mut self, name: &str, read: F) -> Self
    where
        F: Fn(&Parts) -> V + Send + Sync + 'static,
        V: ParamValue,
    {
        self.table().give(Param::new(name, read));
        self
    }

    /// Locks the value of the route parameter `name`, and not its text, for those entries whose template
    /// names it; as [`LockLayer::param_as`](crate::LockLayer::param_as).
    ///
    /// ```
    /// # use http::Method;
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::RouteLocks;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let path = "/orders/{id}/process"; // `/orders/07/process` is order 7
    /// let locks = RouteLocks::new(locks)
    ///     .param_as::<u64>("id")
    ///     .route(Method::POST, path, "order:process:<id>", LockPolicy::user_request())?;
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// For which entries: as [`param`](Self::param). Two types for one name, each before its entries:
    ///
    /// ```
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::RouteLocks;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let locks = RouteLocks::new(locks)
    ///     .param_as::<u64>("id")
    ///     .any("/orders/{id}", "order:change:<id>", LockPolicy::user_request())?
    ///     .param_as::<i32>("id")
    ///     .any("/places/{id}", "place:change:<id>", LockPolicy::user_request())?;
    /// # Ok::<(), LockError>(())
    /// ```
    pub fn param_as<T: FromStr + Display>(mut self, name: &str) -> Self {
        self.table().give(Param::typed::<T>(name));
        self
    }

    fn settings(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }

    /// Until when a request holds its lock, for all entries.
    pub fn hold_until(mut self, hold_until: HoldUntil) -> Self {
        self.settings().hold_until = hold_until;
        self
    }

    /// Stops every handler whose client has left, and not those of GET and HEAD alone; as
    /// [`LockLayer::drop_on_disconnect`](crate::LockLayer::drop_on_disconnect).
    pub fn drop_on_disconnect(mut self) -> Self {
        self.settings().drop_on_disconnect = true;
        self
    }

    /// How much of the body of a request to read while it waits, in bytes; as
    /// [`LockLayer::read_ahead`](crate::LockLayer::read_ahead).
    pub fn read_ahead(mut self, bytes: usize) -> Self {
        self.settings().uploads.read_ahead = bytes;
        self
    }

    /// Makes known how a body of type `B` is rebuilt; as
    /// [`LockLayer::rebuild_body`](crate::LockLayer::rebuild_body).
    pub fn rebuild_body<B, F>(mut self, rebuild: F) -> Self
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
        F: Fn(ReplayedBody<B>) -> B + Send + Sync + 'static,
    {
        self.settings().uploads.add(rebuild);
        self
    }

    /// Answers requests of gRPC with a status of gRPC; as
    /// [`LockLayer::grpc`](crate::LockLayer::grpc). A method of gRPC is a route as others are:
    /// `Method::POST`, `/orders.Orders/Process`.
    pub fn grpc(mut self) -> Self {
        self.settings().grpc = true;
        self
    }

    /// Tells clients that are refused a lock which instance holds it; as
    /// [`LockLayer::name_holder`](crate::LockLayer::name_holder).
    pub fn name_holder(mut self) -> Self {
        self.settings().names_holder = true;
        self
    }

    /// Answers refusals of this kind with another status; as
    /// [`LockLayer::status`](crate::LockLayer::status).
    pub fn status(mut self, kind: LockErrorKind, status: StatusCode) -> Self {
        self.settings().statuses.push((kind, status));
        self
    }

    /// Answers refused requests in another way; as
    /// [`LockLayer::on_rejection`](crate::LockLayer::on_rejection).
    pub fn on_rejection<F>(mut self, answer: F) -> Self
    where
        F: Fn(LockRejection) -> Response<Bytes> + Send + Sync + 'static,
    {
        self.settings().on_rejection = Some(Arc::new(answer));
        self
    }
}

impl<S> Layer<S> for RouteLocks {
    type Service = Lock<S>;

    fn layer(&self, inner: S) -> Lock<S> {
        let table = Arc::clone(&self.table);
        Lock::new(inner, table, Arc::clone(&self.settings))
    }
}
