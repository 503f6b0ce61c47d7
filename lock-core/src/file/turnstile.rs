//! Keeps new readers out while a writer waits for those that hold the lock.
//!
//! A turnstile is a file beside the lock file. Each process in which a writer waits locks it, together with the
//! others, and each reader looks at it before it tries. So the kernel opens it when the last writer has gone,
//! however it went.
//!
//! Its file comes and goes as a lock file does, by the same rules: who takes the name away has the exclusive lock
//! and has seen, since it got it, that the name leads there. So a writer that has locked the file, and has then
//! seen that the name leads to it, keeps out all readers that look from then on.
//!
//! A reader finds out whether a turnstile is closed by trying the exclusive lock, which clears away the file of writers
//! that have died. Two that do so together meet: the second finds the file locked, by no writer. Writers share their
//! lock, so the second tries to share it as well: while that is refused, the file is being cleared away, and where it
//! is shared and has lost its name it was cleared away.
//!
//! A reader that has looked before that can still be granted the lock after it. Each process has a few such tries
//! under way at most, none of which waits for anything: they delay the writer, and do not starve it.

use std::fs::File;
use std::time::Duration;

use rustix::fs::OFlags;

use super::directory::{Directory, age};
use super::flock::{convert, try_share, unlock};
use super::lock_file::{self, ROUNDS, clear, leads_to};
use crate::LockError;

/// How the names of these files end, beside lock files.
pub(super) const SUFFIX: &str = ".wait";

/// Closed as long as this is there. Dropping it closes the file and nothing else: see [`open`](Self::open).
#[derive(Debug)]
pub(super) struct Turnstile {
    name: String,
    file: File,
}

/// That of the lock file of this name.
pub(super) fn name_of(lock: &str) -> String {
    let stem = lock.strip_suffix(lock_file::SUFFIX).unwrap_or(lock);
    format!("{stem}{SUFFIX}")
}

/// The lock file that this is the name of a turnstile of, if it is one.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "of events"))]
pub(super) fn lock_of(name: &str) -> Option<String> {
    let stem = name.strip_suffix(SUFFIX)?;
    Some(format!("{stem}{}", lock_file::SUFFIX))
}

/// Closes the turnstile of a lock. `None` where readers that cleared it away were first each time.
pub(super) fn close(directory: &Directory, lock: &str) -> Result<Option<Turnstile>, LockError> {
    let name = name_of(lock);
    for _ in 0..ROUNDS {
        // For writing: how the end of this process shows to readers that wait.
        let file = directory
            .open_file(&name, OFlags::RDWR | OFlags::CREATE)
            .map_err(directory.failed("create a file for writers that wait"))?;
        if try_share(directory, &file)? && leads_to(directory, &name, &file)?.is_some() {
            return Ok(Some(Turnstile { name, file }));
        }
    }
    Ok(None)
}

/// What a reader finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Open,
    /// For so long.
    Closed(Duration),
    /// Another reader is just clearing it away.
    InClearing,
}

/// Looks at the turnstile of a lock, and clears away what writers have left that died.
pub(super) fn look(directory: &Directory, lock: &str) -> Result<Found, LockError> {
    let name = name_of(lock);
    let Some(file) =
        directory.open_if_there(&name, OFlags::RDONLY, "open a file of writers that wait")?
    else {
        return Ok(Found::Open);
    };
    if clear(directory, &name, &file)? {
        return Ok(Found::Open);
    }
    if !try_share(directory, &file)? {
        return Ok(Found::InClearing);
    }
    let named = leads_to(directory, &name, &file);
    let unlocked = unlock(directory, &file);
    let is_cleared = named?.is_none();
    unlocked?;
    if is_cleared {
        return Ok(Found::InClearing);
    }
    let metadata = file.metadata();
    let metadata = metadata.map_err(directory.failed("look at a file of writers that wait"))?;
    Ok(Found::Closed(age(&metadata)))
}

impl Turnstile {
    /// Opens it, if no other process keeps it closed.
    pub(super) fn open(self, directory: &Directory) -> Result<(), LockError> {
        if !convert(directory, &self.file)? {
            return Ok(());
        }
        let opened = leads_to(directory, &self.name, &self.file).and_then(|named| match named {
            Some(_) => {
                let unlinked = directory.unlink(&self.name);
                unlinked.map_err(directory.failed("remove a file of writers that wait"))
            }
            None => Ok(()),
        });
        let unlocked = unlock(directory, &self.file);
        opened?;
        unlocked
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::file::lock_file::tests::{NAME, directory};

    fn is_closed(directory: &Directory) -> bool {
        matches!(look(directory, NAME).unwrap(), Found::Closed(_))
    }

    fn closed(directory: &Directory) -> Turnstile {
        close(directory, NAME).unwrap().unwrap()
    }

    #[test]
    fn it_is_closed_until_the_last_writer_opens_it_and_leaves_no_file() {
        let (base, directory) = directory();
        let is_closed = || is_closed(&directory);
        assert!(!is_closed());
        let (one, other) = (closed(&directory), closed(&directory));
        assert!(is_closed());
        one.open(&directory).unwrap();
        assert!(is_closed());
        other.open(&directory).unwrap();
        assert!(!base.path().join("locks").join(name_of(NAME)).exists());
        assert!(!is_closed());
    }

    #[test]
    fn one_whose_writers_have_died_is_open_and_is_cleared_away() {
        let (base, directory) = directory();
        // As the kernel closes it.
        drop(closed(&directory));
        let file = base.path().join("locks").join(name_of(NAME));
        assert!(file.exists());
        assert_eq!(look(&directory, NAME).unwrap(), Found::Open);
        assert!(!file.exists());
        // Or is taken over by the next writer.
        drop(closed(&directory));
        let _next = closed(&directory);
        assert!(is_closed(&directory));
    }

    #[test]
    fn a_writer_that_opens_it_leaves_that_of_a_later_one_alone() {
        let (_base, directory) = directory();
        let one = closed(&directory);
        // As by a program that tidies up.
        directory.unlink(&name_of(NAME)).unwrap();
        let _later = closed(&directory);
        one.open(&directory).unwrap();
        assert!(is_closed(&directory));
    }

    #[test]
    fn readers_that_clear_away_together_what_a_writer_has_left_do_not_take_it_for_closed() {
        let (_base, directory) = directory();
        let together = Barrier::new(2);
        let look_together = || {
            (0..2_000).all(|_| {
                if together.wait().is_leader() {
                    // As the kernel closes it.
                    drop(closed(&directory));
                }
                together.wait();
                let is_open = !is_closed(&directory);
                together.wait();
                is_open
            })
        };
        thread::scope(|scope| {
            let other = scope.spawn(look_together);
            let (here, there) = (look_together(), other.join().unwrap());
            assert!(here && there);
        });
    }

    #[test]
    fn a_reader_that_meets_another_which_clears_looks_again() {
        let (_base, directory) = directory();
        drop(closed(&directory));
        let name = name_of(NAME);
        let file = directory.open_file(&name, OFlags::RDONLY).unwrap();
        // As one has it that was stopped before it removes the file, and then after that.
        file.try_lock().unwrap();
        assert_eq!(look(&directory, NAME).unwrap(), Found::InClearing);
        directory.unlink(&name).unwrap();
        assert_eq!(look(&directory, NAME).unwrap(), Found::Open);
    }

    #[test]
    fn its_name_leads_back_to_the_lock() {
        assert_eq!(lock_of(&name_of(NAME)).as_deref(), Some(NAME));
        assert_eq!(lock_of(NAME), None);
    }
}
