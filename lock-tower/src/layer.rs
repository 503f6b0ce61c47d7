//! The layer for one template.

use std::error::Error;
#[cfg(feature = "axum")]
use std::fmt;
#[cfg(feature = "axum")]
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Body;
use lock_core::{LockError, LockErrorKind, LockName, LockPolicy, LockProvider, LockTemplate};
use tower_layer::Layer;

use crate::name::{Naming, Param, ParamValue};
use crate::rule::{Rule, Settings};
use crate::{HoldUntil, Lock, LockRejection, ReplayedBody};

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
/// - each parameter of the template is a route parameter of the same name, percent-decoded, as text: `7`
///   and `07` are two locks, unless [`param_as`](Self::param_as) gives the type;
/// - the lock is held until the work is done ([`HoldUntil::WorkDone`]);
/// - requests other than GET and HEAD run to their end when their client leaves;
/// - refusals are answered as [`LockRejection`] documents.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct LockLayer {
    rule: Arc<Rule>,
    settings: Arc<Settings>,
    /// What was chosen beside a policy, whichever of the two was first.
    wait: Option<Duration>,
    max_hold: Option<Duration>,
    at_least: Option<Duration>,
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
            methods: Vec::new(),
        };
        Ok(Self {
            rule: Arc::new(rule),
            settings: Arc::new(Settings::new(locks)),
            wait: None,
            max_hold: None,
            at_least: None,
        })
    }

    #[cfg(feature = "axum")]
    pub(crate) fn of(rule: Rule, settings: Arc<Settings>) -> Self {
        Self {
            rule: Arc::new(rule),
            settings,
            wait: None,
            max_hold: None,
            at_least: None,
        }
    }

    fn rule(&mut self) -> &mut Rule {
        Arc::make_mut(&mut self.rule)
    }

    fn settings(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }

    /// How long to wait, to hold and to keep. What [`wait`](Self::wait), [`max_hold`](Self::max_hold) and
    /// [`at_least`](Self::at_least) say counts more, whether they are called before or after.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use lock_core::{LockError, LockPolicy, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::LockLayer;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let policy = LockPolicy::user_request().with_max_hold(Duration::from_secs(60));
    /// let layer = LockLayer::new(locks, "order:process:<id>")?.policy(policy);
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// # Default
    ///
    /// [`LockPolicy::user_request`].
    pub fn policy(mut self, policy: impl Into<LockPolicy>) -> Self {
        self.rule().policy = policy.into();
        self.bounded()
    }

    /// With what was chosen beside the policy.
    fn bounded(mut self) -> Self {
        let (wait, max_hold, at_least) = (self.wait, self.max_hold, self.at_least);
        let policy = &mut self.rule().policy;
        *policy = wait.map_or(*policy, |wait| policy.with_wait(wait));
        *policy = max_hold.map_or(*policy, |max_hold| policy.with_max_hold(max_hold));
        *policy = at_least.map_or(*policy, |at_least| policy.with_at_least(at_least));
        self
    }

    /// How long to wait for the lock; zero tries once.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self.bounded()
    }

    /// How long to hold the lock at most. Then it counts as lost: the handler is stopped, a body that
    /// is still sent is cut off, and the lock is free for the next.
    pub fn max_hold(mut self, max_hold: Duration) -> Self {
        self.max_hold = Some(max_hold);
        self.bounded()
    }

    /// How long the lock is kept at least, counted from when it was acquired, also after the response; see
    /// [`LockPolicy::with_at_least`].
    ///
    /// With more than [`max_hold`](Self::max_hold), or than a week, each request is refused with 500, and the log
    /// says why. A table has its policies checked when they are given.
    pub fn at_least(mut self, at_least: Duration) -> Self {
        self.at_least = Some(at_least);
        self.bounded()
    }

    /// Lets so many requests hold the lock at a time, in all processes together; see
    /// [`DistributedLock::permits`](lock_core::DistributedLock::permits).
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::LockLayer;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// // Five exports of a tenant, whichever instances they are sent to.
    /// let layer = LockLayer::new(locks, "export:run:<tenant>")?.permits(5);
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// With 0, or more than 256, each request is refused with 500, and the log says why. From a template
    /// ([`LockTemplate::permits`]) such a number is an error of [`new`](Self::new).
    pub fn permits(mut self, number: usize) -> Self {
        self.rule().naming.set_permits(number);
        self
    }

    /// Lets any number of requests hold the lock together, in all processes, and none while a holder without
    /// `shared` has it; see [`DistributedLock::shared`](lock_core::DistributedLock::shared).
    ///
    /// ```
    /// # use axum::{Router, routing::{get, post}};
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::LockLayer;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let read = LockLayer::new(locks.clone(), "catalog:read:<id>")?.shared();
    /// let import = LockLayer::new(locks, "catalog:read:<id>")?;
    /// let app: Router = Router::new()
    ///     .route("/catalogs/{id}", get(async || "prices").route_layer(read))
    ///     .route("/catalogs/{id}/import", post(async || "imported").route_layer(import));
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// A request that meets a writer, or a writer that waits, waits as any request for its lock, and is answered 409
    /// when the wait is over. The answer to a GET holds the lock until its body is sent, as every answer does
    /// ([`hold_until`](Self::hold_until)): a client that reads slowly keeps writers waiting for so long;
    /// [`max_hold`](Self::max_hold) bounds it.
    ///
    /// Together with [`permits`](Self::permits) or [`at_least`](Self::at_least), or over a backend that has no
    /// readers, each request is refused with 500, and the log says why. A template that has both
    /// ([`LockTemplate::shared`], [`LockTemplate::permits`]) is an error of [`new`](Self::new).
    pub fn shared(mut self) -> Self {
        self.rule().naming.set_shared();
        self
    }

    /// Locks requests with this method, and with those of further calls, and lets all others pass
    /// unlocked. GET covers HEAD.
    ///
    /// ```
    /// # use http::Method;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::LockLayer;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let layer = LockLayer::new(locks, "order:process:<id>")?
    ///     .method(Method::POST)
    ///     .method(Method::PUT);
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// For what a service answers without work of its own: a CORS layer inside the lock answers
    /// OPTIONS. A handler that takes any method (`axum::routing::any`) runs without a lock for the
    /// others.
    ///
    /// # Default
    ///
    /// All methods, OPTIONS too: no client chooses a method that is not locked.
    pub fn method(mut self, method: Method) -> Self {
        self.rule().methods.push(method);
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

    /// Locks the value of the route parameter `name`, and not its text: it is parsed as `T`, and printed.
    ///
    /// A route parameter is text for the lock unless this is called. A handler that takes it as
    /// `Path<u64>` works on one order for `/orders/7`, `/orders/07` and `/orders/+7`, and these are three
    /// locks; so are the spellings of a UUID. So give the lock the type that the handler has.
    ///
    /// ```
    /// # use axum::{Router, extract::Path, routing::post};
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::LockLayer;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// async fn process(Path(id): Path<u64>) {}
    ///
    /// let layer = LockLayer::new(locks, "order:process:<id>")?.param_as::<u64>("id");
    /// let app: Router = Router::new().route("/orders/{id}/process", post(process).route_layer(layer));
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// What does not parse is answered 400, as the extractor of the handler would: it has no value
    /// that could be locked, and its text would be another lock.
    #[cfg(feature = "axum")]
    pub fn param_as<T: FromStr + fmt::Display>(mut self, name: &str) -> Self {
        self.rule().naming.add_param(Param::typed::<T>(name));
        self
    }

    /// Makes the name of the lock from the head of the request. The template then only says to
    /// clients and in logs what is locked; a [`param`](Self::param) beside it would say nothing, and requests
    /// are refused with 500.
    ///
    /// ```
    /// # use lock_core::{LockError, LockName, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::LockLayer;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let layer = LockLayer::new(locks, "order:process:<id>")?.key(|parts| {
    ///     // One order, however the path spells its number.
    ///     let id: Option<u64> = parts.uri.path().rsplit('/').next().and_then(|id| id.parse().ok());
    ///     let id = id.ok_or_else(|| LockError::invalid_name("the path does not end in a number"))?;
    ///     LockName::new("order", "process", id)
    /// });
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// The path is as the client sent it, percent-encoded: decode what is text, or one resource is as
    /// many locks as it has spellings (`/a`, `/%61`).
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
    /// The lock is then free immediately, also while the last query of the handler still runs on its
    /// server.
    pub fn drop_on_disconnect(mut self) -> Self {
        self.settings().drop_on_disconnect = true;
        self
    }

    /// How much of the body of a request to read while the request waits for its lock, in bytes of
    /// memory for each request that waits; 0 reads nothing.
    ///
    /// A server of HTTP/1.1 reads no further than the body that it is asked for. It notices that a
    /// client has left only once the body was read to its end, or where it breaks off. So a request
    /// that waits has its body read ahead; the handler gets it whole, and a body that breaks off
    /// gives up the place in line. Of a body that takes more, the end is not seen: such a client
    /// keeps its place, and its handler runs and finds the body broken. So does one that has sent
    /// another request behind this one (pipelining).
    ///
    /// - A little for each frame counts too, and the last frame may exceed the bound.
    /// - Nothing is read when the lock is free, nor of requests of HTTP/2, where the server knows
    ///   of each stream that was reset.
    /// - Reading makes the server send `100 Continue` to a client that expects it: once a request
    ///   waits, and not when it is answered without a wait. Clients begin to send without it as well,
    ///   curl after a second. With 0, such a request is answered 100 only by its handler, and one
    ///   that has left keeps its place.
    /// - Known are bodies of type `axum::body::Body` (feature `axum`); see
    ///   [`rebuild_body`](Self::rebuild_body) for others.
    ///
    /// # Default
    ///
    /// 128 KiB.
    pub fn read_ahead(mut self, bytes: usize) -> Self {
        self.settings().uploads.read_ahead = bytes;
        self
    }

    /// Makes known how a body that was read in part becomes one of type `B` again, so that requests
    /// with such bodies can be [read ahead](Self::read_ahead) while they wait, and read to their end
    /// when they are refused. For axum's own type it is known; bodies of other types are left alone.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use http_body_util::combinators::UnsyncBoxBody;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::LockLayer;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// type Body = UnsyncBoxBody<Bytes, std::io::Error>;
    ///
    /// let layer = LockLayer::new(locks, "file:import:<path>")?.rebuild_body::<Body, _>(Body::new);
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// A body that a server makes, as `hyper::body::Incoming`, cannot be rebuilt: map it to a boxed
    /// one outside the lock.
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

    /// Answers requests of gRPC with a status of gRPC, which is all that its clients look at: of a 409
    /// they make `UNKNOWN`. Requests whose `content-type` is not `application/grpc` are answered as
    /// without this.
    ///
    /// The answer is HTTP 200 with `grpc-status` and `grpc-message` and no body:
    ///
    /// - contended: `ABORTED`; the backend is down: `UNAVAILABLE`. Nothing was done, and
    ///   `grpc-retry-pushback-ms` says when to try again.
    /// - no name can be made: `INVALID_ARGUMENT`. A mistake of the set-up: `INTERNAL`.
    /// - lost while the method ran: `INTERNAL`, and not `ABORTED`, since the outcome is unknown. A
    ///   response that is still sent ends with these trailers in the place of its own.
    ///
    /// Where trying again is of no use, `grpc-retry-pushback-ms` is -1, which stops clients that retry
    /// by a policy. `distributed-lock-reason` has the `reason` that problems have.
    ///
    /// The lock is held to the end of the response's stream, its trailers included: a client that has
    /// seen the status does not meet its own lock. The messages of the request are read under the
    /// lock. So name the lock by metadata:
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::LockLayer;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let layer = LockLayer::new(locks, "order:process:<id>")?
    ///     .param("id", |parts| parts.headers.get("order-id")?.to_str().ok().map(str::to_owned))
    ///     .grpc();
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// A lock whose name is in a message is for the method itself: see
    /// [`LockRejection::grpc_code`]. A deadline of the client (`grpc-timeout`) bounds the wait where a
    /// layer outside keeps it, as tonic's server does: its client sees `DEADLINE_EXCEEDED` or
    /// `CANCELLED` then.
    pub fn grpc(mut self) -> Self {
        self.settings().grpc = true;
        self
    }

    /// Tells clients that are refused a lock which instance holds it: in the member `holder` of the answer, to
    /// those of gRPC in `distributed-lock-holder`. For clients within the house: an
    /// [instance](lock_core::Holder::instance) is the name or the address of a machine of yours.
    ///
    /// It is asked for once the lock was refused, and the answer waits for that, for one response timeout of
    /// the provider at most; where it is not known, or the lock is free by then, the answer is as without this.
    /// Of the holders of a lock with [permits](Self::permits) it is any. Where the lock was released already and is
    /// [kept](lock_core::Holder::until), `Retry-After` is not before it opens, with permits its first slot.
    ///
    /// ```
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::LockLayer;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let layer = LockLayer::new(locks, "report:rebuild:<id>")?.name_holder();
    /// # Ok::<(), LockError>(())
    /// ```
    ///
    /// # Default
    ///
    /// No answer names a holder, and none is asked for.
    pub fn name_holder(mut self) -> Self {
        self.settings().names_holder = true;
        self
    }

    /// Answers refusals of this kind with another status; all else of the answer stays. The last call for a
    /// kind counts. Answers of gRPC are as they were, and so are errors that the handler returns.
    ///
    /// ```
    /// # use http::StatusCode;
    /// # use lock_core::{LockError, LockErrorKind, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::LockLayer;
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let layer = LockLayer::new(locks, "order:process:<id>")?
    ///     .status(LockErrorKind::Contended, StatusCode::LOCKED);
    /// # Ok::<(), LockError>(())
    /// ```
    pub fn status(mut self, kind: LockErrorKind, status: StatusCode) -> Self {
        self.settings().statuses.push((kind, status));
        self
    }

    /// Answers refused requests in another way.
    ///
    /// Layers outside know that the handler has not answered by an extension of the response, the
    /// [`LockErrorKind`], which it has whatever its status is.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
    /// # use lock_tower::{LockLayer, LockRejection};
    /// # let locks = LockProvider::new(MemoryBackend::new());
    /// let layer = LockLayer::new(locks, "order:process:<id>")?.on_rejection(|rejection| {
    ///     let mut response = rejection.to_response();
    ///     if rejection.error().is_contended() {
    ///         *response.body_mut() = Bytes::from_static(b"try again later");
    ///         response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
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
        let rule = Arc::clone(&self.rule);
        Lock::new(inner, rule, Arc::clone(&self.settings))
    }
}
