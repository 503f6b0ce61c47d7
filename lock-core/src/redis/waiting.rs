//! Who waits for which lock, and which channels that takes.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::backend::RedisGrant;
use super::key::Key;
use super::shared::Shared;
use crate::server::{Board, Host, Watch};

/// How long a channel is kept that nobody waits at: who is refused once more registers again.
const LINGER: Duration = Duration::from_millis(100);

/// Who waits, and the channels on which they hear of a release.
#[derive(Default)]
pub(super) struct Waiting {
    board: Board<Shared>,
    channels: Mutex<Channels>,
    /// There is something to subscribe to, or to leave.
    pub(super) changed: Notify,
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
}

struct Channel {
    bucket: u8,
    state: State,
    /// How many wait here, or were woken and wait for the answer to their try.
    listeners: usize,
    left_at: Option<Instant>,
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
    /// When to look again.
    pub(super) again: Option<Instant>,
}

/// Completes when the lock may be free. Registered when this returns.
pub(super) fn register(shared: Arc<Shared>, key: &Key) -> Listener {
    let watch = Board::watch(Arc::clone(&shared), Arc::clone(&key.text), key.bucket);
    shared.waiting.listen(key);
    Listener {
        watch,
        shared,
        text: Arc::clone(&key.text),
    }
}

/// Waits at the board, and keeps the channel from its registration to its drop: also after it was woken,
/// while the try that it was woken for is not answered. Otherwise, where an answer takes longer than
/// [`LINGER`], the channel would be left before the waiter is back, and each of its tries would
/// subscribe, be woken by the confirmation and try again.
pub(super) struct Listener {
    watch: Watch<Shared>,
    shared: Arc<Shared>,
    text: Arc<str>,
}

impl Future for Listener {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.watch).poll(cx)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.waiting.stop_listening(&self.text);
    }
}

impl Host for Shared {
    type Key = Arc<str>;
    /// The bucket.
    type About = u8;
    type Grant = RedisGrant;

    fn board(&self) -> &Board<Self> {
        &self.waiting.board
    }

    fn left(&self) {
        self.waiting.changed.notify_one();
    }
}

