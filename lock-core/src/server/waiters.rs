//! Callers that wait for a lock, in order of arrival, and grants that were acquired for them.
//!
//! The driver of a backend tries for the waiters. What it is granted is *parked* here under the key; the
//! first waiter is woken and finds it. A parked grant is an ordinary one: dropped, it is released.

use std::borrow::Borrow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backend::{Grant, LockRequest};
use crate::oneshot;

/// A waiter that was woken takes what is parked immediately, or unregisters; this is for a task that is
/// not polled any more.
const PARKED_FOR: Duration = Duration::from_secs(1);

/// The waiters of one backend: a lock is awaited under its key `K`, of which the driver needs to know `A`;
/// grants are `G`.
pub(crate) struct Waiters<K, A, G> {
    table: Mutex<Table<K, A, G>>,
    /// Notified when a waiter has left without having been woken.
    left: Arc<Notify>,
}

struct Table<K, A, G> {
    rows: HashMap<K, Row<A, G>>,
    last_id: u64,
    /// Keys that had a waiter and have none.
    left: HashSet<K>,
    /// What was parked, oldest first; it may have been taken since.
    parked: VecDeque<(Instant, K)>,
}

struct Row<A, G> {
    about: A,
    /// In order of arrival.
    waiters: Vec<(u64, oneshot::Sender<()>)>,
    parked: Option<Parked<G>>,
}

struct Parked<G> {
    grant: G,
    /// The waiter that was woken for it.
    woken: u64,
    since: Instant,
}

impl<K, A, G> Waiters<K, A, G>
where
    K: Clone + Eq + Hash,
    A: Copy,
{
    /// Without waiters; `left` is notified whenever one leaves without having been woken.
    pub(crate) fn new(left: Arc<Notify>) -> Self {
        Self {
            table: Mutex::new(Table {
                rows: HashMap::new(),
                last_id: 0,
                left: HashSet::new(),
                parked: VecDeque::new(),
            }),
            left,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table<K, A, G>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a waiter, until it is woken or dropped.
    pub(crate) fn register(self: &Arc<Self>, key: K, about: A) -> Waiter<K, A, G> {
        let (sender, woken) = oneshot::channel();
        let mut table = self.table();
        table.last_id += 1;
        let id = table.last_id;
        let row = table.rows.entry(key.clone()).or_insert_with(|| Row {
            about,
            waiters: Vec::with_capacity(1),
            parked: None,
        });
        row.waiters.push((id, sender));
        drop(table);
        Waiter {
            waiters: Arc::clone(self),
            key,
            id,
            woken,
            is_over: false,
        }
    }

    pub(crate) fn is_waited_for<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.about(key).is_some()
    }

    /// What the driver needs to know of a lock that has a waiter.
    pub(crate) fn about<Q>(&self, key: &Q) -> Option<A>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let table = self.table();
        let row = table.rows.get(key).filter(|row| row.is_waited_for())?;
        Some(row.about)
    }

    /// Keys whose last waiter has left or was woken, since the last call.
    pub(crate) fn take_left(&self) -> HashSet<K> {
        std::mem::take(&mut self.table().left)
    }

    /// Leaves a grant to the first waiter. It comes back if there is none.
    pub(crate) fn park(&self, key: &K, grant: G) -> Option<G> {
        let mut table = self.table();
        let row = table.rows.get_mut(key).filter(|row| row.is_waited_for());
        let Some(row) = row else {
            return Some(grant);
        };
        let (woken, sender) = row.waiters.remove(0);
        let since = Instant::now();
        let parked = Parked {
            grant,
            woken,
            since,
        };
        let replaced = row.parked.replace(parked);
        table.parked.push_back((since, key.clone()));
        table.note_if_left(key);
        drop(table);
        // A waiter that has just left finds what is parked for it when it is dropped.
        let _ = sender.send(());
        replaced.map(|parked| parked.grant)
    }

    /// Takes what is parked under a key.
    fn take_parked(&self, key: &K) -> Option<G> {
        let mut table = self.table();
        let parked = table.rows.get_mut(key)?.parked.take();
        table.remove_if_empty(key);
        drop(table);
        Some(parked?.grant)
    }

    /// Releases what was parked for waiters that did not take it in time; gives when to look again.
    pub(crate) fn sweep(&self) -> Option<Instant> {
        let mut table = self.table();
        let now = Instant::now();
        let mut stale = Vec::new();
        while let Some((since, key)) =
            (table.parked).pop_front_if(|(since, _)| *since + PARKED_FOR <= now)
        {
            let row = table.rows.get_mut(&key);
            stale.extend(row.and_then(|row| row.parked.take_if(|parked| parked.since == since)));
            table.remove_if_empty(&key);
        }
        let again = table.parked.front().map(|(since, _)| *since + PARKED_FOR);
        drop(table);
        drop(stale);
        again
    }

    /// Wakes all waiters: they try for themselves, and are given the error.
    pub(crate) fn wake_all(&self) {
        let mut table = self.table();
        let keys: Vec<_> = table.rows.keys().cloned().collect();
        let woken: Vec<_> = keys
            .iter()
            .flat_map(|key| table.take_waiters(key))
            .collect();
        drop(table);
        wake(woken);
    }

    /// Wakes the waiters of one key.
    pub(crate) fn wake(&self, key: &K) {
        let woken = self.table().take_waiters(key);
        wake(woken);
    }

    fn leave(&self, key: &K, id: u64) {
        let mut table = self.table();
        if let Some(row) = table.rows.get_mut(key) {
            let position = row.waiters.iter().position(|(other, _)| *other == id);
            let waiter = position.map(|position| row.waiters.remove(position));
            let parked = row.parked.take_if(|parked| parked.woken == id);
            table.note_if_left(key);
            table.remove_if_empty(key);
            drop(table);
            drop((waiter, parked));
        } else {
            drop(table);
        }
        self.left.notify_one();
    }
}

