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
    Asked,
    Confirmed,
}

/// What the subscriber has to do.
#[derive(Default)]
pub(super) struct Work {
    pub(super) subscribe: Vec<Key>,
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

    pub(super) fn is_empty(&self) -> bool {
        self.table().channels.is_empty()
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
        for text in std::mem::take(&mut table.news) {
            if let Some(channel) = table.channels.get_mut(&text)
                && channel.state == State::Unknown
            {
                channel.state = State::Asked;
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
    pub(super) fn confirmed(&self, keys: &[Key]) {
        let mut woken = Vec::new();
        let mut table = self.table();
        for key in keys {
            if let Some(channel) = table.channels.get_mut(&key.text)
                && channel.state == State::Asked
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
