//! Who asks.

use std::task::Waker;
use std::thread::ThreadId;

use tokio::task;

/// What goes one step after the other: a task, or a future that a task polls by a waker of its own, as
/// `FuturesUnordered` does with each of many that go on side by side.
///
/// What `join!` and `select!` run side by side in one task looks like one flow, and can be said to
/// nest what it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    task: Task,
    waker: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Task {
    Spawned(task::Id),
    /// The future of a `block_on`, which stays on its thread.
    Blocking(ThreadId),
}

impl Task {
    fn current() -> Self {
        match task::try_id() {
            Some(id) => Self::Spawned(id),
            None => Self::Blocking(std::thread::current().id()),
        }
    }
}

impl Flow {
    /// The flow that is polled with this waker.
    pub(super) fn current(waker: &Waker) -> Self {
        Self {
            task: Task::current(),
            waker: waker.data().addr(),
        }
    }

    /// Whether this runs in the task of the flow.
    pub(super) fn is_here(&self) -> bool {
        self.task == Task::current()
    }
}
