//! Callers that wait for a lock, and the channels that wake them.
//!
//! A waiter relies on the messages of its channel only while the server has confirmed that it sends them.
//! Until then, and again when the connection that they came over is lost, its lock is asked for from time
//! to time: a release goes unnoticed no longer than that.
//!
//! The driver tries for the writers, and wakes the readers of a lock together: each tries for itself.

mod channels;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::time::Instant;

use self::channels::Channels;
pub(super) use self::channels::{Asked, Work};
use super::key::Key;
use crate::LockMode;
use crate::backend::LockRequest;
use crate::server::leased::{KeyGrant, WaiterTable};
use crate::server::{Waiter, Waiters};

/// The waiters, by the texts of their keys and with their buckets, and the channels of releases.
pub(super) struct Waiting {
    writers: Arc<Waiters<Arc<str>, u8, KeyGrant<Key>>>,
    /// Nothing is parked for these.
    readers: Arc<Waiters<Arc<str>, u8, KeyGrant<Key>>>,
    /// Whether a writer has had a place before readers; where there are no readers none has.
    had_places: AtomicBool,
    channels: Mutex<Channels>,
    /// There is something to subscribe to, or to leave.
    pub(super) changed: Arc<Notify>,
}

impl Default for Waiting {
    fn default() -> Self {
        let changed = Arc::<Notify>::default();
        Self {
            writers: Arc::new(Waiters::new(Arc::clone(&changed))),
            readers: Arc::new(Waiters::new(Arc::clone(&changed))),
            had_places: AtomicBool::new(false),
            channels: Mutex::default(),
            changed,
        }
    }
}

/// Completes when the lock may be free. Registered when this returns.
pub(super) fn register(waiting: &Arc<Waiting>, key: &Key, mode: LockMode) -> Listener {
    let table = match mode {
        LockMode::Exclusive => &waiting.writers,
        LockMode::Shared => &waiting.readers,
    };
    let waiter = table.register(Arc::clone(&key.text), key.bucket);
    waiting.listen(key, mode);
    Listener {
        waiter,
        mode,
        waiting: Arc::clone(waiting),
        text: Arc::clone(&key.text),
    }
}

/// A waiter that keeps its channel from its registration to its drop: also after it was woken, while the
/// try that it was woken for is not answered. Otherwise, where an answer takes longer than
/// [`LINGER`](channels::LINGER), the channel would be left before the waiter is back, and each of its tries would
/// subscribe, be woken by the confirmation and try again.
pub(super) struct Listener {
    waiter: Waiter<Arc<str>, u8, KeyGrant<Key>>,
    mode: LockMode,
    waiting: Arc<Waiting>,
    text: Arc<str>,
}

impl Future for Listener {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.waiter).poll(cx)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.waiting.stop_listening(&self.text, self.mode);
    }
}

impl WaiterTable for Waiting {
    type Key = Key;

    fn is_waited_for(&self, key: &Key) -> bool {
        self.writers.is_waited_for(&key.text)
    }

    fn park(&self, key: &Key, grant: KeyGrant<Key>) {
        drop(self.writers.park(&key.text, grant));
        self.changed.notify_one();
    }

    fn wake_waiters(&self, key: &Key) {
        self.wake(&key.text);
    }

    fn wake_all(&self) {
        self.writers.wake_all();
        self.readers.wake_all();
    }
}

impl Waiting {
    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a waiter for this, which is registered already.
    fn listen(&self, key: &Key, mode: LockMode) {
        let is_to_be_subscribed = self.channels().listen(key, mode);
        if is_to_be_subscribed {
            self.changed.notify_one();
        }
    }

    fn stop_listening(&self, text: &Arc<str>, mode: LockMode) {
        let is_first_left = (self.channels()).stop_listening(text, mode, Instant::now());
        // Otherwise the subscriber has a timer for the first of them already.
        if is_first_left {
            self.changed.notify_one();
        }
    }

    /// What writers wait for at this channel.
    pub(super) fn waited_at(&self, channel: &str) -> Option<Key> {
        let bucket = self.writers.about(channel)?;
        let text = channel.into();
        Some(Key { text, bucket })
    }

    /// The readers that wait at this channel are to try.
    pub(super) fn wake_readers(&self, channel: &str) {
        if self.readers.is_waited_for(channel) {
            self.readers.wake(&channel.into());
        }
    }

    /// Whether a reader waits for this, or was woken and waits for the answer to its try.
    pub(super) fn has_readers(&self, key: &Key) -> bool {
        self.channels().has_readers(&key.text)
    }

    /// Whether a writer waits for this, or was woken and waits for the answer to its try.
    pub(super) fn has_writers(&self, key: &Key) -> bool {
        self.channels().has_writers(&key.text)
    }

    /// A writer has a place before readers, which was taken over this connection; says whether it is to be given back
    /// already.
    pub(super) fn took_place(&self, key: &Key, connection: u64) -> bool {
        self.had_places.store(true, Ordering::Relaxed);
        self.channels().took_place(key, connection)
    }

