//! Who waits for a change, and locks that were taken for them.
//!
//! The driver of a backend tries for those who wait. What it is granted is *parked* here under the
//! key; the first who waits is woken and finds it. A parked grant is an ordinary one: dropped, it is
//! released.

use std::borrow::Borrow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// Whoever was woken takes what is parked at once, or says that it left; this is for a task that
/// nobody polls any more.
const PARKED_FOR: Duration = Duration::from_secs(1);

/// Whose board it is.
pub(crate) trait Host: Sized + Send + Sync + 'static {
    /// Under which a lock is waited for.
    type Key: Clone + Eq + Hash + Send + Sync;
    /// What the driver needs to know of a lock.
    type About: Copy + Send + Sync;
    type Grant: Send;

    fn board(&self) -> &Board<Self>;

    /// Somebody has left.
    fn left(&self);
}

pub(crate) struct Board<H: Host>(Mutex<Table<H>>);

struct Table<H: Host> {
    rows: HashMap<H::Key, Row<H>>,
    last_id: u64,
    /// Keys that nobody waits for any more.
    left: Vec<H::Key>,
    /// What was parked, oldest first; it may have been taken since.
    parked: VecDeque<(Instant, H::Key)>,
}

struct Row<H: Host> {
    about: H::About,
    /// In order of arrival.
    watches: Vec<(u64, oneshot::Sender<()>)>,
    parked: Option<Parked<H::Grant>>,
}

struct Parked<G> {
    grant: G,
    /// The watch that was woken for it.
    woken: u64,
    since: Instant,
}

impl<H: Host> Default for Board<H> {
    fn default() -> Self {
        Self(Mutex::new(Table {
            rows: HashMap::new(),
            last_id: 0,
            left: Vec::new(),
            parked: VecDeque::new(),
        }))
    }
}

impl<H: Host> Board<H> {
    fn table(&self) -> MutexGuard<'_, Table<H>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers somebody who waits for a change.
    pub(crate) fn watch(host: Arc<H>, key: H::Key, about: H::About) -> Watch<H> {
        let (sender, woken) = oneshot::channel();
        let mut table = host.board().table();
        table.last_id += 1;
        let id = table.last_id;
        let row = table.rows.entry(key.clone()).or_insert_with(|| Row {
            about,
            watches: Vec::with_capacity(1),
            parked: None,
        });
        row.watches.push((id, sender));
        drop(table);
        Watch {
            host,
            key,
            id,
            woken,
            is_over: false,
        }
    }

    pub(crate) fn is_waited_for<Q>(&self, key: &Q) -> bool
    where
        H::Key: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.about(key).is_some()
    }

    /// What there is to know of a lock that somebody waits for.
    pub(crate) fn about<Q>(&self, key: &Q) -> Option<H::About>
    where
        H::Key: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let table = self.table();
        let row = table.rows.get(key).filter(|row| row.is_waited_for())?;
        Some(row.about)
    }

    /// Keys that nobody waits for any more, since the last call.
    pub(crate) fn take_left(&self) -> Vec<H::Key> {
        std::mem::take(&mut self.table().left)
    }

    /// Leaves a grant to whoever has waited longest. It comes back if nobody waits.
    pub(crate) fn park(&self, key: &H::Key, grant: H::Grant) -> Option<H::Grant> {
        let mut table = self.table();
        let row = table.rows.get_mut(key).filter(|row| row.is_waited_for());
        let Some(row) = row else {
            return Some(grant);
        };
        let (woken, sender) = row.watches.remove(0);
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
        // One that has just left finds what is parked for it when it is dropped.
        let _ = sender.send(());
        replaced.map(|parked| parked.grant)
    }

    /// Takes what is parked under a key.
    pub(crate) fn take_parked(&self, key: &H::Key) -> Option<H::Grant> {
        let mut table = self.table();
        let parked = table.rows.get_mut(key)?.parked.take();
        table.remove_if_empty(key);
        drop(table);
        Some(parked?.grant)
    }

    /// Gives back what was parked for somebody who does not come; gives when to look again.
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

    /// Wakes everybody: they ask for themselves, and hear why it does not work.
    pub(crate) fn wake_all(&self) {
        let mut table = self.table();
        let keys: Vec<_> = table.rows.keys().cloned().collect();
        let woken: Vec<_> = keys
            .iter()
            .flat_map(|key| table.take_watches(key))
            .collect();
        drop(table);
        wake(woken);
    }

    /// Wakes those who wait for one key.
    pub(crate) fn wake(&self, key: &H::Key) {
        let woken = self.table().take_watches(key);
        wake(woken);
    }

    fn leave(&self, key: &H::Key, id: u64) {
        let mut table = self.table();
        let Some(row) = table.rows.get_mut(key) else {
            return;
        };
        let position = row.watches.iter().position(|(other, _)| *other == id);
        let watch = position.map(|position| row.watches.remove(position));
        let parked = row.parked.take_if(|parked| parked.woken == id);
        table.note_if_left(key);
        table.remove_if_empty(key);
        drop(table);
        drop((watch, parked));
    }
}

#[cfg(feature = "postgres")]
impl<H: Host> Board<H> {
    /// Of all that are waited for.
    pub(crate) fn waited_for(&self) -> Vec<H::About> {
        let table = self.table();
        let waited = table.rows.values().filter(|row| row.is_waited_for());
        waited.map(|row| row.about).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table().rows.is_empty()
    }
}

