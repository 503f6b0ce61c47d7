//! Work on files that can take as long as a disk does.

use std::thread;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Runs what blocks on a thread for that; `None` if there was none.
pub(super) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if let Ok(runtime) = Handle::try_current() {
        return runtime.spawn_blocking(work).await.ok();
    }
    let (tell, told) = oneshot::channel();
    let thread = thread::Builder::new().name("lock-files".to_owned());
    thread.spawn(move || drop(tell.send(work()))).ok()?;
    told.await.ok()
}
