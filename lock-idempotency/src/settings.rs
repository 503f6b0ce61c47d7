//! What a layer was set to, and its way to the store.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderName, StatusCode, header};
use lock_core::LockError;
use tokio::time::timeout;

use crate::store::ErasedStore;
use crate::{Fingerprint, Record, RecordKey};

/// Of these a client needs the same again. No cookies, and nothing of the one connection or moment.
const KEPT: [HeaderName; 11] = [
    header::ALLOW,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_TYPE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::LINK,
    header::LOCATION,
];

type Scope = dyn Fn(&Parts) -> Result<Option<String>, LockError> + Send + Sync;
type Keeps = dyn Fn(StatusCode) -> bool + Send + Sync;

#[derive(Clone)]
pub(crate) struct Settings {
    store: Arc<dyn ErasedStore>,
    pub(crate) scope: Arc<Scope>,
    pub(crate) header: HeaderName,
    pub(crate) is_required: bool,
    pub(crate) lifetime: Duration,
    pub(crate) request_limit: usize,
    pub(crate) response_limit: usize,
    pub(crate) kept_headers: Vec<HeaderName>,
    pub(crate) keeps_status: Arc<Keeps>,
    pub(crate) store_timeout: Duration,
}

impl Settings {
    pub(crate) fn new(store: Arc<dyn ErasedStore>, scope: Arc<Scope>) -> Self {
        Self {
            store,
            scope,
            header: HeaderName::from_static("idempotency-key"),
            is_required: false,
            lifetime: Duration::from_secs(24 * 60 * 60),
            request_limit: 1024 * 1024,
            response_limit: 64 * 1024,
            kept_headers: KEPT.to_vec(),
            keeps_status: Arc::new(keeps_status),
            store_timeout: Duration::from_secs(2),
        }
    }

    /// A lifetime that every store counts as over.
    pub(crate) fn keeps_nothing(&self) -> bool {
        self.lifetime.as_millis() == 0
    }

    pub(crate) async fn find(&self, key: &RecordKey) -> Result<Option<Record>, LockError> {
        self.bounded(self.store.get(key)).await
    }

    pub(crate) async fn put(&self, key: &RecordKey, record: &Record) -> Result<bool, LockError> {
        let put = async || self.store.put(key, record, self.lifetime).await;
        let twice = async {
            match put().await {
                // As a rule a connection that was cut while it was not used. What the first try has stored stays.
                Err(error) if error.is_unavailable() => put().await,
                answer => answer,
            }
        };
        self.bounded(twice).await
    }

    /// A store that hangs is one that is down: its caller has a deadline.
    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, LockError>>,
    ) -> Result<T, LockError> {
        timeout(self.store_timeout, call).await.unwrap_or_else(|_| {
            let bound = self.store_timeout;
            let says = format!("the store of idempotency keys did not answer in {bound:?}");
            Err(LockError::unavailable(says))
        })
    }

    /// What is stored of a response whose body is this.
    pub(crate) fn record(
        &self,
        fingerprint: Fingerprint,
        parts: &http::response::Parts,
        body: bytes::Bytes,
    ) -> Record {
        let mut kept = http::Response::new(body);
        *kept.status_mut() = parts.status;
        for name in &self.kept_headers {
            for value in parts.headers.get_all(name) {
                kept.headers_mut().append(name.clone(), value.clone());
            }
        }
        Record::new(fingerprint, kept)
    }
}

/// Answers that a retry would have again. The others say that nothing was done yet, or that it is unknown; or they
/// are about headers, which a client can correct without a new key.
pub(crate) fn keeps_status(status: StatusCode) -> bool {
    let is_final = status.is_success() || status.is_redirection() || status.is_client_error();
    let is_of_now = matches!(status.as_u16(), 408 | 409 | 421 | 423 | 425 | 429);
    let is_of_headers = matches!(
        status.as_u16(),
        401 | 406 | 407 | 412 | 415 | 417 | 426 | 428 | 431
    );
    is_final && !is_of_now && !is_of_headers
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("header", &self.header)
            .field("is_required", &self.is_required)
            .field("lifetime", &self.lifetime)
            .field("request_limit", &self.request_limit)
            .field("response_limit", &self.response_limit)
            .field("kept_headers", &self.kept_headers)
            .field("store_timeout", &self.store_timeout)
            .finish_non_exhaustive()
    }
}