/// Outside the lock: a waker may run what it likes.
fn wake(watches: Vec<(u64, oneshot::Sender<()>)>) {
    for (_, sender) in watches {
        // It may have left.
        let _ = sender.send(());
    }
}

impl<H: Host> Table<H> {
    fn take_watches(&mut self, key: &H::Key) -> Vec<(u64, oneshot::Sender<()>)> {
        let row = self.rows.get_mut(key);
        let watches = row.map(|row| std::mem::take(&mut row.watches));
        self.note_if_left(key);
        self.remove_if_empty(key);
        watches.unwrap_or_default()
    }

    fn note_if_left(&mut self, key: &H::Key) {
        if self.rows.get(key).is_some_and(|row| !row.is_waited_for()) {
            self.left.push(key.clone());
        }
    }

    fn remove_if_empty(&mut self, key: &H::Key) {
        if let Entry::Occupied(row) = self.rows.entry(key.clone())
            && row.get().watches.is_empty()
            && row.get().parked.is_none()
        {
            row.remove();
        }
    }
}

impl<H: Host> Row<H> {
    fn is_waited_for(&self) -> bool {
        !self.watches.is_empty()
    }
}

/// Completes when the lock may have become free. Registered from when it is made to its drop.
pub(crate) struct Watch<H: Host> {
    host: Arc<H>,
    key: H::Key,
    id: u64,
    woken: oneshot::Receiver<()>,
    is_over: bool,
}

// Nothing in it is pinned.
impl<H: Host> Unpin for Watch<H> {}

impl<H: Host> Future for Watch<H> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over {
            return Poll::Ready(());
        }
        // An error is a sender that was dropped, which is a change as well.
        Pin::new(&mut self.woken).poll(cx).map(|_| {
            // Whoever waited asks now, and finds what is parked.
            self.is_over = true;
        })
    }
}

impl<H: Host> Drop for Watch<H> {
    fn drop(&mut self) {
        if !self.is_over {
            self.host.board().leave(&self.key, self.id);
            self.host.left();
        }
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[derive(Default)]
    struct Locks(Board<Self>);

    impl Host for Locks {
        type Key = u8;
        type About = ();
        /// Dropped, it is given back.
        type Grant = Arc<()>;

        fn board(&self) -> &Board<Self> {
            &self.0
        }

        fn left(&self) {}
    }

    fn watch(locks: &Arc<Locks>) -> Watch<Locks> {
        Board::watch(Arc::clone(locks), 7, ())
    }

    fn is_given_back(grant: &Arc<()>) -> bool {
        Arc::strong_count(grant) == 1
    }

    #[test]
    fn a_grant_is_for_whoever_has_waited_longest() {
        let (locks, grant) = (Arc::<Locks>::default(), Arc::new(()));
        let (first, mut second) = (watch(&locks), watch(&locks));
        assert!(locks.0.park(&7, Arc::clone(&grant)).is_none());
        assert!(first.now_or_never().is_some() && (&mut second).now_or_never().is_none());
        assert!(locks.0.is_waited_for(&7), "the second waits on");
        assert!(locks.0.take_parked(&7).is_some() && is_given_back(&grant));
        drop(second);
        assert!(!locks.0.is_waited_for(&7) && locks.0.table().rows.is_empty());
        assert_eq!(locks.0.take_left(), [7]);
    }

    #[test]
    fn a_grant_that_nobody_waits_for_comes_back() {
        let locks = Arc::<Locks>::default();
        assert!(locks.0.park(&7, Arc::new(())).is_some());
        drop(watch(&locks));
        assert!(locks.0.park(&7, Arc::new(())).is_some());
    }

    #[test]
    fn what_was_parked_for_one_who_leaves_is_given_back() {
        let (locks, grant) = (Arc::<Locks>::default(), Arc::new(()));
        let (first, mut second) = (watch(&locks), watch(&locks));
        locks.0.park(&7, Arc::clone(&grant));
        // Woken, and gone before it has heard of it.
        drop(first);
        assert!(is_given_back(&grant) && locks.0.take_parked(&7).is_none());
        assert!(
            (&mut second).now_or_never().is_none(),
            "its release wakes it"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_parked_for_a_task_that_nobody_polls_is_given_back_after_a_second() {
        let (locks, grant) = (Arc::<Locks>::default(), Arc::new(()));
        let _forgotten = watch(&locks);
        locks.0.park(&7, Arc::clone(&grant));
        let due = locks.0.sweep();
        assert!(!is_given_back(&grant) && due == Some(Instant::now() + PARKED_FOR));
        advance(PARKED_FOR).await;
        assert!(locks.0.sweep().is_none() && is_given_back(&grant));
        // What was parked later is not what was due.
        let _other = watch(&locks);
        locks.0.park(&7, Arc::clone(&grant));
        advance(PARKED_FOR / 2).await;
        drop(locks.0.take_parked(&7));
        let _third = watch(&locks);
        locks.0.park(&7, Arc::clone(&grant));
        advance(PARKED_FOR / 2).await;
        assert!(locks.0.sweep().is_some() && !is_given_back(&grant));
    }
}