impl Waiting {
    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody waits for this, and is at the board already.
    fn listen(&self, key: &Key) {
        let mut guard = self.channels();
        let channels = &mut *guard;
        let entry = channels.by_text.entry(Arc::clone(&key.text));
        let channel = entry.or_insert_with(|| {
            channels.news.push(Arc::clone(&key.text));
            Channel {
                bucket: key.bucket,
                state: State::Unknown,
                listeners: 0,
                left_at: None,
            }
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

    pub(super) fn is_waited_for(&self, key: &Key) -> bool {
        self.board.is_waited_for(&key.text)
    }

    /// What somebody waits for at this channel.
    pub(super) fn waited_at(&self, channel: &str) -> Option<Key> {
        let bucket = self.board.about(channel)?;
        let text = channel.into();
        Some(Key { text, bucket })
    }

    /// Leaves a grant to whoever has waited longest. Where nobody waits it is released.
    pub(super) fn park(&self, key: &Key, grant: RedisGrant) {
        drop(self.board.park(&key.text, grant));
        self.changed.notify_one();
    }

    /// What was taken for those who wait.
    pub(super) fn take_parked(&self, key: &Key) -> Option<RedisGrant> {
        self.board.take_parked(&key.text)
    }

    /// Whether messages of this channel come here.
    pub(super) fn is_subscribed(&self, key: &Key) -> bool {
        let channels = self.channels();
        let channel = channels.by_text.get(&key.text);
        channel.is_some_and(|channel| channel.state == State::Confirmed)
    }

    /// What there is to do now; each channel is given once.
    pub(super) fn work(&self, now: Instant) -> Work {
        let swept = self.board.sweep();
        let mut guard = self.channels();
        let channels = &mut *guard;
        let mut work = Work::default();
        // Channels count their listeners themselves.
        drop(self.board.take_left());
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
            channels.by_text.remove(&text);
        }
        let due = channels.left.front().map(|(left, _)| *left + LINGER);
        work.again = due.into_iter().chain(swept).min();
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

    /// The server sends messages of these from now on: whoever waits tries again, since a release
    /// before now went unheard.
    pub(super) fn confirmed(&self, asked: &Asked) {
        for key in &asked.keys {
            let mut channels = self.channels();
            if let Some(channel) = channels.by_text.get_mut(&key.text)
                && channel.state == State::Asked(asked.number)
            {
                channel.state = State::Confirmed;
                drop(channels);
                self.wake(&key.text);
            }
        }
    }

    /// There is no connection yet to ask for these.
    pub(super) fn put_back(&self, keys: &[Key]) {
        let mut guard = self.channels();
        let channels = &mut *guard;
        for key in keys {
            if let Some(channel) = channels.by_text.get_mut(&key.text) {
                channel.state = State::Unknown;
                channels.news.push(Arc::clone(&key.text));
            }
        }
    }

    /// These are not subscribed to any more, or could not be: to be asked for again.
    pub(super) fn forget(&self, is_gone: impl Fn(&Arc<str>, u8) -> bool) {
        let mut guard = self.channels();
        let channels = &mut *guard;
        for (text, channel) in &mut channels.by_text {
            if channel.state != State::Unknown && is_gone(text, channel.bucket) {
                channel.state = State::Unknown;
                channels.news.push(Arc::clone(text));
            }
        }
        drop(guard);
        self.changed.notify_one();
    }

    /// Whoever waits for it is to ask.
    pub(super) fn wake(&self, key: &Arc<str>) {
        self.board.wake(key);
        self.changed.notify_one();
    }

    /// Nobody is going to be woken by a message any more.
    pub(super) fn wake_all(&self) {
        self.board.wake_all();
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::redis::builder::RedisBuilder;

    fn key() -> Key {
        Key {
            text: "lock:{b7}:v1-one".into(),
            bucket: 7,
        }
    }

    fn shared() -> Arc<Shared> {
        let settings = RedisBuilder::parse("redis://127.0.0.1").settings();
        Arc::new(Shared::new(settings.unwrap()))
    }

    fn ask(shared: &Shared, now: Instant) -> Asked {
        let work = shared.waiting.work(now);
        Asked {
            keys: work.subscribe,
            number: work.number,
        }
    }

    /// Nothing but the newest counts, and it wakes.
    fn only_the_second_counts(
        shared: &Shared,
        asked: [Asked; 2],
        mut watch: impl Future<Output = ()> + Unpin,
    ) {
        let [first, second] = asked;
        let waiting = &shared.waiting;
        assert_eq!((first.keys.len(), second.keys.len()), (1, 1));
        waiting.confirmed(&first);
        assert!(!waiting.is_subscribed(&key()) && (&mut watch).now_or_never().is_none());
        waiting.confirmed(&second);
        assert!(waiting.is_subscribed(&key()) && watch.now_or_never().is_some());
    }

    #[test]
    fn a_late_confirmation_of_a_connection_that_is_lost_does_not_count() {
        let (shared, now) = (shared(), Instant::now());
        let watch = register(Arc::clone(&shared), &key());
        let first = ask(&shared, now);
        shared.waiting.forget(|_, _| true);
        let second = ask(&shared, now);
        only_the_second_counts(&shared, [first, second], watch);
    }

    #[test]
    fn a_late_confirmation_of_a_channel_that_was_left_since_does_not_count() {
        let (shared, now) = (shared(), Instant::now());
        let watch = register(Arc::clone(&shared), &key());
        let first = ask(&shared, now);
        drop(watch);
        let left = Instant::now();
        assert!(shared.waiting.work(now).leave.is_empty());
        assert_eq!(shared.waiting.work(left + LINGER).leave.len(), 1);
        let watch = register(Arc::clone(&shared), &key());
        let second = ask(&shared, left + LINGER);
        only_the_second_counts(&shared, [first, second], watch);
    }

    #[test]
    fn a_channel_that_somebody_came_back_to_is_kept() {
        let (shared, now) = (shared(), Instant::now());
        drop(register(Arc::clone(&shared), &key()));
        ask(&shared, now);
        let watch = register(Arc::clone(&shared), &key());
        assert!(shared.waiting.work(now + LINGER).leave.is_empty());
        drop(watch);
        ask(&shared, now);
        assert_eq!(shared.waiting.work(Instant::now() + LINGER).leave.len(), 1);
        assert!(shared.waiting.channels().by_text.is_empty());
    }

    #[test]
    fn a_channel_is_kept_while_the_try_of_a_waiter_that_was_woken_is_not_answered() {
        let shared = shared();
        let mut woken = register(Arc::clone(&shared), &key());
        let asked = ask(&shared, Instant::now());
        shared.waiting.confirmed(&asked);
        assert!((&mut woken).now_or_never().is_some());
        let later = Instant::now() + 10 * LINGER;
        assert!(shared.waiting.work(later).leave.is_empty());
        // Refused, it registers again and needs no other subscription.
        drop(woken);
        let again = register(Arc::clone(&shared), &key());
        let work = shared.waiting.work(later);
        assert!(work.leave.is_empty() && work.subscribe.is_empty());
        assert!(shared.waiting.is_subscribed(&key()));
        drop(again);
    }
}
