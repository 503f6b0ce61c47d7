//! The thread of a driver: its start, its runtime and its end.

use std::thread;

use tokio::runtime::{Builder, Runtime};

use super::client::Reply;
use crate::{LockError, oneshot};

/// Starts a thread of this name; returns what it replies once it is connected.
///
/// # Cancel safety
///
/// Cancel safe: the reply fails, and whatever keeps the thread running was dropped.
pub(crate) async fn start<T: Send + 'static>(
    name: &str,
    run: impl FnOnce(Reply<T>) + Send + 'static,
) -> Result<T, LockError> {
    let (started, answer) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || run(started))
        .map_err(|error| LockError::unavailable("no thread could be started").with_source(error))?;
    answer.await.unwrap_or_else(|_| {
        Err(LockError::unavailable(
            "the thread of the lock driver ended before it was connected",
        ))
    })
}

/// A runtime for the thread that it is made in.
///
/// # Errors
///
/// The process is at its limit of file descriptors.
pub(crate) fn runtime() -> Result<Runtime, LockError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| {
        LockError::unavailable("the process has no file descriptor left for a connection")
            .with_source(error)
    })
}

/// Runs when it is dropped: however a thread ends, by a panic as well.
pub(crate) struct AtEnd<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
