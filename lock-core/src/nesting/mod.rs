//! The watch over the order of locks: who holds what while asking for more.
//!
//! Two tasks that take two locks in opposite orders wait for each other, sooner or later, until a wait
//! is over; so does, immediately, a task that waits for a lock of its own. The watch sees both where they
//! are written, and not only on the day when they meet.
//!
//! # What it goes by
//!
//! - *Certain*: a lock is asked for inside of [`protect`](crate::LockGuard::protect), which the macro
//!   and [`run`](crate::DistributedLock::run) use as well. Whose poll is inside of whose is known.
//! - *Likely*: the [`Flow`] that asks has taken a lock by hand and not released it. Guards move, so
//!   that this counts only when the guard is released where it was taken; and a guard that protects
//!   work outside of which the lock is asked for belongs to another part of the task.
//!
//! A transaction of PostgreSQL that waits for a lock is seen as well, behind a guard of its task. Not
//! the other way: whether the transaction of a lock has ended is known to its connection alone.
//!
//! A try that does not wait is no deadlock. Locks of one `acquire_all` are no order of the caller's.
//!
//! # What it costs
//!
//! Nothing but a look at a flag where it is off. Where it is on, a mutex for each acquire and release,
//! and a bounded table: [`MAX_HELD`], [`MAX_AFTER`], [`orders`].

mod flow;
mod orders;
mod scope;
#[cfg(feature = "postgres")]
mod transaction;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use self::flow::Flow;
use self::orders::Orders;
pub(crate) use self::scope::Protection;
#[cfg(feature = "postgres")]
pub(crate) use self::transaction::transaction_waits;
use crate::{LockMode, LockName};

/// So many locks of one flow are watched.
const MAX_HELD: usize = 16;

/// So many locks that were asked for while one was held are remembered until it is released.
const MAX_AFTER: usize = 8;

/// What was asked for together; of no group: zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group(u64);

/// The watch of one provider.
pub(crate) struct Watch {
    is_on: bool,
    /// For groups and holds.
    last_id: AtomicU64,
    board: Mutex<Board>,
}

#[derive(Default)]
struct Board {
    held: HashMap<Flow, Vec<Holding>>,
    orders: Orders,
}

/// A lock that is held.
struct Holding {
    id: u64,
    name: LockName,
    group: Group,
    /// How many times it protects work now.
    protects: usize,
    /// What its flow has asked for since.
    after: Vec<LockName>,
}

/// A task that asks for a lock.
pub(crate) struct Asking {
    flow: Flow,
    group: Group,
    waits: bool,
}

/// A hold that is watched, until this is dropped.
pub(crate) struct Mark {
    watch: Arc<Watch>,
    flow: Flow,
    id: u64,
}

/// Two locks that are taken in this order and in the other.
struct Opposite(LockName, LockName);

impl Watch {
    /// The watch of a provider with a backend of this kind.
    pub(crate) fn new(kind: &str, is_on: bool) -> Arc<Self> {
        let watch = Arc::new(Self {
            is_on,
            last_id: AtomicU64::new(0),
            board: Mutex::default(),
        });
        #[cfg(feature = "postgres")]
        transaction::register(kind, &watch);
        #[cfg(not(feature = "postgres"))]
        let _ = kind;
        watch
    }

