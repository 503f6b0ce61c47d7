//! One lock: a `flock` on the file that a name stands for. A writer's is exclusive, and here; a reader's is
//! shared, and in `read_lock`.
//!
//! # Why a writer holds a name alone
//!
//! A name is held by the processes that lock the inode that the name leads to. One that has
//! locked an inode then looks whether the name still leads to it, and starts again if it does not.
//!
//! 1. A name is taken away from an inode only by a process that has the exclusive lock of that inode and has
//!    seen, since it got it, that the name leads there: by its writer, when it releases, by the last of its
//!    readers, or by one who clears away what a process has left that died. Files are
//!    created only where there is none, and never linked or renamed.
//! 2. So while H holds, as a writer or a reader, the name leads to the inode that H has locked, until H gives its
//!    lock up. For a writer that is the moment at which it unlinks the file; the unlock after it matters to no
//!    new process.
//! 3. Another holder would have to have locked the inode that it saw the name lead to while H
//!    holds. By 2 that is the inode of H, which the kernel locks for one writer, or for readers, and never both.
//! 4. An inode that was unlinked never gets a name again. Its number can be used again, but not
//!    while a process has it open, and the one that compares has it open.
//!
//! Without the second look, one who opened the file just before the holder unlinked it would get
//! the lock of an inode without a name, while the next one creates the file anew and locks that.
//!
//! A process that dies leaves its file behind, unlocked. The process that finds it removes it in the same
//! way, as its holder, and starts anew with a file of its own: it is open for writing, whose end
//! inotify tells apart from those that only tried, its time says since when the lock is held, and
//! no process has asked for it yet.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, RawMode, Stat, fchmod};
use rustix::io::Errno;

use super::directory::{Directory, FileId, age};
use super::flock::{convert, try_lock, unlock};
use super::signature;
use crate::LockError;

/// How the names of lock files end; other files in the directory are not locks.
pub(super) const SUFFIX: &str = ".lock";

/// Set in the mode of a lock file when another waits for it: a mark that needs no descriptor, that
/// a crash of the waiter cannot leave behind for long, since it goes with the file.
pub(super) const AWAITED: Mode = Mode::XUSR;

/// Set as well when a reader waits for it, so that writers that wait know of readers.
pub(super) const AWAITED_BY_READERS: Mode = Mode::XUSR.union(Mode::XGRP);

/// How often a try starts again when files come and go under it. Each time another process got on.
pub(super) const ROUNDS: u32 = 16;

/// The lock of a name, ours. Dropping it closes the file and nothing else.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
    id: FileId,
    /// What a reader has written into the file, which others read as well.
    record: Option<Box<str>>,
}

/// The answer to a try.
pub(super) enum Taken {
    Ours(LockFile),
    /// Held by another for this long.
    Theirs(Duration),
    /// The same, and readers hold it, or wait as the caller does.
    Read(Duration),
}

/// What a release found.
pub(super) struct Released {
    /// Whether the lock was ours to the end: the file was not removed.
    pub(super) ours: bool,
}

/// Tries once to take the lock of this name for a writer. `awaits`: if it is held, tell its holder that
/// another process waits.
pub(super) fn take(directory: &Directory, name: &str, awaits: bool) -> Result<Taken, LockError> {
    for _ in 0..ROUNDS {
        match directory.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL) {
            Ok(file) => {
                if !try_lock(directory, &file)? {
                    // Taken for one that was left behind.
                    return Ok(Taken::Theirs(Duration::ZERO));
                }
                if let Some(id) = leads_to(directory, name, &file)? {
                    return Ok(Taken::Ours(LockFile::of_writer(file, id)));
                }
            }
            Err(Errno::EXIST) => {
                if let Some(held) = try_existing(directory, name, awaits)? {
                    return Ok(held);
                }
            }
            Err(error) => return Err(directory.failed("create a lock file")(error)),
        }
    }
    Ok(Taken::Theirs(Duration::ZERO))
}

/// How the file of this name is held; `None` if there was none, or one that was left behind, which is then gone.
fn try_existing(
    directory: &Directory,
    name: &str,
    awaits: bool,
) -> Result<Option<Taken>, LockError> {
    // For reading: the end of a try is no news to those who watch for the end of a holder.
    let Some(file) = directory.open_if_there(name, OFlags::RDONLY, "open a lock file")? else {
        return Ok(None);
    };
    if clear(directory, name, &file)? {
        return Ok(None);
    }
    let mark = if awaits { AWAITED } else { Mode::empty() };
    let metadata = mark_as(directory, &file, mark)?;
    if metadata.nlink() == 0 {
        return Ok(None);
    }
    let has_readers = awaits
        && (mode_of(&metadata).contains(AWAITED_BY_READERS) || signature::is_of_readers(&file));
    let held_for = age(&metadata);
    Ok(Some(if has_readers {
        Taken::Read(held_for)
    } else {
        Taken::Theirs(held_for)
    }))
}

