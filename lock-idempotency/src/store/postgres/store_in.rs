//! A record in the transaction of its effect.

use std::fmt;

use bytes::Bytes;
use http::Response;
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use lock_core::LockError;
use sqlx::{Postgres, Transaction};

use super::{PostgresStore, put};
use crate::recording::Stored;
use crate::{BoxError, IdempotencyKey};

impl PostgresStore {
    /// Stores the response in the transaction that has the effect, so that both are committed or neither.
    /// Return the response that this gives once the transaction is committed: the layer stores it no further.
    ///
    #[cfg_attr(feature = "axum", doc = "```no_run")]
    #[cfg_attr(not(feature = "axum"), doc = "```ignore")]
    /// use axum::{Json, extract::State, http::StatusCode, response::{IntoResponse, Response}};
    /// use lock_idempotency::{IdempotencyKey, PostgresStore, StoreInError};
    /// use sqlx::PgPool;
    ///
    /// async fn pay(
    ///     State((pool, store)): State<(PgPool, PostgresStore)>,
    ///     key: IdempotencyKey,
    ///     Json(cents): Json<i64>,
    /// ) -> Result<Response, Error> {
    ///     let mut tx = pool.begin().await?;
    ///     sqlx::query("INSERT INTO payments (cents) VALUES ($1)").bind(cents).execute(&mut *tx).await?;
    ///
    ///     let response = (StatusCode::CREATED, Json(cents)).into_response();
    ///     let response = store.store_in(&mut tx, &key, response).await?;
    ///     tx.commit().await?;
    ///     Ok(response.into_response())
    /// }
    ///
    /// enum Error { Store(StoreInError), Database(sqlx::Error) }
    ///
    /// impl IntoResponse for Error {
    ///     fn into_response(self) -> Response {
    ///         match self {
    ///             Error::Store(error) => error.into_response(), // also a replay
    ///             Error::Database(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    ///         }
    ///     }
    /// }
    /// # impl From<StoreInError> for Error { fn from(error: StoreInError) -> Self { Self::Store(error) } }
    /// # impl From<sqlx::Error> for Error { fn from(error: sqlx::Error) -> Self { Self::Database(error) } }
    /// # fn app(pool: PgPool, store: PostgresStore) -> axum::Router {
    /// #     axum::Router::new().route("/", axum::routing::post(pay)).with_state((pool, store))
    /// # }
    /// ```
    ///
    /// The transaction may be of any connection to the database of this store, whatever its `search_path` is: the table
    /// is the one that the store was opened with. Store once in a transaction, and not in a savepoint without the
    /// effect: what is rolled back is not stored.
    ///
    /// # Why there is one effect
    ///
    /// The record's row is the fence. Its primary key lets one transaction with a live record of this key commit;
    /// any other waits for that one, and is refused. That holds whatever became of the locks: a holder
    /// that was frozen, and lost its lock to another request, is refused if the other has committed, and has the
    /// one effect if it has not. A holder whose lock is lost is refused before it writes, and the fencing token in
    /// the row keeps one that comes in the first minute after the lifetime of a later record from taking its place.
    ///
    /// The status and headers are stored as the layer would; the status is stored whatever it is.
    ///
    /// # Errors
    ///
    /// [`StoreInError`]: roll the transaction back, which dropping it does, and return the error as the
    /// response. It is a replay where another request has stored meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: roll the transaction back when the future was dropped. Dropping the transaction does that.
    pub async fn store_in<B>(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        key: &IdempotencyKey,
        response: Response<B>,
    ) -> Result<Response<Full<Bytes>>, StoreInError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let asking = &key.asking;
        let settings = &asking.settings;
        let (mut parts, body) = response.into_parts();
        let whole = Limited::new(body, settings.response_limit).collect().await;
        let data = whole.map_err(too_large)?.to_bytes();
        // After the effect: a holder that has lost its lock meanwhile ends here.
        let token = key.held.fencing_token().await?;
        if i64::try_from(token.get()).is_err() {
            return Err(LockError::misconfigured(
                "a fencing token of 2^63 or more does not fit into a `bigint`; use locks of a backend of \
                 this project",
            )
            .into());
        }
        let new = settings.record(asking.fingerprint, &parts, data.clone());
        let sql = self
            .table
            .put(&asking.record, settings.lifetime, Some(token));
        let is_stored = put(tx, sql, &new).await;
        if !is_stored.map_err(|error| self.table.refused(error))? {
            return Err(match self.table.find(&mut **tx, &asking.record).await? {
                Some(first) => {
                    let mut response = asking.replay(&first);
                    response.extensions_mut().insert(Stored(asking.record));
                    StoreInError(Why::Stored(Box::new(response)))
                }
                None => LockError::lost(
                    "a later request with this key was here, and its record has ended; try again in a minute, \
                     if the locks have moved to a backend with lower fencing tokens",
                )
                .into(),
            });
        }
        parts.extensions.insert(Stored(asking.record));
        Ok(Response::from_parts(parts, Full::new(data)))
    }
}

fn too_large(error: BoxError) -> LockError {
    LockError::misconfigured(
        "a response for `store_in` is larger than `response_limit`, or breaks off; raise the limit of the \
         layer, or answer less",
    )
    .with_source(error)
}

/// Why a response was not stored in a transaction: another request has stored one under the key, or the
/// lock or the store failed. As the response of a handler it is what the client has to be answered: a
/// replay, 422, or a problem of [`lock_core::answer`].
pub struct StoreInError(Why);

enum Why {
    Stored(Box<Response<Bytes>>),
    Failed(LockError),
}

impl StoreInError {
    /// The answer that another request has stored, marked as a replay; or 422, when that was another request.
    /// `None` where the lock or the store failed.
    #[must_use]
    pub fn stored(&self) -> Option<&Response<Bytes>> {
        match &self.0 {
            Why::Stored(response) => Some(response),
            Why::Failed(_) => None,
        }
    }

    /// What failed; `None` where another request has stored.
    #[must_use]
    pub fn failed(&self) -> Option<&LockError> {
        match &self.0 {
            Why::Stored(_) => None,
            Why::Failed(error) => Some(error),
        }
    }
}

impl From<LockError> for StoreInError {
    fn from(error: LockError) -> Self {
        Self(Why::Failed(error))
    }
}

impl fmt::Display for StoreInError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Why::Stored(_) => f.write_str(
                "another request has stored its response under this idempotency key; roll the transaction \
                 back and answer what it was answered",
            ),
            Why::Failed(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for StoreInError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Why::Stored(response) => f.debug_tuple("Stored").field(&response.status()).finish(),
            Why::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}

impl std::error::Error for StoreInError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failed().and_then(std::error::Error::source)
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for StoreInError {
    fn into_response(self) -> axum::response::Response {
        match self.0 {
            Why::Stored(response) => response.map(axum::body::Body::from),
            Why::Failed(error) => axum::response::IntoResponse::into_response(error),
        }
    }
}
