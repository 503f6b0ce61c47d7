//! The thread of a driver: its start, its runtime and its end.

use std::io;
use std::thread;

use rustix::io::Errno;
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
        let made = no_descriptor(&error);
        made.unwrap_or_else(|| LockError::unavailable("no runtime could be started"))
            .with_source(error)
    })
}

/// Why a connection cannot be made where no file descriptor is left; `None` for another cause.
pub(crate) fn no_descriptor(error: &io::Error) -> Option<LockError> {
    Some(LockError::unavailable(match Errno::from_io_error(error)? {
        Errno::MFILE => {
            "the process has no file descriptor left for a connection; raise its limit (`ulimit -n`, \
             `LimitNOFILE=` of systemd), or have it open less"
        }
        Errno::NFILE => {
            "the machine has no file descriptor left for a connection; raise `fs.file-max`"
        }
        _ => return None,
    }))
}

/// Runs when it is dropped: however a thread ends, by a panic as well.
pub(crate) struct AtEnd<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_on_descriptors_is_named_whose_it_is() {
        for (errno, told) in [
            (Errno::MFILE, Some("`ulimit -n`")),
            (Errno::NFILE, Some("fs.file-max")),
            (Errno::CONNREFUSED, None),
        ] {
            let error = no_descriptor(&errno.into()).map(|error| error.to_string());
            let is_told = told.is_none_or(|told| error.as_ref().unwrap().contains(told));
            assert!(is_told && error.is_some() == told.is_some(), "{error:?}");
        }
    }
}