impl<K: Clone + Eq + Hash, A: Copy, G: Grant> Waiters<K, A, G> {
    /// Takes what is parked under a key, if it is still held.
    pub(crate) fn take_valid(&self, key: &K) -> Option<G> {
        (self.take_parked(key)).filter(|grant| grant.lease().is_valid())
    }

    /// The same for this request. A lock that is to be [kept](LockRequest::at_least) is asked for anew, since the
    /// store was not asked for that: the release of what is parked travels before that acquire, or with it.
    pub(crate) fn take_for(&self, key: &K, request: &LockRequest) -> Option<G> {
        self.take_valid(key)
            .filter(|_| request.at_least().is_none())
    }
}

#[cfg(feature = "postgres")]
impl<K, A: Copy, G> Waiters<K, A, G> {
    /// Of all locks that have a waiter.
    pub(crate) fn waited_for(&self) -> Vec<A> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = table.rows.values().filter(|row| row.is_waited_for());
        waited.map(|row| row.about).collect()
    }

    /// The locks that have a waiter.
    pub(crate) fn keys(&self) -> Vec<K>
    where
        K: Clone,
    {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = table.rows.iter().filter(|(_, row)| row.is_waited_for());
        waited.map(|(key, _)| key.clone()).collect()
    }

    /// This lock as it is known here, if it has a waiter.
    pub(crate) fn waited_key<Q>(&self, key: &Q) -> Option<K>
    where
        K: Borrow<Q> + Clone + Eq + Hash,
        Q: Eq + Hash + ?Sized,
    {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, row) = table.rows.get_key_value(key)?;
        row.is_waited_for().then(|| key.clone())
    }

    pub(crate) fn is_empty(&self) -> bool {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.rows.is_empty()
    }
}

/// Outside the lock: a waker may run what it likes.
fn wake(waiters: Vec<(u64, oneshot::Sender<()>)>) {
    for (_, sender) in waiters {
        // It may have left.
        let _ = sender.send(());
    }
}

impl<K: Clone + Eq + Hash, A, G> Table<K, A, G> {
    fn take_waiters(&mut self, key: &K) -> Vec<(u64, oneshot::Sender<()>)> {
        let row = self.rows.get_mut(key);
        let waiters = row.map(|row| std::mem::take(&mut row.waiters));
        self.note_if_left(key);
        self.remove_if_empty(key);
        waiters.unwrap_or_default()
    }

    fn note_if_left(&mut self, key: &K) {
        if self.rows.get(key).is_some_and(|row| !row.is_waited_for()) {
            self.left.insert(key.clone());
        }
    }

    fn remove_if_empty(&mut self, key: &K) {
        if let Entry::Occupied(row) = self.rows.entry(key.clone())
            && row.get().waiters.is_empty()
            && row.get().parked.is_none()
        {
            row.remove();
        }
    }
}

