//! The channels of releases: which are to be subscribed to, which are confirmed, which are to be left. And the places
//! that writers who wait at them have before readers: which are not needed any more.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::LockMode;
use crate::redis::key::Key;

/// How long a channel is kept that has no waiter: one that is refused once more registers again.
pub(super) const LINGER: Duration = Duration::from_millis(100);

/// When a lock is asked for first whose channel is not confirmed. The pause doubles each time, up to the
/// second.
const UNHEARD: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How often it is looked for such locks.
const TICK: Duration = Duration::from_millis(100);

/// How many of them are asked for at such a time; where there are more, those whose turn is longest ago.
const MOST: usize = 100;

/// The channels that are wanted, by the texts of their keys.
#[derive(Default)]
pub(super) struct Channels {
    by_text: HashMap<Arc<str>, Channel>,
    /// To be subscribed to.
    news: Vec<Arc<str>>,
    /// Left by the last that waited, the first to be given up first.
    left: VecDeque<(Instant, Arc<str>)>,
    /// Counts the times that something was given out to be subscribed to.
    last_asked: u64,
    /// Left by the last writer that waited, with its place.
    left_by_writers: VecDeque<(Instant, Arc<str>)>,
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
    /// How many of them are writers.
    writers: usize,
    left_by_writers_at: Option<Instant>,
    /// The places of these.
    places: Vec<u64>,
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
            writers: 0,
            left_by_writers_at: None,
            places: Vec::new(),
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
pub(in crate::redis) struct Asked {
    pub(in crate::redis) keys: Vec<Key>,
    pub(in crate::redis) number: u64,
}

/// What the subscriber has to do.
#[derive(Default)]
pub(in crate::redis) struct Work {
    pub(in crate::redis) subscribe: Vec<Key>,
    /// Which time this is.
    pub(in crate::redis) number: u64,
    pub(in crate::redis) leave: Vec<Key>,
    /// To be asked for: no message would come.
    pub(in crate::redis) ask: Vec<Key>,
    /// Places to give back, each with the connection that it was taken over.
    pub(in crate::redis) give_back: Vec<(Key, u64)>,
    /// When to look again.
    pub(in crate::redis) again: Option<Instant>,
}

impl Channels {
    /// One more waits here; says whether the channel is to be subscribed to.
    pub(super) fn listen(&mut self, key: &Key, mode: LockMode) -> bool {
        let entry = self.by_text.entry(Arc::clone(&key.text));
        let channel = entry.or_insert_with(|| {
            self.news.push(Arc::clone(&key.text));
            Channel::new(key.bucket)
        });
        channel.listeners += 1;
        channel.left_at = None;
        if mode == LockMode::Exclusive {
            channel.writers += 1;
            channel.left_by_writers_at = None;
        }
        channel.state == State::Unknown
    }

    /// One waits here no longer; says whether the channel, or a place at it, is now the first of those to be given up.
    pub(super) fn stop_listening(&mut self, text: &Arc<str>, mode: LockMode, now: Instant) -> bool {
        let Some(channel) = self.by_text.get_mut(text) else {
            return false;
        };
        let mut is_first = false;
        if mode == LockMode::Exclusive {
            channel.writers -= 1;
            if channel.writers == 0 && !channel.places.is_empty() {
                channel.left_by_writers_at = Some(now);
                self.left_by_writers.push_back((now, Arc::clone(text)));
                is_first = self.left_by_writers.len() == 1;
            }
        }
        channel.listeners -= 1;
        if channel.listeners == 0 {
            channel.left_at = Some(now);
            self.left.push_back((now, Arc::clone(text)));
            is_first |= self.left.len() == 1;
        }
        is_first
    }

    /// Whether a reader waits here, or was woken and waits for the answer to its try.
    pub(super) fn has_readers(&self, text: &str) -> bool {
        let channel = self.by_text.get(text);
        channel.is_some_and(|channel| channel.listeners > channel.writers)
    }

    /// Whether a writer waits here, or was woken and waits for the answer to its try.
    pub(super) fn has_writers(&self, text: &str) -> bool {
        let channel = self.by_text.get(text);
        channel.is_some_and(|channel| channel.writers > 0)
    }

    /// A writer has a place, which was taken over this connection; says whether it is to be given back already, since
    /// none waits any more.
    pub(super) fn took_place(&mut self, key: &Key, connection: u64) -> bool {
        let channel = self.by_text.get_mut(&key.text);
        let Some(channel) = channel.filter(|channel| channel.writers > 0) else {
            return true;
        };
        if !channel.places.contains(&connection) {
            channel.places.push(connection);
        }
        false
    }

    /// A writer was granted the lock: the places that are to be given back. Another one that waits takes its place with
    /// its next try.
    pub(super) fn needs_no_place(&mut self, key: &Key) -> Vec<u64> {
        let channel = self.by_text.get_mut(&key.text);
        let places = channel.map(|channel| std::mem::take(&mut channel.places));
        places.unwrap_or_default()
    }

