//! Callers that wait for a lock, and the channels that wake them.
//!
//! A waiter relies on the messages of its channel only while the server has confirmed that it sends them.
//! Until then, and again when the connection that they came over is lost, its lock is asked for from time
//! to time: a release goes unnoticed no longer than that.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::key::Key;
use crate::server::leased::{KeyGrant, WaiterTable};
use crate::server::{Waiter, Waiters};

/// How long a channel is kept that has no waiter: one that is refused once more registers again.
const LINGER: Duration = Duration::from_millis(100);

/// When a lock is asked for first whose channel is not confirmed. The pause doubles each time, up to the
/// second.
const UNHEARD: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How often it is looked for such locks.
const TICK: Duration = Duration::from_millis(100);

/// How many of them are asked for at such a time; where there are more, those whose turn is longest ago.
const MOST: usize = 100;

/// The waiters, by the texts of their keys and with their buckets, and the channels of releases.
pub(super) struct Waiting {
    waiters: Arc<Waiters<Arc<str>, u8, KeyGrant<Key>>>,
    channels: Mutex<Channels>,
    /// There is something to subscribe to, or to leave.
    pub(super) changed: Arc<Notify>,
}

impl Default for Waiting {
    fn default() -> Self {
        let changed = Arc::<Notify>::default();
        Self {
            waiters: Arc::new(Waiters::new(Arc::clone(&changed))),
            channels: Mutex::default(),
            changed,
        }
    }
}

#[derive(Default)]
struct Channels {
    by_text: HashMap<Arc<str>, Channel>,
    /// To be subscribed to.
    news: Vec<Arc<str>>,
    /// Left by the last that waited, the first to be given up first.
    left: VecDeque<(Instant, Arc<str>)>,
    /// Counts the times that something was given out to be subscribed to.
    last_asked: u64,
    /// How many are confirmed.
    confirmed: usize,
    /// When it is looked for locks whose channels are not.
    look_at: Option<Instant>,
}

struct Channel {
    bucket: u8,
    state: State,
    /// How many wait here, or were woken and wait for the answer to their try.
    listeners: usize,
    left_at: Option<Instant>,
    /// When the lock is asked for while the channel is not confirmed, and how long after that once more.
    ask_at: Instant,
    pause: Duration,
}

impl Channel {
    fn new(bucket: u8) -> Self {
        Self {
            bucket,
            state: State::Unknown,
            listeners: 0,
            left_at: None,
            ask_at: Instant::now() + UNHEARD.0,
            pause: UNHEARD.0,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    /// The time that counts: a confirmation can come late, when the channel was left since, or lost
    /// with its connection, and is asked for once more.
    Asked(u64),
    Confirmed,
}

/// What was asked for at one time.
pub(super) struct Asked {
    pub(super) keys: Vec<Key>,
    pub(super) number: u64,
}

/// What the subscriber has to do.
#[derive(Default)]
pub(super) struct Work {
    pub(super) subscribe: Vec<Key>,
    /// Which time this is.
    pub(super) number: u64,
    pub(super) leave: Vec<Key>,
    /// To be asked for: no message would come.
    pub(super) ask: Vec<Key>,
    /// When to look again.
    pub(super) again: Option<Instant>,
}

/// Completes when the lock may be free. Registered when this returns.
pub(super) fn register(waiting: &Arc<Waiting>, key: &Key) -> Listener {
    let waiter = (waiting.waiters).register(Arc::clone(&key.text), key.bucket);
    waiting.listen(key);
    Listener {
        waiter,
        waiting: Arc::clone(waiting),
        text: Arc::clone(&key.text),
    }
}

/// A waiter that keeps its channel from its registration to its drop: also after it was woken, while the
/// try that it was woken for is not answered. Otherwise, where an answer takes longer than
/// [`LINGER`], the channel would be left before the waiter is back, and each of its tries would
/// subscribe, be woken by the confirmation and try again.
pub(super) struct Listener {
    waiter: Waiter<Arc<str>, u8, KeyGrant<Key>>,
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
        self.waiting.stop_listening(&self.text);
    }
}

impl WaiterTable for Waiting {
    type Key = Key;

    fn is_waited_for(&self, key: &Key) -> bool {
        self.waiters.is_waited_for(&key.text)
    }

    fn park(&self, key: &Key, grant: KeyGrant<Key>) {
        drop(self.waiters.park(&key.text, grant));
        self.changed.notify_one();
    }

    fn wake_waiters(&self, key: &Key) {
        self.wake(&key.text);
    }

