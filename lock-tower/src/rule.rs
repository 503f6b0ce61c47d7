//! What a layer knows: how requests are locked, and what is the same for all of its routes.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use lock_core::answer::Mistakes;
use lock_core::{LockError, LockErrorKind, LockPolicy, LockProvider};

use crate::name::{Naming, Route};
use crate::refusal::Refusal;
use crate::rejection::{Asked, body_problem};
use crate::upload::{Upload, Uploads};
use crate::{HoldUntil, LockRejection};

type OnRejection = dyn Fn(LockRejection) -> Response<Bytes> + Send + Sync;

/// What is locked, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) naming: Naming,
    pub(crate) policy: LockPolicy,
    /// Those that a layer is for; none: for all. Tables know by themselves.
    pub(crate) methods: Vec<Method>,
}

impl Rule {
    fn is_for(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|known| covers(known, method))
    }
}

/// Whether a lock for one method is for requests of the other.
pub(crate) fn covers(entry: &Method, request: &Method) -> bool {
    entry == request || (*entry == Method::GET && *request == Method::HEAD)
}

/// What is the same for all routes of a layer.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) locks: LockProvider,
    pub(crate) hold_until: HoldUntil,
    pub(crate) drop_on_disconnect: bool,
    pub(crate) grpc: bool,
    /// Whether who holds a lock is asked for, and named to who is refused it.
    pub(crate) names_holder: bool,
    /// Statuses that were chosen in the place of those of the table.
    pub(crate) statuses: Vec<(LockErrorKind, StatusCode)>,
    pub(crate) on_rejection: Option<Arc<OnRejection>>,
    pub(crate) uploads: Uploads,
    mistakes: Arc<Mistakes>,
}

impl Settings {
    pub(crate) fn new(locks: LockProvider) -> Self {
        Self {
            locks,
            hold_until: HoldUntil::default(),
            drop_on_disconnect: false,
            grpc: false,
            names_holder: false,
            statuses: Vec::new(),
            on_rejection: None,
            uploads: Uploads::new(),
            mistakes: Arc::default(),
        }
    }

    /// Whether a handler runs to its end when its client has left.
    pub(crate) fn outlives_client(&self, method: &Method) -> bool {
        !self.drop_on_disconnect && !matches!(*method, Method::GET | Method::HEAD)
    }

    /// The answer to a request that got no lock.
    pub(crate) fn refuse<B: 'static>(
        &self,
        error: LockError,
        asked: Asked,
        parts: &Parts,
        body: Upload<B>,
    ) -> Refusal {
        Refusal::new(self.reject(error, asked), parts, body, &self.uploads)
    }

    /// The answer to a request whose body failed while it waited for its lock. As a
    /// rule its client has left.
    pub(crate) fn reject_body(
        &self,
        broken: &(dyn Error + 'static),
        asked: &Asked,
    ) -> Response<Bytes> {
        let lock = asked.template.as_ref().map(lock_core::LockTemplate::as_str);
        tracing::debug!(lock, %broken, "a request gave up its place: its body failed");
        body_problem(broken)
    }

    /// The answer to a request that did not have its lock to the end.
    pub(crate) fn reject(&self, error: LockError, asked: Asked) -> Response<Bytes> {
        let lock = asked.template.as_ref().map(lock_core::LockTemplate::as_str);
        if error.is_misconfigured() {
            self.mistakes.log(&error);
        } else {
            tracing::debug!(lock, %error, "a request was refused");
        }
        let chosen = self.statuses.iter().rev();
        let mut chosen = chosen.filter(|(kind, _)| *kind == error.kind());
        let status = chosen.next().map(|(_, status)| *status);
        let rejection = LockRejection::new(error, asked).with_status(status);
        let kind = rejection.kind();
        let mut response = match &self.on_rejection {
            Some(answer) => answer(rejection),
            None => rejection.to_response(),
        };
        // By this a layer outside knows that the handler has not answered, whatever the answer is.
        response.extensions_mut().insert(kind);
        response
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("locks", &self.locks)
            .field("hold_until", &self.hold_until)
            .field("drop_on_disconnect", &self.drop_on_disconnect)
            .field("grpc", &self.grpc)
            .field("names_holder", &self.names_holder)
            .field("statuses", &self.statuses)
            .field("on_rejection", &self.on_rejection.is_some())
            .field("uploads", &self.uploads)
            .finish()
    }
}

/// What the rules say about a request.
#[derive(Debug)]
pub(crate) enum Choice<'a> {
    Lock(&'a Rule),
    /// Not locked, on purpose.
    Pass,
    #[cfg_attr(
        not(feature = "axum"),
        expect(dead_code, reason = "only tables can miss")
    )]
    Mistake(LockError),
}

/// The rules that a service looks into.
pub(crate) trait Rules: fmt::Debug + Send + Sync {
    /// What they say about this request.
    fn choose(&self, parts: &Parts) -> Choice<'_>;
}

impl Rules for Rule {
    fn choose(&self, parts: &Parts) -> Choice<'_> {
        if self.is_for(&parts.method) {
            Choice::Lock(self)
        } else {
            Choice::Pass
        }
    }
}

impl Asked {
    pub(crate) fn new(parts: &Parts, rule: Option<&Rule>, settings: &Settings) -> Self {
        Self {
            is_grpc: settings.grpc && is_grpc(parts),
            method: parts.method.clone(),
            version: parts.version,
            uri: Route::uri(parts).clone(),
            route: Route::of(parts),
            template: rule.map(|rule| rule.naming.template().clone()),
            wait: rule.map(|rule| rule.policy.wait()).unwrap_or_default(),
            holder: None,
        }
    }
}

fn is_grpc(parts: &Parts) -> bool {
    let content_type = parts.headers.get(CONTENT_TYPE);
    content_type.is_some_and(|content_type| {
        let rest = content_type.as_bytes().strip_prefix(b"application/grpc");
        // Not grpc-web, whose trailers are in the body.
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}
