//! Commands for the thread of a backend, from any thread and without waiting.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What callers leave, oldest first, and a bell for a thread that sleeps.
///
/// # Why no command is left lying
///
/// A thread that is awake looks here before it sleeps. It says that it sleeps under the lock under
/// which it has seen that nothing is here, so that whoever comes after that rings.
pub(crate) struct Inbox<C> {
    state: Mutex<State<C>>,
    bell: Notify,
}

struct State<C> {
    commands: Vec<C>,
    /// Whether the thread waits for the bell; awake it looks by itself.
    is_asleep: bool,
    /// No caller is left, so that no command will come.
    is_closed: bool,
    /// The thread is gone, so that no command will be answered.
    is_abandoned: bool,
}

impl<C> Default for Inbox<C> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                commands: Vec::new(),
                is_asleep: false,
                is_closed: false,
                is_abandoned: false,
            }),
            bell: Notify::new(),
        }
    }
}

impl<C> Inbox<C> {
    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a command. One that nobody will answer is dropped, which its caller sees.
    pub(crate) fn push(&self, command: C) {
        self.push_all([command]);
    }

    /// Leaves several, which are taken together. Where there are none, the thread sleeps on.
    pub(crate) fn push_all(&self, commands: impl IntoIterator<Item = C>) {
        let mut state = self.state();
        if state.is_abandoned {
            // Their drop can run anything: not under the lock.
            drop(state);
            return drop(commands);
        }
        let before = state.commands.len();
        state.commands.extend(commands);
        if state.commands.len() == before {
            return;
        }
        let is_asleep = mem::take(&mut state.is_asleep);
        drop(state);
        if is_asleep {
            self.ring();
        }
    }

    /// Moves all commands to `into`. Tells whether more can come.
    pub(crate) fn take(&self, into: &mut impl Extend<C>) -> bool {
        let mut state = self.state();
        state.is_asleep = false;
        into.extend(state.commands.drain(..));
        !state.is_closed
    }

    pub(crate) fn has_commands(&self) -> bool {
        !self.state().commands.is_empty()
    }

    /// Has the thread look at what has changed.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Completes when a command is there, or something else may have changed.
    pub(crate) async fn rung(&self) {
        {
            let mut state = self.state();
            if !state.commands.is_empty() {
                return;
            }
            state.is_asleep = true;
        }
        self.bell.notified().await;
    }

    /// No command will come.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.ring();
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// No command will be answered: those that are here are dropped, and whatever comes.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.is_abandoned = true;
        let commands = mem::take(&mut state.commands);
        drop(state);
        drop(commands);
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_thread_that_sleeps_is_woken_by_commands_and_by_nothing_else() {
        let inbox = Inbox::default();
        let mut rung = pin!(inbox.rung());
        assert!(rung.as_mut().now_or_never().is_none());
        inbox.push_all(None);
        assert!(rung.as_mut().now_or_never().is_none());
        inbox.push(1);
        assert!(rung.as_mut().now_or_never().is_some());
    }
}
