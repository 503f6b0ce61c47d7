//! A directory that is not watched: no system but Linux has what is needed of inotify. Waiters poll.

use std::io;
use std::sync::Arc;

use super::{Shared, State};

/// Nothing is watched.
#[derive(Debug, Default)]
pub(super) struct Listener;

impl Listener {
    /// There is nothing more to listen to.
    pub(super) fn listens(&self) -> bool {
        true
    }

    pub(super) fn end(&mut self) {}
}

impl Shared {
    pub(super) fn listen(self: &Arc<Self>, _: &mut State) -> io::Result<()> {
        Ok(())
    }
}
