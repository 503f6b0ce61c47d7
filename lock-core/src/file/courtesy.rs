//! After you: whoever releases a lock that another backend waits for does not take it again at once.
//!
//! The queue of a process with many waiters sends its next try right after a release. A waiter
//! elsewhere has yet to wake up, and would lose every race. So a release that finds the mark of a
//! waiter opens a short window in which our own tries of that name are answered with "held".

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the other one may take to wake up. It costs this much when it has left meanwhile.
const WINDOW: Duration = Duration::from_millis(5);

/// The open windows. All are equally long, so the first to open is the first to close: there are
/// only as many as names were released in one window's time.
#[derive(Debug, Default)]
pub(super) struct Courtesies(Mutex<VecDeque<Window>>);

#[derive(Debug)]
struct Window {
    name: Arc<str>,
    closes: Instant,
}

impl Courtesies {
    /// The lock of this name is released, and another waits for it.
    pub(super) fn open(&self, name: &Arc<str>) {
        let (name, closes) = (Arc::clone(name), Instant::now() + WINDOW);
        self.windows().push_back(Window { name, closes });
    }

    /// How long we are to hold back.
    pub(super) fn remaining(&self, name: &str) -> Option<Duration> {
        let mut windows = self.windows();
        // Most of the time there are none, and no need to ask for the time.
        if windows.is_empty() {
            return None;
        }
        let now = Instant::now();
        while windows
            .pop_front_if(|window| window.closes <= now)
            .is_some()
        {}
        let window = windows.iter().rfind(|window| &*window.name == name)?;
        Some(window.closes - now)
    }

    /// The other has had its chance; whether we were holding back.
    pub(super) fn close(&self, name: &str) -> bool {
        let mut windows = self.windows();
        let before = windows.len();
        windows.retain(|window| &*window.name != name);
        windows.len() < before
    }

    fn windows(&self) -> MutexGuard<'_, VecDeque<Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_for_its_name_and_closes_by_itself() {
        let courtesies = Courtesies::default();
        let (name, other) = (Arc::from("a.lock"), "b.lock");
        assert_eq!(courtesies.remaining(&name), None);
        courtesies.open(&name);
        assert!(
            courtesies
                .remaining(&name)
                .is_some_and(|left| left <= WINDOW)
        );
        assert_eq!(courtesies.remaining(other), None);
        std::thread::sleep(WINDOW);
        assert_eq!(courtesies.remaining(&name), None);
        assert!(courtesies.windows().is_empty());
    }

    #[test]
    fn a_window_is_closed_once() {
        let courtesies = Courtesies::default();
        let name = Arc::from("a.lock");
        courtesies.open(&name);
        assert!(!courtesies.close("b.lock"));
        assert!(courtesies.close(&name));
        assert!(!courtesies.close(&name));
        assert_eq!(courtesies.remaining(&name), None);
    }
}
