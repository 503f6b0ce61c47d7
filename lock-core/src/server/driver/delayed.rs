//! Commands that are not to be sent yet. They are few, and the driver's one timer is for the first of them: the timer
//! wheel of a `DelayQueue` would be one more thing to poll.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::server::leased::{Command, WaiterTable};

/// Commands by when they are due, and counted.
pub(super) struct Delayed<W: WaiterTable> {
    commands: BTreeMap<(Instant, u64), Command<W>>,
    ever: u64,
}

impl<W: WaiterTable> Delayed<W> {
    pub(super) const fn new() -> Self {
        Self {
            commands: BTreeMap::new(),
            ever: 0,
        }
    }

    pub(super) fn put(&mut self, until: Instant, command: Command<W>) {
        self.ever += 1;
        self.commands.insert((until, self.ever), command);
    }

    /// One that is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Command<W>> {
        let first = self.commands.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// When the first is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.commands.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}
