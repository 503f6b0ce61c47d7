//! Two masters behind one address: which there are, and that no lock is granted while there are two.
//!
//! What is held goes on, at the server that has it. See [`behind`](super::behind) for how they are seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::ConnectionAddr;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::LockError;

/// After how long without being seen a master counts for one that the address does not lead to any more: of
/// two that connections come to by chance, each is seen many times meanwhile.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// For how long a look counts that found one server.
const COUNTS: Duration = Duration::from_secs(1);

/// A server that the address led to.
pub(super) struct Sight {
    pub(super) run_id: String,
    /// As an error names it.
    pub(super) name: String,
    pub(super) is_master: bool,
}

/// What is known to be behind the address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// No master answered.
    Nothing,
    /// What the only master calls itself.
    One(String),
    Two,
}

#[derive(Default)]
pub(super) struct Split {
    is_on: AtomicBool,
    /// Whether the last split has ended, and the master that is left does not know of it.
    has_ended: AtomicBool,
    /// Whether the commands are to go to the last master that was alone.
    is_followed: AtomicBool,
    state: Mutex<State>,
    /// A connection has come to another master than that of the commands.
    doubted: Notify,
}

#[derive(Default)]
struct State {
    /// By what they call themselves: as an error names them, and when they were seen last.
    masters: BTreeMap<String, (String, Instant)>,
    /// Why nothing is granted.
    error: Option<LockError>,
    /// The last master that was alone.
    alone: Option<(String, Instant)>,
}

impl Split {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are two.
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// Why no lock is granted, if there are two.
    pub(super) fn error(&self) -> Option<LockError> {
        if !self.is_on() {
            return None;
        }
        let state = self.state();
        state
            .error
            .as_ref()
            .map(LockError::duplicate_as_unavailable)
    }

    /// Notes which servers this address led to, all at one time. Two of them that are masters are a split, which
    /// ends when one is left: the other is a replica now, or was not seen for a while.
    pub(super) fn saw(&self, address: &ConnectionAddr, sights: &[Sight]) -> Behind {
        let now = Instant::now();
        let mut state = self.state();
        if !self.is_on() {
            // What was seen before may have been replaced since.
            state.masters.clear();
        }
        for sight in sights {
            if sight.is_master {
                let seen = (sight.name.clone(), now);
                state.masters.insert(sight.run_id.clone(), seen);
            } else {
                state.masters.remove(&sight.run_id);
            }
        }
        (state.masters).retain(|_, (_, seen)| now.duration_since(*seen) < FORGOTTEN);
        let names: Vec<_> = state.masters.values().map(|(name, _)| &**name).collect();
        if let [first, second, ..] = names[..] {
            state.error = Some(two_masters(address, first, second));
            self.is_on.store(true, Ordering::Release);
            return Behind::Two;
        }
        match state.masters.keys().next() {
            Some(one) if sights.iter().any(|sight| sight.is_master) => {
                let one = one.clone();
                state.alone = Some((one.clone(), now));
                if self.is_on() {
                    // Before a lock can be granted.
                    self.has_ended.store(true, Ordering::Release);
                    self.is_on.store(false, Ordering::Release);
                }
                Behind::One(one)
            }
            _ => Behind::Nothing,
        }
    }

    /// Whether this server was the only master a moment ago.
    pub(super) fn was_alone(&self, run_id: &str) -> bool {
        let state = self.state();
        let alone = state.alone.as_ref();
        alone.is_some_and(|(alone, at)| alone == run_id && at.elapsed() < COUNTS)
    }

    /// The commands are to go to the last master that was alone.
    pub(super) fn follow(&self) {
        self.is_followed.store(true, Ordering::Release);
    }

    /// Whether a split has ended, once for each. A process that is at the other master may not know yet, and holds
    /// what it has there.
    pub(super) fn take_end(&self) -> bool {
        take(&self.has_ended)
    }

    /// What the master calls itself that the commands are to go to, once for each time.
    pub(super) fn take_followed(&self) -> Option<String> {
        if !take(&self.is_followed) {
            return None;
        }
        let state = self.state();
        state.alone.as_ref().map(|(alone, _)| alone.clone())
    }

    /// Another master has answered than that of the commands: it is to be found out what that means.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Returns after the next doubt.
    pub(super) async fn doubted(&self) {
        self.doubted.notified().await;
    }
}

/// Whether it was set, once for each time. The driver asks in each of its turns: mostly that is a read.
fn take(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Acquire) && flag.swap(false, Ordering::AcqRel)
}

/// Which both would grant a lock.
pub(super) fn two_masters(address: &ConnectionAddr, first: &str, second: &str) -> LockError {
    LockError::misconfigured(format!(
        "the Redis address {address} leads to two masters, so that two processes could hold one lock: {first} and \
         {second}; give the address of one server, which leads there alone, those of nodes of one cluster, or \
         those of the Sentinels that name the master (`redis+sentinel://`)"
    ))
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use super::*;

    fn sight(run_id: &str, is_master: bool) -> Sight {
        Sight {
            run_id: run_id.to_owned(),
            name: format!("`{run_id}`"),
            is_master,
        }
    }

    fn saw(split: &Split, sights: &[(&str, bool)]) -> Behind {
        let address = ConnectionAddr::Tcp("redis".to_owned(), 6379);
        let sights: Vec<_> = sights.iter().map(|(id, is)| sight(id, *is)).collect();
        split.saw(&address, &sights)
    }

    #[tokio::test(start_paused = true)]
    async fn a_split_ends_when_the_other_master_is_a_replica_or_was_long_not_seen() {
        let (split, one) = (Split::default(), Behind::One("a".to_owned()));
        assert_eq!(saw(&split, &[("a", true), ("b", false)]), one);
        assert_eq!(saw(&split, &[("a", true), ("b", true)]), Behind::Two);
        let said = split.error().unwrap().to_string();
        assert!(said.contains("`a` and `b`") && said.contains("redis:6379"));
        assert_eq!(saw(&split, &[("a", true)]), Behind::Two);
        assert_eq!(saw(&split, &[("a", true), ("b", false)]), one);
        assert!(split.error().is_none());
        assert_eq!(saw(&split, &[("a", true), ("b", true)]), Behind::Two);
        tokio::time::advance(FORGOTTEN).await;
        assert_eq!(saw(&split, &[]), Behind::Nothing);
        assert!(split.is_on(), "nothing is known");
        assert_eq!(saw(&split, &[("a", true)]), one);
    }

    #[tokio::test(start_paused = true)]
    async fn a_master_that_takes_the_place_of_another_is_no_split() {
        let split = Split::default();
        assert_eq!(saw(&split, &[("a", true)]), Behind::One("a".to_owned()));
        assert_eq!(saw(&split, &[("b", true)]), Behind::One("b".to_owned()));
        assert!(split.was_alone("b") && !split.was_alone("a"));
        tokio::time::advance(COUNTS).await;
        assert!(!split.was_alone("b"));
    }
}
