//! Commands that are not to be sent yet.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::redis::command::Command;
use crate::redis::key::Key;

/// How long a lock that others wait for is left to them before this process asks for it again.
pub(super) const HAND_OVER: Duration = Duration::from_millis(5);

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

/// Locks that were released while others waited for them: those go first.
#[derive(Default)]
pub(super) struct HandedOver {
    until: HashMap<Key, Instant>,
    /// The same, the first to end first.
    in_order: VecDeque<(Instant, Key)>,
}

impl HandedOver {
    pub(super) fn note(&mut self, key: &Key) {
        let now = Instant::now();
        while let Some((until, key)) = self.in_order.pop_front_if(|(until, _)| *until <= now) {
            // Not if it was handed over once more.
            if self.until.get(&key) == Some(&until) {
                self.until.remove(&key);
            }
        }
        let until = now + HAND_OVER;
        self.until.insert(key.clone(), until);
        self.in_order.push_back((until, key.clone()));
    }

    /// Until when this one is left to others.
    pub(super) fn until(&self, key: &Key) -> Option<Instant> {
        let until = self.until.get(key)?;
        (*until > Instant::now()).then_some(*until)
    }
}