    /// All places, which are given back.
    pub(super) fn take_places(&mut self) -> Vec<(Key, u64)> {
        let mut all = Vec::new();
        for (text, channel) in &mut self.by_text {
            for connection in std::mem::take(&mut channel.places) {
                let (text, bucket) = (Arc::clone(text), channel.bucket);
                all.push((Key { text, bucket }, connection));
            }
        }
        all
    }

    /// Gives up the places that the last writer has left long enough ago: one that is woken and refused once more
    /// registers again.
    fn unneeded(&mut self, now: Instant) -> Vec<(Key, u64)> {
        let mut unneeded = Vec::new();
        while let Some((left, text)) =
            (self.left_by_writers).pop_front_if(|(left, _)| *left + LINGER <= now)
        {
            let channel = self.by_text.get_mut(&text);
            if let Some(channel) = channel.filter(|it| it.left_by_writers_at == Some(left)) {
                let (places, bucket) = (std::mem::take(&mut channel.places), channel.bucket);
                let key = Key { text, bucket };
                let places = places.into_iter();
                unneeded.extend(places.map(|connection| (key.clone(), connection)));
            }
        }
        unneeded
    }

    pub(super) fn is_confirmed(&self, text: &str) -> bool {
        let channel = self.by_text.get(text);
        channel.is_some_and(|channel| channel.state == State::Confirmed)
    }

    /// What there is to do now; each channel is given once.
    pub(super) fn work(&mut self, now: Instant) -> Work {
        let give_back = self.unneeded(now);
        let leave = self.given_up(now);
        let ask = self.unheard(now);
        let left = [self.left.front(), self.left_by_writers.front()];
        let due = left.into_iter().flatten().map(|(left, _)| *left + LINGER);
        self.last_asked += 1;
        let number = self.last_asked;
        let mut subscribe = Vec::new();
        for text in std::mem::take(&mut self.news) {
            if let Some(channel) = self.by_text.get_mut(&text)
                && channel.state == State::Unknown
            {
                channel.state = State::Asked(number);
                let bucket = channel.bucket;
                subscribe.push(Key { text, bucket });
            }
        }
        Work {
            subscribe,
            number,
            leave,
            ask,
            give_back,
            again: due.chain(self.look_at).min(),
        }
    }

    /// Forgets the channels that were left long enough ago; gives those to unsubscribe from.
    fn given_up(&mut self, now: Instant) -> Vec<Key> {
        let mut leave = Vec::new();
        while let Some((left, text)) = (self.left).pop_front_if(|(left, _)| *left + LINGER <= now) {
            // Not if another waiter has registered since.
            let channel = self.by_text.get(&text);
            let Some(channel) = channel.filter(|channel| channel.left_at == Some(left)) else {
                continue;
            };
            let (bucket, state) = (channel.bucket, channel.state);
            self.by_text.remove(&text);
            if state == State::Confirmed {
                self.confirmed -= 1;
            }
            if state != State::Unknown {
                leave.push(Key { text, bucket });
            }
        }
        leave
    }

    /// The server has confirmed this channel; says whether that counts.
    pub(super) fn confirm(&mut self, text: &str, number: u64) -> bool {
        let channel = self.by_text.get_mut(text);
        let Some(channel) = channel.filter(|channel| channel.state == State::Asked(number)) else {
            return false;
        };
        channel.state = State::Confirmed;
        self.confirmed += 1;
        true
    }

    /// Those that were asked for at this time and no other are to be subscribed to once more.
    pub(super) fn put_back(&mut self, asked: &Asked) {
        for key in &asked.keys {
            if let Some(channel) = self.by_text.get_mut(&key.text)
                && channel.state == State::Asked(asked.number)
            {
                channel.state = State::Unknown;
                self.news.push(Arc::clone(&key.text));
            }
        }
    }

    /// Those of which `is_gone` says so are not confirmed any more, and to be subscribed to once more.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&Arc<str>, u8) -> bool) {
        let ask_at = Instant::now() + UNHEARD.0;
        for (text, channel) in &mut self.by_text {
            if channel.state != State::Unknown && is_gone(text, channel.bucket) {
                if channel.state == State::Confirmed {
                    self.confirmed -= 1;
                    (channel.ask_at, channel.pause) = (ask_at, UNHEARD.0);
                }
                channel.state = State::Unknown;
                self.news.push(Arc::clone(text));
            }
        }
    }

    /// Those of the locks of a bucket.
    pub(super) fn of_bucket(&self, bucket: u8) -> Vec<Arc<str>> {
        let of_bucket = (self.by_text.iter()).filter(|(_, channel)| channel.bucket == bucket);
        of_bucket.map(|(text, _)| Arc::clone(text)).collect()
    }

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
impl Channels {
    pub(super) fn are_none(&self) -> bool {
        self.by_text.is_empty() && self.confirmed == 0
    }
}
