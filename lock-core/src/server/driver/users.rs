//! The other side of a driver: the tasks that use it.

use std::sync::{Arc, Weak};

use crate::LossReason;
use crate::backend::Clock;
use crate::panics::catch;
use crate::server::leased::{Client, Command, Held, HoldCommand, WaiterTable};
use crate::server::{LeaseTerms, Queues};

/// What a driver shares with its users. It outlives a driver that panics.
pub(crate) struct Users<W: WaiterTable> {
    pub(crate) queues: Arc<Queues<Command<W>, HoldCommand<W::Key>>>,
    pub(crate) held: Arc<Held<W::Key>>,
    pub(crate) waiters: Arc<W>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) terms: LeaseTerms,
    /// Gone with the last user.
    pub(crate) client: Weak<Client<W::Key>>,
}

impl<W: WaiterTable> Users<W> {
    /// The thread ends: nothing is granted, renewed or woken any more.
    pub(crate) fn end(&self) {
        self.queues.abandon();
        // Each runs wakers, which are the application's and can panic.
        let _ = catch(|| self.held.lose(LossReason::Disconnected, |_| true));
        let _ = catch(|| self.waiters.wake_all());
        self.queues.stop.done();
    }
}

impl<W: WaiterTable> Clone for Users<W> {
    fn clone(&self) -> Self {
        Self {
            queues: Arc::clone(&self.queues),
            held: Arc::clone(&self.held),
            waiters: Arc::clone(&self.waiters),
            clock: Arc::clone(&self.clock),
            terms: self.terms,
            client: self.client.clone(),
        }
    }
}