    fn wake_all(&self) {
        self.waiters.wake_all();
    }
}

impl Waiting {
    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a waiter for this, which is registered already.
    fn listen(&self, key: &Key) {
        let mut guard = self.channels();
        let channels = &mut *guard;
        let entry = channels.by_text.entry(Arc::clone(&key.text));
        let channel = entry.or_insert_with(|| {
            channels.news.push(Arc::clone(&key.text));
            Channel::new(key.bucket)
        });
        channel.listeners += 1;
        channel.left_at = None;
        let is_new = channel.state == State::Unknown;
        drop(guard);
        if is_new {
            self.changed.notify_one();
        }
    }

    fn stop_listening(&self, text: &Arc<str>) {
        let mut guard = self.channels();
        let channels = &mut *guard;
        let Some(channel) = channels.by_text.get_mut(text) else {
            return;
        };
        channel.listeners -= 1;
        if channel.listeners > 0 {
            return;
        }
        let now = Instant::now();
        channel.left_at = Some(now);
        // Otherwise the subscriber has a timer for the first of them already.
        let is_first = channels.left.is_empty();
        channels.left.push_back((now, Arc::clone(text)));
        drop(guard);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// What is awaited at this channel.
    pub(super) fn waited_at(&self, channel: &str) -> Option<Key> {
        let bucket = self.waiters.about(channel)?;
        let text = channel.into();
        Some(Key { text, bucket })
    }

    /// What was acquired for the waiters and is still held.
    pub(super) fn take_valid(&self, key: &Key) -> Option<KeyGrant<Key>> {
        self.waiters.take_valid(&key.text)
    }

    /// Whether messages of this channel come here.
    pub(super) fn is_subscribed(&self, key: &Key) -> bool {
        let channels = self.channels();
        let channel = channels.by_text.get(&key.text);
        channel.is_some_and(|channel| channel.state == State::Confirmed)
    }

    /// What there is to do now; each channel is given once.
    pub(super) fn work(&self, now: Instant) -> Work {
        let swept = self.waiters.sweep();
        let mut guard = self.channels();
        let channels = &mut *guard;
        let mut work = Work::default();
        // Channels count their listeners themselves.
        drop(self.waiters.take_left());
        while let Some((left, text)) =
            (channels.left).pop_front_if(|(left, _)| *left + LINGER <= now)
        {
            // Not if another waiter has registered since.
            let channel = channels.by_text.get_mut(&text);
            let Some(channel) = channel.filter(|channel| channel.left_at == Some(left)) else {
                continue;
            };
            if channel.state != State::Unknown {
                work.leave.push(Key {
                    text: Arc::clone(&text),
                    bucket: channel.bucket,
                });
            }
            if channel.state == State::Confirmed {
                channels.confirmed -= 1;
            }
            channels.by_text.remove(&text);
        }
        work.ask = channels.unheard(now);
        let due = channels.left.front().map(|(left, _)| *left + LINGER);
        work.again = due.into_iter().chain(swept).chain(channels.look_at).min();
        channels.last_asked += 1;
        work.number = channels.last_asked;
        for text in std::mem::take(&mut channels.news) {
            if let Some(channel) = channels.by_text.get_mut(&text)
                && channel.state == State::Unknown
            {
                channel.state = State::Asked(work.number);
                work.subscribe.push(Key {
                    text,
                    bucket: channel.bucket,
                });
            }
        }
        work
    }

    /// The server sends messages of these from now on: the waiters try again, since a release before now
    /// went unnoticed.
    pub(super) fn confirmed(&self, asked: &Asked) {
        for key in &asked.keys {
            let mut channels = self.channels();
            if let Some(channel) = channels.by_text.get_mut(&key.text)
                && channel.state == State::Asked(asked.number)
            {
                channel.state = State::Confirmed;
                channels.confirmed += 1;
                drop(channels);
                self.wake(&key.text);
            }
        }
    }

    /// There is no connection yet to ask for these, or no answer that counts: once more.
    pub(super) fn put_back(&self, asked: &Asked) {
        let mut guard = self.channels();
        let channels = &mut *guard;
        for key in &asked.keys {
            if let Some(channel) = channels.by_text.get_mut(&key.text)
                && channel.state == State::Asked(asked.number)
            {
                channel.state = State::Unknown;
                channels.news.push(Arc::clone(&key.text));
            }
        }
    }

    /// These are not subscribed to any more, or could not be: to be asked for again.
    pub(super) fn forget(&self, is_gone: impl Fn(&Arc<str>, u8) -> bool) {
        let mut guard = self.channels();
        let channels = &mut *guard;
        let ask_at = Instant::now() + UNHEARD.0;
        for (text, channel) in &mut channels.by_text {
            if channel.state != State::Unknown && is_gone(text, channel.bucket) {
                if channel.state == State::Confirmed {
                    channels.confirmed -= 1;
                    (channel.ask_at, channel.pause) = (ask_at, UNHEARD.0);
                }
                channel.state = State::Unknown;
                channels.news.push(Arc::clone(text));
            }
        }
        drop(guard);
        self.changed.notify_one();
    }

    /// Its waiters are to try.
    fn wake(&self, key: &Arc<str>) {
        self.waiters.wake(key);
        self.changed.notify_one();
    }

    /// All locks of a bucket may be free.
    pub(super) fn wake_all_of(&self, bucket: u8) {
        let channels = self.channels();
        let all = channels.by_text.iter();
        let of_bucket = all.filter(|(_, channel)| channel.bucket == bucket);
        let texts: Vec<_> = of_bucket.map(|(text, _)| Arc::clone(text)).collect();
        drop(channels);
        texts.iter().for_each(|text| self.wake(text));
    }
}

impl Channels {
    /// Locks that are waited for without a channel that is confirmed, whose turn it is to be asked for.
    fn unheard(&mut self, now: Instant) -> Vec<Key> {
        if self.confirmed == self.by_text.len() {
            self.look_at = None;
            return Vec::new();
        }
        if *self.look_at.get_or_insert(now + TICK) > now {
            return Vec::new();
        }
        self.look_at = Some(now + TICK);
        let channels = self.by_text.iter_mut();
        let mut due: Vec<_> = channels
            .filter(|(_, channel)| {
                channel.state != State::Confirmed && channel.listeners > 0 && channel.ask_at <= now
            })
            .collect();
        if due.len() > MOST {
            due.select_nth_unstable_by_key(MOST, |(_, channel)| channel.ask_at);
            due.truncate(MOST);
        }
        let mut keys = Vec::with_capacity(due.len());
        for (text, channel) in due {
            channel.ask_at = now + channel.pause;
            channel.pause = (2 * channel.pause).min(UNHEARD.1);
            keys.push(Key {
                text: Arc::clone(text),
                bucket: channel.bucket,
            });
        }
        keys
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use futures_util::FutureExt;

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
        let watch = register(&waiting, &key());
        let first = ask(&waiting, now);
        waiting.forget(|_, _| true);
        let second = ask(&waiting, now);
        only_the_second_counts(&waiting, [first, second], watch);
    }

