//! The places that writers of this process have before readers.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::waiters::TableKey;

/// How long a place is kept that no writer waits for: one that was woken and is refused once more registers again.
const LINGER: Duration = Duration::from_millis(100);

/// Locks whose writers wait here, and which readers have refused to them: each of their tries takes the place again.
/// All that was taken, or may have been, is among them until it is given up.
#[derive(Default)]
pub(super) struct Places {
    by_key: HashMap<TableKey, Place>,
}

struct Place {
    /// When it is taken again: three times in the time that it lasts.
    again: Instant,
    /// When the last writer was seen to have left.
    left: Option<Instant>,
}

impl Places {
    /// A writer is to have a place from its next try on; whether that is new.
    pub(super) fn want(&mut self, key: &TableKey, lasts: Duration) -> bool {
        let is_new = !self.contains(key);
        if is_new {
            self.taken(key, lasts);
        }
        is_new
    }

    /// A writer has a place, which lasts this long.
    pub(super) fn taken(&mut self, key: &TableKey, lasts: Duration) {
        let again = Instant::now() + lasts / 3;
        let place = Place { again, left: None };
        self.by_key.insert(key.clone(), place);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn contains(&self, key: &TableKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// A writer of this process was granted the lock, and its place has ended with that.
    pub(super) fn granted(&mut self, key: &TableKey) {
        // Most locks are never read.
        if !self.by_key.is_empty() {
            self.by_key.remove(key);
        }
    }

    /// Those that are to be given up: no writer has waited for them for long enough.
    pub(super) fn left(&mut self, is_waited: impl Fn(&TableKey) -> bool) -> Vec<TableKey> {
        let now = Instant::now();
        let has_left = |key: &TableKey, place: &mut Place| {
            if is_waited(key) {
                place.left = None;
                return false;
            }
            *place.left.get_or_insert(now) + LINGER <= now
        };
        let left = self.by_key.extract_if(has_left);
        left.map(|(key, _)| key).collect()
    }

    /// Those that are to be taken again, by a try.
    pub(super) fn due(&mut self, lasts: Duration) -> Vec<TableKey> {
        let now = Instant::now();
        let due = self.by_key.iter_mut();
        let due = due.filter(|(_, place)| place.again <= now);
        due.map(|(key, place)| {
            place.again = now + lasts / 3;
            key.clone()
        })
        .collect()
    }

    /// When to look again for such.
    pub(super) fn next(&self) -> Option<Instant> {
        (!self.by_key.is_empty()).then(|| Instant::now() + LINGER)
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LASTS: Duration = Duration::from_secs(30);

    fn key() -> TableKey {
        TableKey::new("", &"order:process:42".parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_given_up_a_moment_after_the_last_writer_has_left() {
        let mut places = Places::default();
        assert!(
            places.next().is_none() && places.want(&key(), LASTS) && !places.want(&key(), LASTS)
        );
        assert!(places.left(|_| true).is_empty());
        advance(LINGER * 2).await;
        assert!(places.left(|_| false).is_empty(), "it may come back");
        advance(LINGER / 2).await;
        assert!(places.left(|_| true).is_empty(), "it has come back");
        advance(LINGER / 2).await;
        assert!(places.left(|_| false).is_empty());
        advance(LINGER).await;
        assert_eq!(places.left(|_| false), [key()]);
        assert!(places.next().is_none() && places.left(|_| false).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_ends_with_the_grant() {
        let mut places = Places::default();
        places.taken(&key(), LASTS);
        places.granted(&key());
        assert!(!places.contains(&key()) && places.next().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_taken_again_three_times_in_the_time_that_it_lasts() {
        let mut places = Places::default();
        places.taken(&key(), LASTS);
        for _ in 0..3 {
            assert!(places.due(LASTS).is_empty());
            advance(LASTS / 3).await;
            assert_eq!(places.due(LASTS), [key()]);
        }
        // By a try of its own as well, but not by one that does not take it.
        advance(LASTS / 4).await;
        places.taken(&key(), LASTS);
        advance(LASTS / 4).await;
        assert!(places.due(LASTS).is_empty() && !places.want(&key(), LASTS));
        advance(LASTS / 12).await;
        assert_eq!(places.due(LASTS), [key()]);
    }
}
