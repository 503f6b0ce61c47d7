//! What many meet for one reason, and within a moment.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::dispatcher::{self, Dispatch};

use super::TOLD_EVERY;
use crate::panics::catch;

/// How long the others of a crowd are counted before the first line about them.
const GATHER: Duration = Duration::from_millis(500);

/// Counts those who meet one trouble. The first has its line as it comes, since a process that ends over
/// it writes nothing later; a thread writes about the others, one line with their number when they have
/// come, and at most every 5 s while more do.
#[derive(Debug)]
pub(crate) struct Crowd(Mutex<Option<Further>>);

/// Those who have come since the last line; `None` while none has come for a while.
#[derive(Debug, Default)]
struct Further {
    count: u64,
    /// What the last of them was about.
    example: Box<str>,
}

impl Crowd {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn further(&self) -> MutexGuard<'_, Option<Further>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One has come, with what it is about. Tells whether it is the first, whose line is the caller's;
    /// `line` is about all that come after it, with their number and what one of them is about.
    pub(crate) fn is_first(
        &'static self,
        about: &str,
        line: impl Fn(u64, &str) + Send + 'static,
    ) -> bool {
        let mut further = self.further();
        if let Some(further) = &mut *further {
            further.count += 1;
            further.example = about.into();
            return false;
        }
        *further = Some(Further::default());
        drop(further);
        // That of a test, or of a part of the application, is its thread's.
        let dispatch = dispatcher::get_default(Clone::clone);
        let thread = thread::Builder::new().name("distributed-lock-log".to_owned());
        // Without a thread each has a line of its own.
        if thread.spawn(move || self.tell(&dispatch, line)).is_err() {
            *self.further() = None;
        }
        true
    }

    /// Until none has come for a while.
    fn tell(&self, dispatch: &Dispatch, line: impl Fn(u64, &str)) {
        for pause in [GATHER].into_iter().chain(std::iter::repeat(TOLD_EVERY)) {
            thread::sleep(pause);
            let mut further = self.further();
            let Further { count, example } = further.as_mut().map(mem::take).unwrap_or_default();
            if count == 0 && pause == TOLD_EVERY {
                *further = None;
                return;
            }
            drop(further);
            if count > 0 {
                // The logger is the application's: a panic of it is no end of the count.
                let _ = catch(|| dispatcher::with_default(dispatch, || line(count, &example)));
            }
        }
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_first_of_a_crowd_is_told_as_it_comes_and_all_others_in_one_line() {
        static CROWD: Crowd = Crowd::new();
        let (told, lines) = mpsc::channel();
        let firsts = (0..1_000).filter(|number| {
            let told = told.clone();
            CROWD.is_first(&number.to_string(), move |count, example| {
                let _ = told.send((count, example.to_owned()));
            })
        });
        assert_eq!(firsts.count(), 1);
        assert_eq!(lines.recv(), Ok((999, "999".to_owned())));
        drop(told);
        // The thread has ended, since none has come for a while; a panic of the logger would have ended it
        // as well.
        assert_eq!(lines.recv(), Err(mpsc::RecvError));
        assert!(CROWD.is_first("next", |_, _| ()), "a crowd of its own");
    }
}