    fn is_on(&self) -> bool {
        self.is_on
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A group of locks that are asked for one after the other, in an order that is not the caller's.
    pub(crate) fn group(&self) -> Group {
        if self.is_on() {
            Group(self.next_id())
        } else {
            Group::default()
        }
    }

    /// A task begins to ask for a lock.
    pub(crate) fn asks(
        self: &Arc<Self>,
        name: &LockName,
        waits: bool,
        group: Group,
        waker: &Waker,
    ) -> Option<Asking> {
        if !self.is_on() {
            return None;
        }
        let flow = Flow::current(waker);
        if waits {
            let mut opposites = Vec::new();
            let mut board = self.board();
            let Board { held, orders } = &mut *board;
            scope::each(self, |flow, id| {
                let outer = held.get(&flow).and_then(|held| find(held, id));
                if let Some(outer) = outer.filter(|outer| !outer.is_of(group)) {
                    opposites.extend(orders.note(&outer.name, name));
                }
            });
            for outer in held.get_mut(&flow).into_iter().flatten() {
                if outer.protects == 0 && !outer.is_of(group) {
                    outer.remember(name);
                }
            }
            drop(board);
            opposites.into_iter().for_each(Opposite::report);
        }
        Some(Asking { flow, group, waits })
    }

    /// What was asked for is granted. `None` where it is one too many to be watched.
    pub(crate) fn granted(self: &Arc<Self>, asking: &Asking, name: &LockName) -> Option<Mark> {
        let id = self.next_id();
        let mut board = self.board();
        let held = board.held.entry(asking.flow).or_default();
        if held.len() >= MAX_HELD {
            return None;
        }
        held.push(Holding {
            id,
            name: name.clone(),
            group: asking.group,
            protects: 0,
            after: Vec::new(),
        });
        Some(Mark {
            watch: Arc::clone(self),
            flow: asking.flow,
            id,
        })
    }

    /// What is asked for in this mode is held in that, by a hold of this mark. A reader waits for another only
    /// through a writer that is between them.
    pub(crate) fn waits_behind(
        &self,
        asking: &Asking,
        (name, mode): (&LockName, LockMode),
        (holder, held_in): (&Mark, LockMode),
    ) {
        if !asking.waits || !std::ptr::eq(self, &*holder.watch) {
            return;
        }
        let mut board = self.board();
        let Board { held, orders } = &mut *board;
        let held = held.get(&holder.flow);
        let Some(holding) = held.and_then(|held| find(held, holder.id)) else {
            return;
        };
        let is_inside = scope::contains(self, holder.id);
        let is_bare = holder.flow == asking.flow && holding.protects == 0;
        if (is_inside || is_bare) && orders.note_deadlock(name) {
            drop(board);
            let lock = name.label();
            match (mode, held_in) {
                (LockMode::Exclusive, LockMode::Shared) => tracing::warn!(
                    lock,
                    "a task that reads waits for the same lock as a writer: a reader does not become a writer, \
                     and unless another task has the guard, it waits for itself; release the one before the \
                     other is acquired"
                ),
                (LockMode::Shared, LockMode::Shared) => tracing::warn!(
                    lock,
                    "a task that reads waits to read the same lock again, behind a writer that waits for its \
                     release: unless another task has the guard, it waits for itself; use the guard that it has"
                ),
                _ => tracing::warn!(
                    lock,
                    "a task waits for a lock that it has taken and not released: locks are not \
                     re-entrant, and unless another task has the guard, it waits for itself"
                ),
            }
        }
    }
}

fn find(held: &[Holding], id: u64) -> Option<&Holding> {
    held.iter().find(|holding| holding.id == id)
}

impl Holding {
    fn is_of(&self, group: Group) -> bool {
        group != Group::default() && self.group == group
    }

    fn remember(&mut self, name: &LockName) {
        if self.after.len() < MAX_AFTER && !self.after.contains(name) {
            self.after.push(name.clone());
        }
    }
}

impl Mark {
    /// The lock is given back.
    pub(crate) fn end(&self) {
        let mut board = self.watch.board();
        let Board { held, orders } = &mut *board;
        let Some(of_flow) = held.get_mut(&self.flow) else {
            return;
        };
        let Some(position) = of_flow.iter().position(|holding| holding.id == self.id) else {
            return;
        };
        let Holding { name, after, .. } = of_flow.swap_remove(position);
        if of_flow.is_empty() {
            held.remove(&self.flow);
        }
        let mut opposites = Vec::new();
        // Elsewhere it has moved, who knows when.
        if self.flow.is_here() {
            opposites.extend(after.iter().filter_map(|after| orders.note(&name, after)));
        }
        drop(board);
        opposites.into_iter().for_each(Opposite::report);
    }

    fn change_protects(&self, change: impl FnOnce(&mut usize)) {
        let mut board = self.watch.board();
        let held = board.held.get_mut(&self.flow).into_iter().flatten();
        if let Some(holding) = held.into_iter().find(|holding| holding.id == self.id) {
            change(&mut holding.protects);
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.end();
    }
}

impl Opposite {
    fn report(self) {
        let Self(first, second) = self;
        let (first, second) = (first.label(), second.label());
        tracing::warn!(
            one = %format_args!("`{first}`, then `{second}`"),
            other = %format_args!("`{second}`, then `{first}`"),
            "two locks are taken in both orders, one while the other is held: two tasks that do so wait \
             for each other; take them in one order everywhere, or with `acquire_all`"
        );
    }
}