/// Removes the file of a name that no process locks, and gives true; false for one that is locked.
pub(super) fn clear(directory: &Directory, name: &str, file: &File) -> Result<bool, LockError> {
    if !try_lock(directory, file)? {
        return Ok(false);
    }
    if leads_to(directory, name, file)?.is_some() {
        directory
            .unlink(name)
            .map_err(directory.failed("remove a lock file"))?;
    }
    unlock(directory, file)?;
    Ok(true)
}

/// Sets this in the mode of the file, and looks at it.
pub(super) fn mark_as(
    directory: &Directory,
    file: &File,
    mark: Mode,
) -> Result<Metadata, LockError> {
    let look = || {
        let metadata = file.metadata();
        metadata.map_err(directory.failed("look at a lock file"))
    };
    let metadata = look()?;
    let mode = mode_of(&metadata);
    if mode.contains(mark) {
        return Ok(metadata);
    }
    fchmod(file, mode | mark).map_err(directory.failed("mark a lock file"))?;
    // After the mark: the holder looks for one after it has unlinked the file.
    look()
}

/// The second look: which file this is, if the name leads to it.
pub(super) fn leads_to(
    directory: &Directory,
    name: &str,
    file: &File,
) -> Result<Option<FileId>, LockError> {
    let metadata = file
        .metadata()
        .map_err(directory.failed("look at a lock file"))?;
    let id = FileId::of(&metadata);
    let named = directory.look(name)?;
    Ok(named
        .filter(|named| FileId::of_stat(named) == id)
        .map(|_| id))
}

impl LockFile {
    fn of_writer(file: File, id: FileId) -> Self {
        let record = None;
        Self { file, id, record }
    }

    /// Of a reader, whose record is in the file.
    pub(super) fn of_reader(file: File, id: FileId, record: &str) -> Self {
        let record = Some(record.into());
        Self { file, id, record }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.record.is_some()
    }

    /// Whether the name still leads to our file, and whether another process waits for it.
    pub(super) fn look(&self, directory: &Directory, name: &str) -> Result<Look, LockError> {
        let named = directory.look(name)?;
        let ours = named.filter(|named| FileId::of_stat(named) == self.id);
        Ok(Look {
            in_place: ours.is_some(),
            awaited: ours.is_some_and(|stat| is_awaited(&stat)),
        })
    }

    /// Says who holds it, to those who look.
    pub(super) fn sign(&self, line: &str) {
        signature::write(&self.file, line);
    }

    /// Releases the lock. `awaited` is called, at most once, if another waits for a lock that is free now: before
    /// any process can take it if possible.
    pub(super) fn release(
        &self,
        directory: &Directory,
        name: &str,
        awaited: impl Fn(),
    ) -> Result<Released, LockError> {
        let look = self.look(directory, name);
        let ours = look.as_ref().is_ok_and(|look| look.in_place);
        let unlinked = match &self.record {
            None => match &look {
                Ok(look) if look.in_place => self.unlink(directory, name, *look, awaited),
                // What the name leads to now is not ours to remove.
                _ => Ok(()),
            },
            Some(record) => {
                signature::withdraw(&self.file, record);
                self.leave(directory, name, awaited)
            }
        };
        let unlocked = unlock(directory, &self.file);
        look?;
        unlinked?;
        unlocked?;
        Ok(Released { ours })
    }

    /// The last of the readers removes the file, as its writer: the exclusive lock shows that it is the last.
    fn leave(
        &self,
        directory: &Directory,
        name: &str,
        awaited: impl Fn(),
    ) -> Result<(), LockError> {
        if !convert(directory, &self.file)? {
            return Ok(());
        }
        // Anew: for a moment it was not locked by us at all.
        let look = self.look(directory, name)?;
        if look.in_place {
            self.unlink(directory, name, look, awaited)?;
        }
        Ok(())
    }

    /// Takes the name away from the file, which is exclusively ours.
    fn unlink(
        &self,
        directory: &Directory,
        name: &str,
        look: Look,
        awaited: impl Fn(),
    ) -> Result<(), LockError> {
        if look.awaited {
            awaited();
        }
        let unlinked = directory.unlink(name);
        // One that was marked in between: a process that marks it later sees that it is unlinked.
        if !look.awaited
            && self
                .file
                .metadata()
                .is_ok_and(|metadata| has_mark(mode_of(&metadata)))
        {
            awaited();
        }
        unlinked.map_err(directory.failed("remove a lock file"))
    }
}

