//! Panics that cost what was under way, and not the thread or the task that met them.
//!
//! They come from the bytes of a server, from a fault of a driver or of ours, and from what the
//! application gives the library to call: its logger, its wakers.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Poll, Waker};

/// How much of what a panic says is kept: it may repeat what it was given.
const LONGEST: usize = 500;

/// What it gives, or what its panic says. The caller throws away what the panic may have left half done.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let caught = catch_unwind(AssertUnwindSafe(work));
    caught.map_err(|panic| reason_of(&*panic).chars().take(LONGEST).collect())
}

/// The same of a future, which is not polled after a panic.
pub(crate) async fn catch_async<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch(|| future.as_mut().poll(cx)) {
        Ok(poll) => poll.map(Ok),
        Err(reason) => Poll::Ready(Err(reason)),
    })
    .await
}

/// Wakes a task of the application. A waker that panics has told its panic hook, and keeps neither the
/// caller from going on nor others from being woken.
pub(crate) fn wake(waker: Waker) {
    let _ = catch(|| waker.wake());
}

fn reason_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it does not say why")
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use std::panic::panic_any;

    use tokio::task::yield_now;

    use super::*;

    #[test]
    fn the_words_of_a_panic_are_kept_in_each_of_their_forms() {
        assert_eq!(catch(|| panic!("plain")), Err::<(), _>("plain".to_owned()));
        let seven = 7;
        let counted = catch(|| panic!("number {seven}"));
        assert_eq!(counted, Err::<(), _>("number 7".to_owned()));
        let silent = catch(|| panic_any(7_u8));
        assert_eq!(silent, Err::<(), _>("it does not say why".to_owned()));
        assert_eq!(catch(|| seven), Ok(7));
    }

    #[tokio::test]
    async fn a_future_that_panics_after_an_await_is_caught() {
        let caught = catch_async(async {
            yield_now().await;
            panic!("late");
        });
        assert_eq!(caught.await, Err::<(), _>("late".to_owned()));
        assert_eq!(catch_async(async { 7 }).await, Ok(7));
    }
}
