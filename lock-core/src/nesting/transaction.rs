//! Locks in transactions that wait behind a guard of their own task.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;

use super::flow::Flow;
use super::{Board, Watch, scope};
use crate::{LockName, ProviderKind};

/// Of all providers of PostgreSQL locks: a transaction knows the backend, and not what is in front of it.
static WATCHES: Mutex<Vec<Weak<Watch>>> = Mutex::new(Vec::new());

pub(super) fn register(kind: &str, watch: &Arc<Watch>) {
    if kind == ProviderKind::Postgres.as_str() {
        let mut watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|watch| watch.strong_count() > 0);
        watches.push(Arc::downgrade(watch));
    }
}

/// A transaction, polled with this waker, begins to wait for a lock that is held.
pub(crate) fn transaction_waits(name: &LockName, waker: &Waker) {
    // A copy: the logger is the application's, and may wait for anything.
    let watches = {
        let watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        watches.iter().filter_map(Weak::upgrade).collect::<Vec<_>>()
    };
    let flow = Flow::current(waker);
    if watches.iter().any(|watch| watch.holds_for(flow, name)) {
        tracing::warn!(
            lock = name.label(),
            "a transaction waits for a lock of which its task has a guard: the two exclude each other, and \
             unless another task releases the guard, it waits for itself until its wait is over"
        );
    }
}

impl Watch {
    /// Whether this flow has taken the lock and not released it, and that was not told before.
    fn holds_for(&self, flow: Flow, name: &LockName) -> bool {
        if !self.is_on() {
            return false;
        }
        let mut board = self.board();
        let Board { held, orders } = &mut *board;
        let holds = held.iter().any(|(holder, holdings)| {
            holdings.iter().any(|holding| {
                let is_bare = *holder == flow && holding.protects == 0;
                holding.name == *name && (is_bare || scope::contains(self, holding.id))
            })
        });
        holds && orders.note_deadlock(name)
    }
}