/// Whether the file of this is marked by another that waits.
pub(super) fn is_awaited(stat: &Stat) -> bool {
    has_mark(Mode::from_raw_mode(stat.st_mode))
}

fn has_mark(mode: Mode) -> bool {
    mode.contains(AWAITED)
}

#[allow(
    clippy::unnecessary_cast,
    reason = "narrower on macOS; what is cut off is zero"
)]
fn mode_of(metadata: &Metadata) -> Mode {
    Mode::from_raw_mode(metadata.mode() as RawMode)
}

/// What a name leads to, seen by its holder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) in_place: bool,
    pub(super) awaited: bool,
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::process::Command;
    use std::thread;
    use std::time::{Instant, SystemTime};

    use super::*;

    pub(in crate::file) const NAME: &str = "v1-a.lock";

    pub(in crate::file) fn directory() -> (tempfile::TempDir, Directory) {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::open(&base.path().join("locks")).unwrap();
        (base, directory)
    }

    /// Waits for it; what is waited for takes no longer than ten seconds.
    pub(in crate::file) fn until(what: &str, mut done: impl FnMut() -> bool) {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < Duration::from_secs(10), "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(in crate::file) fn ours(directory: &Directory) -> LockFile {
        match take(directory, NAME, false).unwrap() {
            Taken::Ours(file) => file,
            Taken::Theirs(_) | Taken::Read(_) => panic!("another process holds it"),
        }
    }

    fn release(file: &LockFile, directory: &Directory) -> (bool, u32) {
        let awaited = Cell::new(0);
        let released = file
            .release(directory, NAME, || awaited.set(awaited.get() + 1))
            .unwrap();
        (released.ours, awaited.get())
    }

    #[test]
    fn a_holder_sees_whether_another_waits_and_the_next_holder_does_not() {
        let (_base, directory) = directory();
        for (awaits, calls) in [(false, 0), (true, 1), (false, 0)] {
            let file = ours(&directory);
            for _ in 0..2 {
                assert!(matches!(
                    take(&directory, NAME, awaits).unwrap(),
                    Taken::Theirs(_)
                ));
            }
            assert_eq!(file.look(&directory, NAME).unwrap().awaited, awaits);
            assert_eq!(release(&file, &directory), (true, calls));
        }
    }

    #[test]
    fn a_mark_on_what_was_left_behind_is_not_for_the_next_holder() {
        let (_base, directory) = directory();
        let file = ours(&directory);
        assert!(matches!(
            take(&directory, NAME, true).unwrap(),
            Taken::Theirs(_)
        ));
        drop(file);
        let file = ours(&directory);
        assert_eq!(release(&file, &directory), (true, 0));
    }

    #[test]
    fn how_long_it_is_held_counts_from_the_holder_and_not_from_the_one_that_died() {
        let (_base, directory) = directory();
        let file = ours(&directory);
        file.file
            .set_modified(SystemTime::now() - Duration::from_secs(100))
            .unwrap();
        let Taken::Theirs(held_for) = take(&directory, NAME, false).unwrap() else {
            panic!()
        };
        assert!(held_for >= Duration::from_secs(100));
        drop(file);
        let _file = ours(&directory);
        let Taken::Theirs(held_for) = take(&directory, NAME, false).unwrap() else {
            panic!()
        };
        assert!(held_for < Duration::from_secs(50));
    }

    #[test]
    fn a_copy_that_a_child_inherited_does_not_keep_what_was_released() {
        let (_base, directory) = directory();
        let file = ours(&directory);
        // As a child that is forked and goes on without exec has it.
        rustix::io::fcntl_setfd(&file.file, rustix::io::FdFlags::empty()).unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let watching = directory.open_file(NAME, OFlags::RDONLY).unwrap();
        assert!(watching.try_lock().is_err());
        assert_eq!(release(&file, &directory), (true, 0));
        drop(file);
        let free = watching.try_lock().is_ok();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(free);
    }

    #[test]
    fn a_file_that_is_not_ours_any_more_is_not_removed() {
        let (_base, directory) = directory();
        let file = ours(&directory);
        directory.unlink(NAME).unwrap();
        let later = ours(&directory);
        assert_eq!(release(&file, &directory), (false, 0));
        assert!(later.look(&directory, NAME).unwrap().in_place);
    }
}
