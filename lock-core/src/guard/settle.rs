//! The release after work whose result stands.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::releasing::Releasing;
use crate::LockError;

/// A release that logs and counts its failure; it goes on by itself when it is dropped, and
/// allocates nothing where the backend answers immediately.
#[doc(hidden)]
#[must_use = "futures do nothing unless polled"]
pub struct Settle(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Settle {
    pub(super) fn new(started: Result<Releasing, Result<(), LockError>>) -> Self {
        Self(match started {
            Ok(releasing) => Some(Box::pin(async move { report(releasing.answer().await) })),
            Err(over) => {
                report(over);
                None
            }
        })
    }
}

fn report(outcome: Result<(), LockError>) {
    if let Err(error) = outcome {
        crate::observe::release_failed(&error);
    }
}

impl Future for Settle {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(releasing) => releasing.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl fmt::Debug for Settle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settle")
            .field("pending", &self.0.is_some())
            .finish()
    }
}
