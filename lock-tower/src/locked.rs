//! Work that is polled under its lock, and stops when the lock is lost.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lock_core::{LockError, Lost};

use crate::held::Owner;

/// Polls `work`, a handler or a body, for as long as its lock is ours. What it gives comes with the
/// lock, which goes back into `slot` where the work goes on.
///
/// Validity is looked at before the poll, since the process can be frozen between two, and after it,
/// since it can be frozen in one. When the lock is lost, and when the work panics, the work is
/// dropped, and then the lock.
pub(crate) fn poll_locked<T, O>(
    work: Pin<&mut Option<T>>,
    slot: &mut Option<Owner>,
    lost: &mut Option<Lost>,
    cx: &mut Context<'_>,
    poll: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<O>,
) -> Poll<Result<(O, Owner), LockError>> {
    let owner = slot.take();
    let mut locked = Locked { work, owner };
    let polled = locked.poll(lost, cx, poll);
    match (polled, locked.owner.take()) {
        (Poll::Ready(Ok(output)), Some(owner)) => Poll::Ready(Ok((output, owner))),
        (Poll::Pending, owner) => {
            *slot = owner;
            Poll::Pending
        }
        (Poll::Ready(Err(error)), owner) => {
            // For the drop, in its order.
            locked.owner = owner;
            Poll::Ready(Err(error))
        }
        (Poll::Ready(Ok(_)), None) => Poll::Ready(Err(unlocked())),
    }
}

/// Drops the work first, and then the lock, unless the lock was taken out.
struct Locked<'a, T> {
    work: Pin<&'a mut Option<T>>,
    owner: Option<Owner>,
}

impl<T> Locked<'_, T> {
    fn poll<O>(
        &mut self,
        lost: &mut Option<Lost>,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<O>,
    ) -> Poll<Result<O, LockError>> {
        let (Some(work), Some(owner)) = (self.work.as_mut().as_pin_mut(), &self.owner) else {
            return Poll::Ready(Err(unlocked()));
        };
        owner.check()?;
        if let Poll::Ready(output) = poll(work, cx) {
            owner.check()?;
            return Poll::Ready(Ok(output));
        }
        let lost = lost.get_or_insert_with(|| owner.lost());
        let reason = ready!(Pin::new(lost).poll(cx));
        Poll::Ready(Err(owner.lost_error(reason)))
    }
}

impl<T> Drop for Locked<'_, T> {
    fn drop(&mut self) {
        if self.owner.is_some() {
            self.work.set(None);
        }
    }
}

fn unlocked() -> LockError {
    LockError::lost("its work has ended or panicked before")
}