impl<A, G> Row<A, G> {
    const fn is_waited_for(&self) -> bool {
        !self.waiters.is_empty()
    }
}

/// Completes when the lock may have become free. Registered from when it is made to its drop.
pub(crate) struct Waiter<K, A, G>
where
    K: Clone + Eq + Hash,
    A: Copy,
{
    waiters: Arc<Waiters<K, A, G>>,
    key: K,
    id: u64,
    woken: oneshot::Receiver<()>,
    is_over: bool,
}

// Nothing in it is pinned.
impl<K: Clone + Eq + Hash, A: Copy, G> Unpin for Waiter<K, A, G> {}

impl<K: Clone + Eq + Hash, A: Copy, G> Future for Waiter<K, A, G> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over {
            return Poll::Ready(());
        }
        // An error is a sender that was dropped, which is a change as well.
        Pin::new(&mut self.woken).poll(cx).map(|_| {
            // The caller tries now, and finds what is parked.
            self.is_over = true;
        })
    }
}

impl<K: Clone + Eq + Hash, A: Copy, G> Drop for Waiter<K, A, G> {
    fn drop(&mut self) {
        if !self.is_over {
            self.waiters.leave(&self.key, self.id);
        }
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    /// A grant that is dropped is released.
    type Locks = Waiters<u8, (), Arc<()>>;

    fn locks() -> Arc<Locks> {
        Arc::new(Waiters::new(Arc::default()))
    }

    fn wait(locks: &Arc<Locks>) -> Waiter<u8, (), Arc<()>> {
        locks.register(7, ())
    }

    fn is_released(grant: &Arc<()>) -> bool {
        Arc::strong_count(grant) == 1
    }

    #[test]
    fn a_grant_is_for_the_first_waiter() {
        let (locks, grant) = (locks(), Arc::new(()));
        let (first, mut second) = (wait(&locks), wait(&locks));
        assert!(locks.park(&7, Arc::clone(&grant)).is_none());
        assert!(first.now_or_never().is_some() && (&mut second).now_or_never().is_none());
        assert!(locks.is_waited_for(&7), "the second waits on");
        assert!(locks.take_parked(&7).is_some() && is_released(&grant));
        drop(second);
        assert!(!locks.is_waited_for(&7) && locks.table().rows.is_empty());
        assert_eq!(locks.take_left(), HashSet::from([7]));
    }

    #[test]
    fn a_key_that_is_left_again_and_again_is_noted_once() {
        let locks = locks();
        for _ in 0..1_000 {
            drop(wait(&locks));
            let _woken = wait(&locks);
            locks.wake_all();
        }
        assert_eq!(locks.table().left.len(), 1);
        assert_eq!(locks.take_left(), HashSet::from([7]));
        assert!(locks.take_left().is_empty());
    }

    #[test]
    fn a_grant_without_a_waiter_comes_back() {
        let locks = locks();
        assert!(locks.park(&7, Arc::new(())).is_some());
        drop(wait(&locks));
        assert!(locks.park(&7, Arc::new(())).is_some());
    }

    #[test]
    fn what_was_parked_for_a_waiter_that_leaves_is_released() {
        let (locks, grant) = (locks(), Arc::new(()));
        let (first, mut second) = (wait(&locks), wait(&locks));
        locks.park(&7, Arc::clone(&grant));
        // Woken, and gone before it was polled.
        drop(first);
        assert!(is_released(&grant) && locks.take_parked(&7).is_none());
        assert!(
            (&mut second).now_or_never().is_none(),
            "its release wakes it"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_parked_for_a_task_that_is_not_polled_is_released() {
        let (locks, grant) = (locks(), Arc::new(()));
        let _forgotten = wait(&locks);
        locks.park(&7, Arc::clone(&grant));
        let due = locks.sweep();
        assert!(!is_released(&grant) && due == Some(Instant::now() + PARKED_FOR));
        advance(PARKED_FOR).await;
        assert!(locks.sweep().is_none() && is_released(&grant));
        // What was parked later is not what was due.
        let _other = wait(&locks);
        locks.park(&7, Arc::clone(&grant));
        advance(PARKED_FOR / 2).await;
        drop(locks.take_parked(&7));
        let _third = wait(&locks);
        locks.park(&7, Arc::clone(&grant));
        advance(PARKED_FOR / 2).await;
        assert!(locks.sweep().is_some() && !is_released(&grant));
    }
}
