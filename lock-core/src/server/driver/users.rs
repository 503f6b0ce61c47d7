//! The other side of a driver: the tasks that use it.

use std::sync::{Arc, Weak};

use crate::backend::Clock;
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
