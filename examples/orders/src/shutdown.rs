//! Stopping without dropping work: no new requests, those under way finish, then the locks go.

use std::future::IntoFuture;
use std::io;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// So long may requests that are under way go on. With [`LOCK_GRACE`] it should be shorter than what
/// ends the process by force (30 s in Kubernetes, unless configured).
const REQUEST_GRACE: Duration = Duration::from_secs(20);

/// So long may work go on that outlives its request, before its locks are declared lost.
pub(crate) const LOCK_GRACE: Duration = Duration::from_secs(5);

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
        // First: whoever reads the log may have left.
        cancel.cancel();
        tracing::info!("stopping: requests under way are finished first");
    });
    Ok(stop)
}

/// Serves until `stop`, and then until the requests under way are done or their time is up.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let server = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let time_is_up = async {
        stop.cancelled().await;
        tokio::time::sleep(REQUEST_GRACE).await;
    };
    tokio::select! {
        served = server.into_future() => served,
        () = time_is_up => {
            tracing::warn!("requests were still under way after {REQUEST_GRACE:?}");
            Ok(())
        }
    }
}