    #[test]
    fn a_late_confirmation_of_a_channel_that_was_left_since_does_not_count() {
        let (waiting, now) = (Arc::<Waiting>::default(), Instant::now());
        let watch = register(&waiting, &key());
        let first = ask(&waiting, now);
        drop(watch);
        let left = Instant::now();
        assert!(waiting.work(now).leave.is_empty());
        assert_eq!(waiting.work(left + LINGER).leave.len(), 1);
        let watch = register(&waiting, &key());
        let second = ask(&waiting, left + LINGER);
        only_the_second_counts(&waiting, [first, second], watch);
    }

    #[test]
    fn a_channel_is_kept_when_a_waiter_comes_back() {
        let (waiting, now) = (Arc::<Waiting>::default(), Instant::now());
        drop(register(&waiting, &key()));
        ask(&waiting, now);
        let watch = register(&waiting, &key());
        assert!(waiting.work(now + LINGER).leave.is_empty());
        drop(watch);
        ask(&waiting, now);
        assert_eq!(waiting.work(Instant::now() + LINGER).leave.len(), 1);
        let channels = waiting.channels();
        assert!(channels.by_text.is_empty() && channels.confirmed == 0);
    }

    #[test]
    fn a_lock_whose_channel_is_not_confirmed_is_asked_for_from_time_to_time() {
        let (waiting, start) = (Arc::<Waiting>::default(), Instant::now());
        let asked_in = |from: u64, to: u64| {
            let times = (from..to).map(|ms| start + Duration::from_millis(ms));
            times.map(|now| waiting.work(now).ask.len()).sum::<usize>()
        };
        let watch = register(&waiting, &key());
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
        let watches: Vec<_> = keys.map(|key| register(&waiting, &key)).collect();
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
        let mut woken = register(&waiting, &key());
        let asked = ask(&waiting, Instant::now());
        waiting.confirmed(&asked);
        assert!((&mut woken).now_or_never().is_some());
        let later = Instant::now() + 10 * LINGER;
        assert!(waiting.work(later).leave.is_empty());
        // Refused, it registers again and needs no other subscription.
        drop(woken);
        let again = register(&waiting, &key());
        let work = waiting.work(later);
        assert!(work.leave.is_empty() && work.subscribe.is_empty());
        assert!(waiting.is_subscribed(&key()));
        drop(again);
    }
}
