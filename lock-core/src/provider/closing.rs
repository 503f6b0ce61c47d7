//! The shutdown of a provider, as those see it who wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Shared;
use crate::lease::Registration;

/// Completes when the provider is shut down.
pub(crate) struct Closing<'a> {
    shared: &'a Shared,
    registration: Registration,
}

impl<'a> Closing<'a> {
    pub(crate) fn of(shared: &'a Shared) -> Self {
        Self {
            shared,
            registration: Registration::default(),
        }
    }
}

impl Future for Closing<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.shared.poll_closing(&mut this.registration, cx.waker())
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.shared.forget_closing(&mut self.registration);
    }
}
