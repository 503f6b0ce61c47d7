//! Who waits for which lock, and which channels that takes.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::key::Key;
use super::shared::Shared;

/// How long a channel is kept that nobody waits at: who is refused once more registers again.
const LINGER: Duration = Duration::from_millis(100);

/// The table of who waits.
#[derive(Default)]
pub(super) struct Waiting {
    table: Mutex<Table>,
    /// There is something to subscribe to, or to leave.
    pub(super) changed: Notify,
}

#[derive(Default)]
struct Table {
    channels: HashMap<Arc<str>, Channel>,
    /// To be subscribed to.
    news: Vec<Arc<str>>,
    /// Left by the last that waited, the first to be given up first.
    left: VecDeque<(Instant, Arc<str>)>,
    last_id: u64,
    /// Counts the times that something was given out to be subscribed to.
    last_asked: u64,
}

struct Channel {
    bucket: u8,
    state: State,
    waiters: Vec<(u64, oneshot::Sender<()>)>,
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
pub(super) fn register(shared: Arc<Shared>, key: Key) -> impl Future<Output = ()> + Send + 'static {
    let (sender, woken) = oneshot::channel();
    let id = shared.waiting.enter(&key, sender);
    let leaving = Leaving { shared, key, id };
    async move {
        // An error is the end of the thread, which is a change as well.
        let _ = woken.await;
        drop(leaving);
    }
}

struct Leaving {
    shared: Arc<Shared>,
    key: Key,
    id: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.shared.waiting.leave(&self.key, self.id);
    }
}

impl Waiting {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, key: &Key, sender: oneshot::Sender<()>) -> u64 {
        let mut guard = self.table();
        let table = &mut *guard;
        table.last_id += 1;
        let id = table.last_id;
        let channel = table
            .channels
            .entry(Arc::clone(&key.text))
            .or_insert_with(|| {
                table.news.push(Arc::clone(&key.text));
                Channel {
                    bucket: key.bucket,
                    state: State::Unknown,
                    waiters: Vec::new(),
                    left_at: None,
                }
            });
        channel.waiters.push((id, sender));
        channel.left_at = None;
        let is_new = channel.state == State::Unknown;
        drop(guard);
        if is_new {
            self.changed.notify_one();
        }
        id
    }

    fn leave(&self, key: &Key, id: u64) {
        let mut guard = self.table();
        let table = &mut *guard;
        let Some(channel) = table.channels.get_mut(&key.text) else {
            return;
        };
        channel.waiters.retain(|(waiter, _)| *waiter != id);
        if !channel.waiters.is_empty() || channel.left_at.is_some() {
            return;
        }
        let now = Instant::now();
        channel.left_at = Some(now);
        // The subscriber looks again when the first of them is due.
        let is_first = table.left.is_empty();
        table.left.push_back((now, Arc::clone(&key.text)));
        drop(guard);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Whether messages of this channel come here.
    pub(super) fn is_subscribed(&self, key: &Key) -> bool {
        let table = self.table();
        table
            .channels
            .get(&key.text)
            .is_some_and(|channel| channel.state == State::Confirmed)
    }

    /// What there is to do now; each channel is given once.
    pub(super) fn work(&self, now: Instant) -> Work {
        let mut guard = self.table();
        let table = &mut *guard;
        let mut work = Work::default();
        while let Some((left, text)) = table.left.pop_front_if(|(left, _)| *left + LINGER <= now) {
            // Not if somebody has waited there since.
            let Some(channel) = table
                .channels
                .get(&text)
                .filter(|c| c.left_at == Some(left))
            else {
                continue;
            };
            if channel.state != State::Unknown {
                work.leave.push(Key {
                    text: Arc::clone(&text),
                    bucket: channel.bucket,
                });
            }
            table.channels.remove(&text);
        }
        work.again = table.left.front().map(|(left, _)| *left + LINGER);
        table.last_asked += 1;
        work.number = table.last_asked;
        for text in std::mem::take(&mut table.news) {
            if let Some(channel) = table.channels.get_mut(&text)
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
        let mut woken = Vec::new();
        let mut table = self.table();
        for key in &asked.keys {
            if let Some(channel) = table.channels.get_mut(&key.text)
                && channel.state == State::Asked(asked.number)
            {
                channel.state = State::Confirmed;
                woken.append(&mut channel.waiters);
            }
        }
        drop(table);
        wake(woken);
    }

    /// There is no connection yet to ask for these.
    pub(super) fn put_back(&self, keys: &[Key]) {
        let mut guard = self.table();
        let table = &mut *guard;
        for key in keys {
            if let Some(channel) = table.channels.get_mut(&key.text) {
                channel.state = State::Unknown;
                table.news.push(Arc::clone(&key.text));
            }
        }
    }

    /// These are not subscribed to any more, or could not be: to be asked for again.
    pub(super) fn forget(&self, is_gone: impl Fn(&Arc<str>, u8) -> bool) {
        let mut guard = self.table();
        let table = &mut *guard;
        for (text, channel) in &mut table.channels {
            if channel.state != State::Unknown && is_gone(text, channel.bucket) {
                channel.state = State::Unknown;
                table.news.push(Arc::clone(text));
            }
        }
        drop(guard);
        self.changed.notify_one();
    }

    /// A release was heard.
    pub(super) fn wake(&self, channel: &str) {
        let mut table = self.table();
        let woken = table
            .channels
            .get_mut(channel)
            .map(|channel| std::mem::take(&mut channel.waiters));
        drop(table);
        wake(woken.unwrap_or_default());
    }

    /// Nobody is going to be woken by a message any more.
    pub(super) fn wake_all(&self) {
        let channels = std::mem::take(&mut self.table().channels);
        wake(channels.into_values().flat_map(|channel| channel.waiters));
    }
}

/// Outside the lock: a waker may run what it likes.
fn wake(waiters: impl IntoIterator<Item = (u64, oneshot::Sender<()>)>) {
    for (_, waiter) in waiters {
        // It may have left.
        let _ = waiter.send(());
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
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
        mut woken: oneshot::Receiver<()>,
    ) {
        let [first, second] = asked;
        assert_eq!((first.keys.len(), second.keys.len()), (1, 1));
        waiting.confirmed(&first);
        assert!(!waiting.is_subscribed(&key()) && woken.try_recv().is_err());
        waiting.confirmed(&second);
        assert!(waiting.is_subscribed(&key()) && woken.try_recv().is_ok());
    }

    #[test]
    fn a_late_confirmation_of_a_connection_that_is_lost_does_not_count() {
        let (waiting, now) = (Waiting::default(), Instant::now());
        let (sender, woken) = oneshot::channel();
        waiting.enter(&key(), sender);
        let first = ask(&waiting, now);
        waiting.forget(|_, _| true);
        let second = ask(&waiting, now);
        only_the_second_counts(&waiting, [first, second], woken);
    }

    #[test]
    fn a_late_confirmation_of_a_channel_that_was_left_since_does_not_count() {
        let (waiting, now) = (Waiting::default(), Instant::now());
        let (sender, _) = oneshot::channel();
        let id = waiting.enter(&key(), sender);
        let first = ask(&waiting, now);
        waiting.leave(&key(), id);
        assert_eq!(waiting.work(now + 2 * LINGER).leave.len(), 1);
        let (sender, woken) = oneshot::channel();
        waiting.enter(&key(), sender);
        let second = ask(&waiting, now + 2 * LINGER);
        only_the_second_counts(&waiting, [first, second], woken);
    }
}
