//! The layer for one template.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use lock_core::{LockError, LockName, LockPolicy, LockProvider, LockTemplate};
use tower_layer::Layer;

use crate::name::{Naming, Param, ParamValue};
use crate::rule::{Rule, Rules, Settings};
use crate::{HoldUntil, Lock, LockRejection};

/// Runs each request under the lock that a template names.
///
#[cfg_attr(feature = "axum", doc = "```")]
#[cfg_attr(not(feature = "axum"), doc = "```ignore")]
/// use std::time::Duration;
/// use axum::{Router, routing::post};
/// use lock_core::{LockError, LockProvider};
/// use lock_tower::LockLayer;
///
/// fn routes(locks: LockProvider) -> Result<Router, LockError> {
///     let lock = LockLayer::new(locks, "order:process:<id>")?
///         .wait(Duration::from_secs(5))
///         .max_hold(Duration::from_secs(60));
///     Ok(Router::new().route("/orders/{id}/process", post(process).route_layer(lock)))
/// }
///
/// async fn process() {}
/// # let locks = LockProvider::new(lock_core::memory::MemoryBackend::new());
/// # let _ = routes(locks).unwrap();
/// ```
///
/// # Default
///
/// - the policy [`LockPolicy::user_request`]: waits 5 s, holds for as long as the work takes;
/// - each parameter of the template is a route parameter of the same name;
/// - the lock is held until the work is done ([`HoldUntil::WorkDone`]);
/// - requests other than GET and HEAD run to their end when their client leaves;
/// - refusals are answered as [`LockRejection`] documents.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct LockLayer {
    rule: Arc<Rule>,
    settings: Arc<Settings>,
}

impl LockLayer {
    /// A layer that locks what `template` names: text as `order:process:<id>`, or a
    /// [`LockTemplate`].
    ///
    /// # Errors
    ///
    /// [`InvalidName`](lock_core::LockErrorKind::InvalidName) when the text is no template. Whether a
    /// route has the parameters is not known here: a request to one that has not is refused with 500,
    /// and the log says why.
    pub fn new<T>(locks: LockProvider, template: T) -> Result<Self, LockError>
    where
        T: TryInto<LockTemplate, Error: Into<LockError>>,
    {
        let rule = Rule {
            naming: Naming::new(template)?,
            policy: LockPolicy::user_request(),
        };
        Ok(Self {
            rule: Arc::new(rule),
            settings: Arc::new(Settings::new(locks)),
        })
    }

    fn rule(&mut self) -> &mut Rule {
        Arc::make_mut(&mut self.rule)
    }

    fn settings(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }

    /// How long to wait and to hold.
    pub fn policy(mut self, policy: impl Into<LockPolicy>) -> Self {
        self.rule().policy = policy.into();
        self
    }

    /// How long to wait for the lock; zero tries once.
    pub fn wait(mut self, wait: Duration) -> Self {
        let rule = self.rule();
        rule.policy = rule.policy.wait(wait);
        self
    }

    /// How long to hold the lock at most. Then it counts as lost: the handler is stopped, a body that
    /// is still sent is cut off, and the lock is free for the next.
    pub fn max_hold(mut self, max_hold: Duration) -> Self {
        let rule = self.rule();
        rule.policy = rule.policy.max_hold(max_hold);
        self
    }

    /// Takes the parameter `name` of the template from the head of the request, and not from the
    /// route.
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::LockLayer;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let layer = LockLayer::new(locks, "report:rebuild:<tenant>")?.param("tenant", |parts| {
    ///     parts.headers.get("x-tenant")?.to_str().ok().map(str::to_owned)
    /// });
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// Only take what the layers outside this one have authenticated: who chooses the value chooses
    /// whose lock it is.
    pub fn param<F, V>(mut self, name: &str, read: F) -> Self
    where
        F: Fn(&Parts) -> V + Send + Sync + 'static,
        V: ParamValue,
    {
        self.rule().naming.add_param(Param::new(name, read));
        self
    }

    /// Makes the name of the lock from the head of the request. The template then only says to
    /// clients and in logs what is locked.
    ///
    /// ```
    /// # use lock_core::{LockError, LockName, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::LockLayer;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let layer = LockLayer::new(locks, "order:process:<id>")?.key(|parts| {
    ///     let id = parts.uri.path().rsplit('/').next().unwrap_or_default();
    ///     LockName::new("order", "process", id)
    /// });
    /// # Ok::<(), LockError>(())
    /// ```
    pub fn key<F, N>(mut self, key: F) -> Self
    where
        F: Fn(&Parts) -> N + Send + Sync + 'static,
        N: TryInto<LockName, Error: Into<LockError>>,
    {
        self.rule().naming.set_key(key);
        self
    }

    /// Until when a request holds its lock.
    pub fn hold_until(mut self, hold_until: HoldUntil) -> Self {
        self.settings().hold_until = hold_until;
        self
    }

    /// Stops every handler whose client has left, and not those of GET and HEAD alone.
    ///
    /// The lock is free at once then, also while the last query of the handler still runs on its
    /// server.
    pub fn drop_on_disconnect(mut self) -> Self {
        self.settings().drop_on_disconnect = true;
        self
    }

    /// Answers refused requests in another way.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::{LockLayer, LockRejection};
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let layer = LockLayer::new(locks, "order:process:<id>")?.on_rejection(|rejection| {
    ///     let mut response = rejection.to_response();
    ///     if rejection.error().is_contended() {
    ///         *response.status_mut() = http::StatusCode::LOCKED;
    ///     }
    ///     response
    /// });
    /// # Ok::<(), LockError>(())
    /// ```
    pub fn on_rejection<F>(mut self, answer: F) -> Self
    where
        F: Fn(LockRejection) -> Response<Bytes> + Send + Sync + 'static,
    {
        self.settings().on_rejection = Some(Arc::new(answer));
        self
    }
}

impl<S> Layer<S> for LockLayer {
    type Service = Lock<S>;

    fn layer(&self, inner: S) -> Lock<S> {
        let rules = Rules::One(Arc::clone(&self.rule));
        Lock::new(inner, rules, Arc::clone(&self.settings))
    }
}
