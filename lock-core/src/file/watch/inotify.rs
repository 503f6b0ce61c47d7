//! inotify on the lock directory: what a release and the end of a holder look like there.
//!
//! One inotify instance and one thread, whatever the number of names: from the first time that
//! a caller waits until the backend and all that wait through it are gone. The directory is watched
//! only while a caller waits, since each release costs something for each that watches.
//!
//! A release removes the file, a holder that dies closes one that it had open for writing, and so does a reader that
//! leaves others; a try that fails opens for reading only. The same goes for the file of writers that
//! [wait](super::super::turnstile). What is missed (an overflow, a limit of inotify) is found by the
//! next try of the waiter.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::{Shared, State};
use crate::file::turnstile;
use crate::panics::catch;

/// The kernel tells that a file is closed a moment before it drops its lock.
const CLOSING: Duration = Duration::from_micros(200);

/// Many events in one read.
const BUFFER: usize = 16 * 1024;

/// What is watched.
#[derive(Debug, Default)]
pub(super) struct Listener {
    inotify: Option<Arc<OwnedFd>>,
    /// The watch of the directory.
    watch: Option<i32>,
    closed: bool,
}

impl Listener {
    /// Whether the directory is watched.
    pub(super) fn listens(&self) -> bool {
        self.watch.is_some()
    }

    /// Ends the thread.
    pub(super) fn end(&mut self) {
        self.closed = true;
        let Some(inotify) = &self.inotify else {
            return;
        };
        // The end of any watch is an event, which the thread wakes up for.
        let any = || inotify::add_watch(&**inotify, "/", WatchFlags::DELETE_SELF).ok();
        if let Some(watch) = self.watch.or_else(any) {
            let _ = inotify::remove_watch(&**inotify, watch);
        }
    }
}

impl Shared {
    /// Watches the directory from now on.
    pub(super) fn listen(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let listener = &mut state.listener;
        let inotify = match &listener.inotify {
            Some(inotify) => Arc::clone(inotify),
            None => {
                let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC)?);
                let (shared, reading) = (Arc::clone(self), Arc::clone(&inotify));
                let thread = thread::Builder::new().name("lock-watch".to_owned());
                thread.spawn(move || shared.run(&reading))?;
                listener.inotify = Some(Arc::clone(&inotify));
                inotify
            }
        };
        let events = WatchFlags::DELETE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW
            // The close that follows a release is not news.
            | WatchFlags::EXCL_UNLINK;
        listener.watch = Some(inotify::add_watch(&*inotify, &self.directory, events)?);
        Ok(())
    }

    fn run(&self, inotify: &OwnedFd) {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut events = Reader::new(inotify, &mut buffer);
        loop {
            match events.next() {
                // Whom it wakes is the application's.
                Ok(event) => drop(catch(|| self.tell(&event, inotify))),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
            if events.is_buffer_empty() && self.state().listener.closed {
                return;
            }
        }
        // The next to wait starts another.
        let mut state = self.state();
        (state.listener.inotify, state.listener.watch) = (None, None);
    }

    fn tell(&self, event: &Event<'_>, inotify: &OwnedFd) {
        let kind = event.events();
        if kind.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.notify_all();
        }
        let mut state = self.state();
        if state.listener.watch != Some(event.wd()) {
            // Of a watch that has been removed.
            return;
        }
        if kind.contains(ReadFlags::IGNORED) {
            // The directory is gone. They ask again, and hear so.
            state.listener.watch = None;
            drop(state);
            return self.notify_all();
        }
        if state.names.is_empty() {
            state.listener.watch = None;
            let _ = inotify::remove_watch(inotify, event.wd());
        }
        let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) else {
            return;
        };
        // Readers wait for the writers as well that wait.
        let lock = turnstile::lock_of(name);
        let waiting = state.names.get(lock.as_deref().unwrap_or(name));
        let waiting = waiting.map(|name| Arc::clone(&name.changed));
        drop(state);
        if kind.contains(ReadFlags::CREATE) && !self.hand_overs.end(name) {
            return;
        }
        let Some(changed) = waiting else { return };
        if kind.contains(ReadFlags::CLOSE_WRITE) {
            thread::sleep(CLOSING);
        }
        changed.notify_waiters();
    }

    fn notify_all(&self) {
        let all: Vec<_> = self
            .state()
            .names
            .values()
            .map(|name| Arc::clone(&name.changed))
            .collect();
        all.iter().for_each(|changed| changed.notify_waiters());
    }
}
