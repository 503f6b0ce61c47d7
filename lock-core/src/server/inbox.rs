//! Commands for the thread of a backend, from any thread and without waiting: many at a time under one lock, and a wake-up
//! only where the thread sleeps.
//!
//! A channel of tokio takes one command at a time, and wakes a receiver that is about to look by itself.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Wakes the thread of a backend, and says when no command will come any more.
///
/// # Why no command is left lying
///
/// The thread says that it sleeps and then looks into its inboxes once more, each under its lock. A command
/// that this look does not find is pushed after it, and so after the thread has said that it sleeps: the
/// caller sees that, and rings.
#[derive(Default)]
pub(crate) struct Signal {
    bell: Arc<Notify>,
    /// Whether the thread waits for the bell; awake it looks by itself.
    is_asleep: AtomicBool,
    is_closed: AtomicBool,
}

impl Signal {
    /// The bell itself, for what rings without leaving a command.
    pub(crate) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// A command was left.
    fn wake(&self) {
        if self.is_asleep.swap(false, Ordering::AcqRel) {
            self.bell.notify_one();
        }
    }

    /// No command will come after those that are in the inboxes now.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    /// Whether no command will come. An inbox that is emptied after this was true is empty for good.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// The thread is awake, and about to look into its inboxes.
    pub(super) fn set_awake(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// Completes when there are commands, or when something else may have changed.
    pub(super) async fn rung(&self, has_commands: impl FnOnce() -> bool) {
        self.is_asleep.store(true, Ordering::Release);
        if has_commands() {
            self.set_awake();
            return;
        }
        self.bell.notified().await;
    }

    /// Completes when something else than commands may have changed: the thread does not say that it sleeps.
    #[cfg(feature = "redis")]
    pub(super) async fn rung_beside_commands(&self) {
        self.bell.notified().await;
    }
}

/// What callers leave, oldest first.
pub(crate) struct Inbox<C> {
    state: Mutex<State<C>>,
    signal: Arc<Signal>,
}

struct State<C> {
    commands: Vec<C>,
    /// The thread is gone, so that no command will be answered.
    is_abandoned: bool,
}

impl<C> Inbox<C> {
    pub(super) fn new(signal: Arc<Signal>) -> Self {
        let state = Mutex::new(State {
            commands: Vec::new(),
            is_abandoned: false,
        });
        Self { state, signal }
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a command. One that will not be answered is dropped, which its caller sees.
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
        let is_new = state.commands.len() > before;
        drop(state);
        if is_new {
            self.signal.wake();
        }
    }

    /// Moves all commands to `into`.
    pub(super) fn take(&self, into: &mut impl Extend<C>) {
        into.extend(self.state().commands.drain(..));
    }

    pub(super) fn has_commands(&self) -> bool {
        !self.state().commands.is_empty()
    }

    /// No command will be answered: those that are here are dropped, and whatever comes.
    pub(super) fn abandon(&self) {
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
        let signal = Arc::new(Signal::default());
        let (one, other) = (
            Inbox::new(Arc::clone(&signal)),
            Inbox::<()>::new(Arc::clone(&signal)),
        );
        let mut rung = pin!(signal.rung(|| one.has_commands() || other.has_commands()));
        assert!(rung.as_mut().now_or_never().is_none());
        one.push_all(None);
        assert!(rung.as_mut().now_or_never().is_none());
        one.push(1);
        assert!(rung.as_mut().now_or_never().is_some());
        // What is there is not slept over.
        let rung = signal.rung(|| one.has_commands() || other.has_commands());
        assert!(rung.now_or_never().is_some());
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_thread_that_has_no_room_is_woken_by_the_end_and_by_no_command() {
        let signal = Arc::new(Signal::default());
        let inbox = Inbox::new(Arc::clone(&signal));
        let mut rung = pin!(signal.rung_beside_commands());
        assert!(rung.as_mut().now_or_never().is_none());
        inbox.push(1);
        assert!(rung.as_mut().now_or_never().is_none());
        signal.close();
        assert!(rung.as_mut().now_or_never().is_some());
    }
}
