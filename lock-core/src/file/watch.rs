//! Tells those who wait when a lock may have become free.
//!
//! On Linux by [`inotify`]. Where there is none, where it is refused, or where polling was chosen, there is no
//! news, which costs time and nothing else: a waiter also asks again by itself.

#[cfg(target_os = "linux")]
mod inotify;
#[cfg(not(target_os = "linux"))]
#[path = "watch/unwatched.rs"]
mod inotify;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use self::inotify::Listener;
use super::hand_over::HandOvers;
use crate::outage::{Outage, SoFar};

/// Who waits for what. Dropping the last one ends the thread.
#[derive(Debug)]
pub(super) struct Watch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    /// Whether the directory is never watched.
    polls: bool,
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "of events"))]
    hand_overs: Arc<HandOvers>,
    state: Mutex<State>,
    outage: Mutex<Outage>,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<Arc<str>, Name>,
    listener: Listener,
}

#[derive(Debug, Default)]
struct Name {
    changed: Arc<Notify>,
    waiting: usize,
}

/// A caller waits for a name; it is registered as long as this lives.
#[derive(Debug)]
pub(super) struct Registration {
    watch: Arc<Watch>,
    name: Arc<str>,
    notified: Pin<Box<OwnedNotified>>,
}

impl Watch {
    pub(super) fn new(directory: PathBuf, polls: bool, hand_overs: Arc<HandOvers>) -> Arc<Self> {
        Arc::new(Self(Arc::new(Shared {
            directory,
            polls,
            hand_overs,
            state: Mutex::default(),
            outage: Mutex::new(Outage::new()),
        })))
    }

    /// Registers now: what changes after this call completes [`Registration::changed`].
    pub(super) fn register(self: &Arc<Self>, name: Arc<str>) -> Registration {
        let mut state = self.0.state();
        let entry = state.names.entry(Arc::clone(&name)).or_default();
        entry.waiting += 1;
        let mut notified = Box::pin(Arc::clone(&entry.changed).notified_owned());
        notified.as_mut().enable();
        // Watched already, as it mostly is, says nothing new.
        let is_quiet = self.0.polls || state.listener.listens();
        let listened = (!is_quiet).then(|| self.0.listen(&mut state));
        drop(state);
        match listened {
            Some(Err(error)) => self.0.report_refusal(&error),
            Some(Ok(())) => self.0.report_recovery(),
            None => {}
        }
        Registration {
            watch: Arc::clone(self),
            name,
            notified,
        }
    }

    pub(super) fn is_awaited(&self, name: &str) -> bool {
        self.0.state().names.contains_key(name)
    }

    /// How many names are waited for.
    pub(super) fn awaited(&self) -> usize {
        self.0.state().names.len()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.state().listener.end();
    }
}

impl Registration {
    /// Completes when the lock may have become free.
    pub(super) async fn changed(mut self) {
        self.notified.as_mut().await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.watch.0.state();
        if let Some(name) = state.names.get_mut(&self.name) {
            name.waiting -= 1;
            if name.waiting == 0 {
                state.names.remove(&self.name);
            }
        }
    }
}