    /// A writer was granted this: the places to give back, each by the connection that it was taken over. The thread
    /// that settles answers is the one that has noted them.
    pub(super) fn needs_no_place(&self, key: &Key) -> Vec<u64> {
        match self.had_places.load(Ordering::Relaxed) {
            true => self.channels().needs_no_place(key),
            false => Vec::new(),
        }
    }

    /// The places of all writers, each with the connection that it was taken over: they are to be given back.
    pub(super) fn take_places(&self) -> Vec<(Key, u64)> {
        self.channels().take_places()
    }

    /// What was acquired for the waiters, is still held, and serves this request.
    pub(super) fn take_for(&self, key: &Key, request: &LockRequest) -> Option<KeyGrant<Key>> {
        match request.mode() {
            LockMode::Exclusive => self.writers.take_for(&key.text, request),
            LockMode::Shared => None,
        }
    }

    /// Whether messages of this channel come here.
    pub(super) fn is_subscribed(&self, key: &Key) -> bool {
        self.channels().is_confirmed(&key.text)
    }

    /// What there is to do now; each channel is given once.
    pub(super) fn work(&self, now: Instant) -> Work {
        let swept = self.writers.sweep();
        // Channels count their listeners themselves.
        drop((self.writers.take_left(), self.readers.take_left()));
        let mut work = self.channels().work(now);
        work.again = work.again.into_iter().chain(swept).min();
        work
    }

    /// The server sends messages of these from now on: the waiters try again, since a release before now
    /// went unnoticed.
    pub(super) fn confirmed(&self, asked: &Asked) {
        for key in &asked.keys {
            let is_confirmed = self.channels().confirm(&key.text, asked.number);
            if is_confirmed {
                self.wake(&key.text);
            }
        }
    }

    /// There is no connection yet to ask for these, or no answer that counts: once more.
    pub(super) fn put_back(&self, asked: &Asked) {
        self.channels().put_back(asked);
    }

    /// These are not subscribed to any more, or could not be: to be asked for again.
    pub(super) fn forget(&self, is_gone: impl Fn(&Arc<str>, u8) -> bool) {
        self.channels().forget(is_gone);
        self.changed.notify_one();
    }

    /// Its waiters are to try.
    fn wake(&self, key: &Arc<str>) {
        self.writers.wake(key);
        self.readers.wake(key);
        self.changed.notify_one();
    }

