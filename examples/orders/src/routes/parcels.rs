//! Parcels: one instance, which leads, hands all of them to the carrier. The others send their clients to it.

use axum::Json;
use axum::extract::{OriginalUri, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use lock_core::{Leader, LockError};

use crate::problem::problem;
use crate::work::Work;

/// What is led. All instances campaign for it.
pub(super) const DISPATCH: &str = "job:dispatch-parcels";

/// Hands a parcel to the carrier, where this instance leads. Else 307 to the one that does: the client
/// repeats the request there. That one can have lost the leadership meanwhile, and answers as any other.
pub(super) async fn dispatch(
    State(leader): State<Leader>,
    OriginalUri(uri): OriginalUri,
    Query(work): Query<Work>,
) -> Result<Response, LockError> {
    if leader.is_leader() {
        let token = leader.fencing_token().await?;
        let done = work.perform(leader.name().as_str(), token);
        let receipt = leader.while_leading(done).await?;
        return Ok(Json(receipt).into_response());
    }
    let holder = leader.current().await?;
    Ok(match holder.as_ref().and_then(|holder| holder.instance()) {
        // What each instance is called is where it listens: see `Config`.
        Some(address) => Redirect::temporary(&format!("http://{address}{uri}")).into_response(),
        None => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "urn:orders:problem:no-leader",
            "No leader",
            "No instance dispatches parcels at the moment; one will in some seconds.",
        ),
    })
}
