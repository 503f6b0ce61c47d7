//! Commands that are not to be sent yet.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::redis::command::Command;

/// Commands by when they are due, and counted.
#[derive(Default)]
pub(super) struct Parked {
    commands: BTreeMap<(Instant, u64), Command>,
    ever: u64,
}

impl Parked {
    pub(super) fn put(&mut self, until: Instant, command: Command) {
        self.ever += 1;
        self.commands.insert((until, self.ever), command);
    }

    /// One that is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Command> {
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
