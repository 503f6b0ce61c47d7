//! Grants that the process keeps after their hold, for a store that has no clock for that.
//!
//! A kept grant has no holder, and stays in the line of its lock: callers find the lock held. It is released, and the
//! next in line is called, when its time is over, when the provider is shut down, when its lease ends, since other
//! processes can have the lock then, and when its runtime ends. Whichever is first.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until, timeout};

use super::leaving::Leaving;
use super::lost::ended;
use super::overtime;
use crate::lease::Registration;
use crate::provider::{Closing, Shared};

/// Keeps the grant until then.
pub(super) fn keep(mut leaving: Leaving, until: Instant) {
    let Some(shared) = leaving.stay() else { return };
    let lease = leaving.lease().clone();
    let kept = Kept(leaving);
    let Ok(runtime) = Handle::try_current() else {
        return Unattended::keep(kept, shared, until);
    };
    runtime.spawn(async move {
        tokio::select! {
            () = sleep_until(until) => {}
            () = Closing::of(&shared) => {}
            () = ended(lease) => {}
        }
        if let Some(answer) = kept.0.release() {
            // Unanswered, it goes on by itself.
            let _ = timeout(shared.response_timeout, answer).await;
        }
    });
}

/// Dropped, it is released, and then the next in line is called.
struct Kept(Leaving);

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.0.release());
    }
}

/// What is kept outside of a runtime. A lease whose deadline passes is not seen by itself there.
struct Unattended(Mutex<Option<Waiting>>);

/// Dropped, it is released.
struct Waiting {
    kept: Kept,
    shared: Arc<Shared>,
    closing: Registration,
    lease: Registration,
}

impl Unattended {
    fn keep(kept: Kept, shared: Arc<Shared>, until: Instant) {
        let this = Arc::new(Self(Mutex::new(None)));
        let waker = Waker::from(Arc::clone(&this));
        let mut waiting = Waiting {
            kept,
            shared,
            closing: Registration::default(),
            lease: Registration::default(),
        };
        // Woken from here on, it waits for the lock, and finds what is kept.
        let mut place = this.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (shared, lease) = (&waiting.shared, waiting.kept.0.lease());
        let is_over = shared.poll_closing(&mut waiting.closing, &waker).is_ready()
            || lease.poll_lost(&mut waiting.lease, &waker).is_ready();
        if is_over {
            drop(place);
            return drop(waiting);
        }
        *place = Some(waiting);
        drop(place);
        overtime::after(until.into_std(), move || this.end());
    }

    fn end(&self) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Outside the lock: it wakes the next in line.
        drop(waiting);
    }
}

impl Wake for Unattended {
    fn wake(self: Arc<Self>) {
        self.end();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.forget_closing(&mut self.closing);
        self.kept.0.lease().unregister(&mut self.lease);
    }
}