impl Shared {
    fn report_refusal(&self, error: &io::Error) {
        self.outage().failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                directory = %self.directory.display(), %error, failures, lasting,
                "no inotify for the lock directory (see `fs.inotify.max_user_instances`); \
                 waiters for file locks ask again every few milliseconds instead"
            );
        });
    }

    fn report_recovery(&self) {
        self.outage().over(|lasted| {
            tracing::info!(
                directory = %self.directory.display(), ?lasted,
                "inotify for the lock directory works again"
            );
        });
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::task::{Context, Poll, Waker};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::file::lock_file::tests::until;

    struct Watched {
        directory: tempfile::TempDir,
        hand_overs: Arc<HandOvers>,
        watch: Arc<Watch>,
    }

    fn watched() -> Watched {
        let directory = tempfile::tempdir().unwrap();
        let hand_overs = Arc::<HandOvers>::default();
        let watch = Watch::new(directory.path().to_owned(), false, Arc::clone(&hand_overs));
        Watched {
            directory,
            hand_overs,
            watch,
        }
    }

    impl Watched {
        fn path(&self) -> &Path {
            self.directory.path()
        }

        fn register(&self, name: &str) -> Registration {
            self.watch.register(name.into())
        }
    }

    fn is_told(registration: &mut Registration) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        matches!(
            registration.notified.as_mut().poll(&mut cx),
            Poll::Ready(())
        )
    }

    #[test]
    fn a_release_between_the_registration_and_the_first_poll_is_told() {
        let watched = watched();
        let file = watched.path().join("a.lock");
        fs::write(&file, "").unwrap();
        let (mut a, mut b) = (watched.register("a.lock"), watched.register("b.lock"));
        fs::remove_file(file).unwrap();
        until("a removal", || is_told(&mut a));
        assert!(!is_told(&mut b), "another name");
    }

    #[test]
    fn the_end_of_a_holder_is_told_and_that_of_a_try_is_not() {
        let watched = watched();
        let file = watched.path().join("a.lock");
        let holder = File::create(&file).unwrap();
        let mut a = watched.register("a.lock");
        drop(File::open(&file).unwrap());
        thread::sleep(Duration::from_millis(50));
        assert!(!is_told(&mut a), "a try");
        drop(holder);
        until("the end of a holder", || is_told(&mut a));
    }

    #[test]
    fn a_reader_that_waits_is_told_of_the_writers_that_waited_and_of_no_others() {
        let watched = watched();
        let file = watched.path().join("a.wait");
        let closed = File::create(&file).unwrap();
        let (mut a, mut b) = (watched.register("a.lock"), watched.register("b.lock"));
        // As another reader looks at it.
        drop(File::open(&file).unwrap());
        thread::sleep(Duration::from_millis(50));
        assert!(!is_told(&mut a), "a look");
        // As a writer that has died.
        drop(closed);
        until("the end of the writers", || is_told(&mut a));
        let mut a = watched.register("a.lock");
        fs::remove_file(file).unwrap();
        until("a removal", || is_told(&mut a));
        assert!(!is_told(&mut b), "another name");
        // Those that begin to wait open nothing.
        let mut a = watched.register("a.lock");
        let _closed = File::create(watched.path().join("a.wait")).unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(!is_told(&mut a), "another writer");
    }

    #[test]
    fn a_waker_that_panics_is_not_the_end_of_the_thread() {
        struct Panics;
        impl std::task::Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("on purpose");
            }
        }
        let watched = watched();
        let (mut a, mut b) = (watched.register("a.lock"), watched.register("b.lock"));
        let waker = Waker::from(Arc::new(Panics));
        let polled = a.notified.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        for name in ["a.lock", "b.lock"] {
            fs::write(watched.path().join(name), "").unwrap();
        }
        until("the other is told", || is_told(&mut b));
        let mut c = watched.register("c.lock");
        fs::write(watched.path().join("c.lock"), "").unwrap();
        until("who comes later is told", || is_told(&mut c));
    }

    #[test]
    fn what_is_closed_after_its_removal_is_not_told_again() {
        let watched = watched();
        let file = watched.path().join("a.lock");
        let holder = File::create(&file).unwrap();
        let mut a = watched.register("a.lock");
        fs::remove_file(file).unwrap();
        until("a removal", || is_told(&mut a));
        let mut a = watched.register("a.lock");
        drop(holder);
        thread::sleep(Duration::from_millis(50));
        assert!(!is_told(&mut a));
    }

    #[test]
    fn a_hand_over_ends_when_another_process_takes_the_lock() {
        let watched = watched();
        let name: Arc<str> = "a.lock".into();
        let mut a = watched.register(&name);
        fs::write(watched.path().join("b.lock"), "").unwrap();
        drop(
            File::options()
                .create(true)
                .append(true)
                .open(watched.path().join("c.lock"))
                .unwrap(),
        );
        thread::sleep(Duration::from_millis(50));
        assert!(!is_told(&mut a));
        // Windows close by themselves: opened until the event was in time.
        until("a closed window", || {
            watched.hand_overs.begin(&name);
            let _ = fs::remove_file(watched.path().join("a.lock"));
            let mut a = watched.register(&name);
            let holder = File::create(watched.path().join("a.lock")).unwrap();
            thread::sleep(Duration::from_millis(2));
            let told = is_told(&mut a) && watched.hand_overs.remaining(&name).is_none();
            drop(holder);
            told
        });
    }

    #[test]
    fn the_directory_is_watched_only_while_somebody_waits() {
        let watched = watched();
        let is_watching = || watched.watch.0.state().listener.listens();
        for _ in 0..3 {
            let registration = watched.register("a.lock");
            assert!(is_watching() && watched.watch.is_awaited("a.lock"));
            drop(registration);
            assert!(!watched.watch.is_awaited("a.lock"));
            let touched = watched.path().join("x");
            fs::write(&touched, "").unwrap();
            until("no watch", || !is_watching());
        }
        let mut a = watched.register("a.lock");
        fs::write(watched.path().join("a.lock"), "").unwrap();
        until("a watch again", || is_told(&mut a));
    }

    #[test]
    fn the_thread_ends_with_the_last_who_could_wait() {
        for waited in [true, false] {
            let watched = watched();
            let registration = watched.register("a.lock");
            if waited {
                drop(watched.register("b.lock"));
                fs::write(watched.path().join("x"), "").unwrap();
            }
            let shared = Arc::downgrade(&watched.watch.0);
            drop(watched.watch);
            thread::sleep(Duration::from_millis(20));
            assert!(shared.upgrade().is_some(), "somebody still waits");
            drop(registration);
            until("the end of the thread", || shared.upgrade().is_none());
        }
    }

    #[test]
    fn the_thread_ends_where_nothing_is_watched_any_more() {
        let watched = watched();
        drop(watched.register("a.lock"));
        fs::write(watched.path().join("x"), "").unwrap();
        until("no watch", || !watched.watch.0.state().listener.listens());
        let shared = Arc::downgrade(&watched.watch.0);
        drop(watched.watch);
        until("the end of the thread", || shared.upgrade().is_none());
    }

    #[test]
    fn who_waits_is_told_when_the_directory_is_gone_and_may_register_again() {
        let watched = watched();
        let mut a = watched.register("a.lock");
        fs::remove_dir_all(watched.path()).unwrap();
        until("the end of the directory", || is_told(&mut a));
        // Nothing is there to be watched; asking again has to do.
        let mut a = watched.register("a.lock");
        assert!(!is_told(&mut a));
    }
}
