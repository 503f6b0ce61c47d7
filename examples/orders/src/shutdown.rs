//! Stopping without dropping work: no new requests, requests that hold their locks finish, requests that
//! still wait for one are answered with 503, so that the client retries with another instance.

use std::future::IntoFuture;
use std::io;
use std::time::Duration;

use axum::Router;
use lock_core::LockProvider;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// So long may requests that are under way go on. With [`LOCK_GRACE`] it should be shorter than what
/// ends the process by force (30 s in Kubernetes, unless configured).
const REQUEST_GRACE: Duration = Duration::from_secs(20);

/// So long may work go on that outlives its request, before its locks are declared lost.
const LOCK_GRACE: Duration = Duration::from_secs(5);

/// A token that SIGTERM and Ctrl-C cancel.
pub(crate) fn on_signal() -> io::Result<CancellationToken> {
    // Registered before this returns: a signal right after the start is not missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // First: the reader of the log may have left.
        cancel.cancel();
        tracing::info!("stopping: requests under way are finished first");
    });
    Ok(stop)
}

/// Serves until `stop`, and then until the requests under way are done or their time is up.
///
/// The locks are shut down at the signal and not after the last request: otherwise each request that
/// waits for a lock would be served first, one after the other.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    locks: LockProvider,
    stop: CancellationToken,
) -> io::Result<()> {
    let server = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let time_is_up = async {
        stop.cancelled().await;
        tokio::time::sleep(REQUEST_GRACE).await;
    };
    let serve = async {
        let served = tokio::select! {
            served = server.into_future() => served,
            () = time_is_up => {
                tracing::warn!("requests were still under way after {REQUEST_GRACE:?}");
                Ok(())
            }
        };
        // A server that failed stops the rest as a signal does.
        stop.cancel();
        served
    };
    let release = async {
        stop.cancelled().await;
        locks.shutdown(REQUEST_GRACE + LOCK_GRACE).await;
    };
    let (served, ()) = tokio::join!(serve, release);
    served
}
