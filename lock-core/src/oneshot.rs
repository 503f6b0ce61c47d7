//! Answers between threads: tokio's channel of one value, with a sender that no waker can bring down.
//!
//! A send, and the drop of a sender, wake the receiver on the thread of the sender. Its waker is the
//! application's and can panic: on the thread of a driver that would cost the session, all its locks, and,
//! while the other replies are dropped by that panic, the process.

use std::fmt;

use tokio::sync::oneshot;

pub(crate) use tokio::sync::oneshot::Receiver;

use crate::panics::catch;

/// Sends one value. A waker that panics has told its panic hook, and is caught here.
pub(crate) struct Sender<T>(Option<oneshot::Sender<T>>);

/// A channel of one value.
pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = oneshot::channel();
    (Sender(Some(sender)), receiver)
}

impl<T> Sender<T> {
    /// Sends the value; it comes back where the receiver is gone.
    pub(crate) fn send(mut self, value: T) -> Result<(), T> {
        match self.0.take() {
            // The value is sent before the waker runs.
            Some(sender) => catch(|| sender.send(value)).unwrap_or(Ok(())),
            None => Err(value),
        }
    }

    /// Whether the receiver is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let _ = catch(|| drop(sender));
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};

    use super::*;

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("by a waker");
        }
    }

    fn poll(receiver: &mut Receiver<u8>, waker: &Waker) -> Poll<Option<u8>> {
        let polled = Pin::new(receiver).poll(&mut Context::from_waker(waker));
        polled.map(Result::ok)
    }

    /// A channel whose receiver is woken by what panics.
    fn awaited() -> (Sender<u8>, Receiver<u8>) {
        let (sender, mut receiver) = channel();
        assert!(poll(&mut receiver, &Waker::from(Arc::new(Panics))).is_pending());
        (sender, receiver)
    }

    #[test]
    fn a_value_arrives_although_the_waker_panics() {
        let (sender, mut receiver) = awaited();
        assert_eq!(sender.send(7), Ok(()));
        assert_eq!(poll(&mut receiver, Waker::noop()), Poll::Ready(Some(7)));
    }

    #[test]
    fn senders_that_are_dropped_by_a_panic_do_not_abort() {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| awaited()).unzip();
        let unwound = catch(move || {
            let _dropped = senders;
            panic!("of a driver");
        });
        assert_eq!(unwound, Err::<(), _>("of a driver".to_owned()));
        for mut receiver in receivers {
            assert_eq!(poll(&mut receiver, Waker::noop()), Poll::Ready(None));
        }
    }

    #[test]
    fn a_value_comes_back_where_the_receiver_is_gone() {
        let (sender, receiver) = channel();
        assert!(!sender.is_closed());
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(7), Err(7));
    }
}
