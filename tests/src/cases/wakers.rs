//! Wakers that panic: they are the application's, and a backend wakes them on a thread of its own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use super::{PATIENCE, take, wait_for};
use crate::Harness;

/// Wakes the task, and then panics on every thread but those of the test's runtime.
struct Panics {
    waker: Waker,
    runtime: tokio::runtime::Id,
    count: Arc<AtomicU32>,
}

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.waker.wake_by_ref();
        let is_ours = |runtime: Handle| runtime.id() == self.runtime;
        if !Handle::try_current().is_ok_and(is_ours) {
            self.count.fetch_add(1, Ordering::Relaxed);
            // Without the message of a panic, which would look like a failure.
            std::panic::resume_unwind(Box::new("by a waker"));
        }
    }
}

/// Runs a future whose wakers panic; counts how often they do.
async fn woken_by_panics<F: Future>(count: &Arc<AtomicU32>, future: F) -> F::Output {
    let runtime = Handle::current().id();
    let mut future = pin!(future);
    poll_fn(|cx| {
        let waker = Waker::from(Arc::new(Panics {
            waker: cx.waker().clone(),
            runtime,
            count: Arc::clone(count),
        }));
        future.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

/// An answer, a grant to a waiter and the answer to a release.
pub async fn a_waker_that_panics_costs_no_lock_and_no_answer(harness: Harness) {
    let (here, there) = (harness.client().await, harness.client().await);
    let (kept, name) = (harness.name(), harness.name());
    let kept = take(&here, &kept).await;
    let lock = here.lock(&name).unwrap();
    let panics = Arc::default();
    for _ in 0..10 {
        let acquired = woken_by_panics(&panics, lock.acquire(Duration::ZERO)).await;
        let released = woken_by_panics(&panics, acquired.unwrap().release()).await;
        released.unwrap();

        let theirs = wait_for(&there, &name).await;
        let waiting = woken_by_panics(&panics, lock.acquire(PATIENCE));
        let releasing = async {
            sleep(Duration::from_millis(20)).await;
            // A backend without a thread wakes on that of the caller.
            let released = thread::spawn(move || drop(theirs));
            while !released.is_finished() {
                sleep(Duration::from_millis(1)).await;
            }
            released
                .join()
                .expect("a waker is no matter of who releases");
        };
        let (granted, ()) = tokio::join!(waiting, releasing);
        granted.unwrap().release().await.unwrap();
    }
    assert!(panics.load(Ordering::Relaxed) > 0, "no waker has panicked");
    assert!(kept.is_valid(), "it was lost by the panic of a waker");
    kept.release().await.unwrap();
}