    /// All locks of a bucket may be free.
    pub(super) fn wake_all_of(&self, bucket: u8) {
        let texts = self.channels().of_bucket(bucket);
        texts.iter().for_each(|text| self.wake(text));
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::channels::LINGER;
    use super::*;

    fn key() -> Key {
        Key {
            text: "lock:{b7}:v1-one".into(),
            bucket: 7,
        }
    }

    fn ask(waiting: &Waiting, now: Instant) -> Asked {
        let work = waiting.work(now);
        Asked {
            keys: work.subscribe,
            number: work.number,
        }
    }

    /// Nothing but the newest counts, and it wakes.
    fn only_the_second_counts(
        waiting: &Waiting,
        asked: [Asked; 2],
        mut watch: impl Future<Output = ()> + Unpin,
    ) {
        let [first, second] = asked;
        assert_eq!((first.keys.len(), second.keys.len()), (1, 1));
        waiting.confirmed(&first);
        assert!(!waiting.is_subscribed(&key()) && (&mut watch).now_or_never().is_none());
        waiting.confirmed(&second);
        assert!(waiting.is_subscribed(&key()) && watch.now_or_never().is_some());
    }

    #[test]
    fn a_late_confirmation_of_a_connection_that_is_lost_does_not_count() {
        let (waiting, now) = (Arc::<Waiting>::default(), Instant::now());
        let watch = register(&waiting, &key(), LockMode::Exclusive);
        let first = ask(&waiting, now);
        waiting.forget(|_, _| true);
        let second = ask(&waiting, now);
        only_the_second_counts(&waiting, [first, second], watch);
    }

    #[test]
    fn a_late_confirmation_of_a_channel_that_was_left_since_does_not_count() {
        let (waiting, now) = (Arc::<Waiting>::default(), Instant::now());
        let watch = register(&waiting, &key(), LockMode::Exclusive);
        let first = ask(&waiting, now);
        drop(watch);
        let left = Instant::now();
        assert!(waiting.work(now).leave.is_empty());
        assert_eq!(waiting.work(left + LINGER).leave.len(), 1);
        let watch = register(&waiting, &key(), LockMode::Exclusive);
        let second = ask(&waiting, left + LINGER);
        only_the_second_counts(&waiting, [first, second], watch);
    }

    #[test]
    fn a_channel_is_kept_when_a_waiter_comes_back() {
        let (waiting, now) = (Arc::<Waiting>::default(), Instant::now());
        drop(register(&waiting, &key(), LockMode::Exclusive));
        ask(&waiting, now);
        let watch = register(&waiting, &key(), LockMode::Exclusive);
        assert!(waiting.work(now + LINGER).leave.is_empty());
        drop(watch);
        ask(&waiting, now);
        assert_eq!(waiting.work(Instant::now() + LINGER).leave.len(), 1);
        let channels = waiting.channels();
        assert!(channels.are_none());
    }

    #[test]
    fn a_lock_whose_channel_is_not_confirmed_is_asked_for_from_time_to_time() {
        let (waiting, start) = (Arc::<Waiting>::default(), Instant::now());
        let asked_in = |from: u64, to: u64| {
            let times = (from..to).map(|ms| start + Duration::from_millis(ms));
            times.map(|now| waiting.work(now).ask.len()).sum::<usize>()
        };
        let watch = register(&waiting, &key(), LockMode::Exclusive);
        let first = ask(&waiting, start);
        // Made a moment after the start.
        assert_eq!(asked_in(1, 100), 0);
        assert!((5..=8).contains(&asked_in(100, 3_000)));
        waiting.confirmed(&first);
        assert_eq!(asked_in(3_000, 6_000), 0);
        // The connection is lost, and there is no other.
        waiting.forget(|_, _| true);
        assert!(asked_in(6_000, 6_500) > 0);
        drop(watch);
        assert_eq!(asked_in(6_500, 9_000), 0, "no waiter is left");
    }

    #[test]
    fn however_many_locks_are_waited_for_few_are_asked_for_at_a_time_and_all_have_their_turn() {
        let (waiting, start) = (Arc::<Waiting>::default(), Instant::now());
        let keys = (0..1_000).map(|id| Key {
            text: format!("lock:{{b7}}:v1-{id}").into(),
            bucket: 7,
        });
        let watches: Vec<_> = keys
            .map(|key| register(&waiting, &key, LockMode::Exclusive))
            .collect();
        let mut asked = std::collections::HashSet::new();
        for second in 1..=2 {
            let mut count = 0;
            for ms in 0..1_000 {
                let now = start + Duration::from_millis(second * 1_000 + ms);
                let keys = waiting.work(now).ask;
                count += keys.len();
                asked.extend(keys);
            }
            assert!(count <= 1_000, "{count} in a second");
        }
        assert_eq!(asked.len(), watches.len());
    }

    #[test]
    fn a_channel_is_kept_while_the_try_of_a_waiter_that_was_woken_is_not_answered() {
        let waiting = Arc::<Waiting>::default();
        let mut woken = register(&waiting, &key(), LockMode::Exclusive);
        let asked = ask(&waiting, Instant::now());
        waiting.confirmed(&asked);
        assert!((&mut woken).now_or_never().is_some());
        let later = Instant::now() + 10 * LINGER;
        assert!(waiting.work(later).leave.is_empty());
        // Refused, it registers again and needs no other subscription.
        drop(woken);
        let again = register(&waiting, &key(), LockMode::Exclusive);
        let work = waiting.work(later);
        assert!(work.leave.is_empty() && work.subscribe.is_empty());
        assert!(waiting.is_subscribed(&key()));
        drop(again);
    }

    #[test]
    fn a_place_is_given_back_a_moment_after_the_last_writer_has_left() {
        let (waiting, now) = (Arc::<Waiting>::default(), Instant::now());
        let reader = register(&waiting, &key(), LockMode::Shared);
        let writer = register(&waiting, &key(), LockMode::Exclusive);
        // Over two connections, and one of them twice.
        assert!(
            [7, 8, 7]
                .iter()
                .all(|via| !waiting.took_place(&key(), *via))
        );
        assert!(waiting.has_writers(&key()) && waiting.work(now).give_back.is_empty());
        drop(writer);
        // One that is refused once more registers again.
        assert!(waiting.work(now).give_back.is_empty());
        let again = register(&waiting, &key(), LockMode::Exclusive);
        assert!(waiting.work(Instant::now() + LINGER).give_back.is_empty());
        drop(again);
        let work = waiting.work(Instant::now() + LINGER);
        assert_eq!(work.give_back, [(key(), 7), (key(), 8)]);
        assert!(work.leave.is_empty(), "the reader waits on");
        assert!(waiting.work(Instant::now() + LINGER).give_back.is_empty());
        assert!(waiting.took_place(&key(), 9), "none waits for it");
        drop(reader);
    }

    #[test]
    fn a_writer_that_is_granted_the_lock_gives_back_its_place() {
        let waiting = Arc::<Waiting>::default();
        assert!(waiting.needs_no_place(&key()).is_empty());
        let writer = register(&waiting, &key(), LockMode::Exclusive);
        assert!(!waiting.took_place(&key(), 7));
        assert_eq!(waiting.needs_no_place(&key()), [7]);
        drop(writer);
        let work = waiting.work(Instant::now() + LINGER);
        assert!(work.give_back.is_empty());
    }

    #[test]
    fn readers_are_woken_together_and_writers_are_tried_for() {
        let waiting = Arc::<Waiting>::default();
        let readers = [(); 2].map(|()| register(&waiting, &key(), LockMode::Shared));
        assert!(waiting.waited_at(&key().text).is_none());
        let mut writer = register(&waiting, &key(), LockMode::Exclusive);
        waiting.wake_readers(&key().text);
        for reader in readers {
            assert!(reader.now_or_never().is_some());
        }
        assert!((&mut writer).now_or_never().is_none());
        assert_eq!(waiting.waited_at(&key().text), Some(key()));
    }
}
