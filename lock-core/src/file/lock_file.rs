//! One lock: an exclusive `flock` on the file that a name stands for.
//!
//! # Why at most one holds a name
//!
//! A name is held by the process that locks the inode that the name leads to. One that has
//! locked an inode then looks whether the name still leads to it, and starts again if it does not.
//!
//! 1. A name is taken away from an inode only by a process that has the lock of that inode and has
//!    seen, since it got it, that the name leads there: by its holder, when it releases. Files are
//!    created only where there is none, and never linked or renamed.
//! 2. So while H holds, the name leads to the inode that H has locked, until H unlinks it. That is
//!    the moment of the release; the unlock after it matters to no new process.
//! 3. Another holder would have to have locked the inode that it saw the name lead to while H
//!    holds. By 2 that is the inode of H, and the kernel locks it for one only.
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

use std::fs::{File, Metadata, TryLockError};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use rustix::fs::{Dir, Mode, OFlags, RawMode, Stat, fchmod};
use rustix::io::Errno;

use super::directory::{Directory, FileId, age};
use super::key::is_file_stem;
use super::signature::is_of_a_lock;
use crate::LockError;

/// How the names of lock files end; other files in the directory are not locks.
pub(super) const SUFFIX: &str = ".lock";

/// Set in the mode of a lock file when another waits for it: a mark that needs no descriptor, that
/// a crash of the waiter cannot leave behind for long, since it goes with the file.
const AWAITED: Mode = Mode::XUSR;

/// How often a try starts again when files come and go under it. Each time another process got on.
const ROUNDS: u32 = 16;

/// Files that have not been locked for this long are tidied away when the directory is opened.
const LEFT_BEHIND: Duration = Duration::from_secs(600);

/// No more than this many are looked at.
const TIDY_LIMIT: usize = 10_000;

/// The lock of a name, ours. Dropping it closes the file and nothing else.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
    id: FileId,
}

/// The answer to a try.
pub(super) enum Taken {
    Ours(LockFile),
    /// Held by another for this long.
    Theirs(Duration),
}

/// What a release found.
pub(super) struct Released {
    /// Whether the lock was ours to the end: the file was not removed.
    pub(super) ours: bool,
}

/// Tries once to take the lock of this name. `awaits`: if it is held, tell its holder that
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
                    return Ok(Taken::Ours(LockFile { file, id }));
                }
            }
            Err(Errno::EXIST) => {
                if let Some(held_for) = try_existing(directory, name, awaits)? {
                    return Ok(Taken::Theirs(held_for));
                }
            }
            Err(error) => return Err(directory.failed("create a lock file")(error)),
        }
    }
    Ok(Taken::Theirs(Duration::ZERO))
}

/// For how long the file of this name has been locked; `None` if there was none, or one that was
/// left behind, which is then gone.
fn try_existing(
    directory: &Directory,
    name: &str,
    awaits: bool,
) -> Result<Option<Duration>, LockError> {
    // For reading: the end of a try is no news to those who watch for the end of a holder.
    let file = match directory.open_file(name, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(directory.failed("open a lock file")(error)),
    };
    if try_lock(directory, &file)? {
        if leads_to(directory, name, &file)?.is_some() {
            directory
                .unlink(name)
                .map_err(directory.failed("remove a lock file"))?;
        }
        // Explicitly, see `release`.
        file.unlock().map_err(directory.failed("unlock a file"))?;
        return Ok(None);
    }
    if awaits {
        let marked = fchmod(&file, Mode::RUSR | Mode::WUSR | AWAITED);
        marked.map_err(directory.failed("mark a lock file"))?;
    }
    // After the mark: the holder looks for one after it has unlinked the file.
    let metadata = file
        .metadata()
        .map_err(directory.failed("look at a lock file"))?;
    Ok((metadata.nlink() > 0).then(|| age(&metadata)))
}

fn try_lock(directory: &Directory, file: &File) -> Result<bool, LockError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(directory.failed("lock a file")(error)),
    }
}

/// The second look: which file this is, if the name leads to it.
fn leads_to(directory: &Directory, name: &str, file: &File) -> Result<Option<FileId>, LockError> {
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
        // In one call. It fails where the disk is full, and then the holder is not named.
        let _ = self.file.write_all_at(line.as_bytes(), 0);
    }

    /// Releases the lock. `awaited` is called, at most once, if another waits for it: before
    /// any process can take it if possible.
    pub(super) fn release(
        &self,
        directory: &Directory,
        name: &str,
        awaited: impl Fn(),
    ) -> Result<Released, LockError> {
        let look = self.look(directory, name);
        let unlinked = match &look {
            Ok(look) if look.in_place => {
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
                unlinked
            }
            // What the name leads to now is not ours to remove.
            _ => Ok(()),
        };
        // Explicitly: a child that was forked meanwhile has the file open as well, and would keep
        // the lock when we close ours.
        let unlocked = self.file.unlock();
        let ours = look?.in_place;
        unlinked.map_err(directory.failed("remove a lock file"))?;
        unlocked.map_err(directory.failed("unlock a file"))?;
        Ok(Released { ours })
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

/// Removes files that processes left behind when they died; those of names which are never locked
/// again would stay for good. What another program has put into the directory is not touched, also where
/// it ends as lock files do (`Cargo.lock`).
pub(super) fn tidy(directory: &Directory) -> Result<(), LockError> {
    let list = directory.open_file(".", OFlags::RDONLY | OFlags::DIRECTORY);
    let list = list.map_err(directory.failed("list the files"))?;
    let entries = Dir::new(list).map_err(directory.failed("list the files"))?;
    for entry in entries.take(TIDY_LIMIT) {
        let entry = entry.map_err(directory.failed("list the files"))?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if name.strip_suffix(SUFFIX).is_some_and(is_file_stem) {
            tidy_one(directory, name)?;
        }
    }
    Ok(())
}

fn tidy_one(directory: &Directory, name: &str) -> Result<(), LockError> {
    let Ok(file) = directory.open_file(name, OFlags::RDONLY | OFlags::NONBLOCK) else {
        return Ok(());
    };
    let left_behind = file.metadata().is_ok_and(|metadata| {
        metadata.is_file() && age(&metadata) >= LEFT_BEHIND && is_of_a_lock(&file)
    });
    if left_behind && file.try_lock().is_ok() {
        if leads_to(directory, name, &file)?.is_some() {
            directory
                .unlink(name)
                .map_err(directory.failed("remove a lock file"))?;
        }
        // Not being unlocked when it is closed would only matter to a forked child's copy.
        let _ = file.unlock();
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::process::Command;
    use std::time::SystemTime;

    use super::*;

    pub(in crate::file) const NAME: &str = "v1-a.lock";

    pub(in crate::file) fn directory() -> (tempfile::TempDir, Directory) {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::open(&base.path().join("locks")).unwrap();
        (base, directory)
    }

    pub(in crate::file) fn ours(directory: &Directory) -> LockFile {
        match take(directory, NAME, false).unwrap() {
            Taken::Ours(file) => file,
            Taken::Theirs(_) => panic!("another process holds it"),
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

    #[test]
    fn what_is_no_lock_file_is_not_tidied_away() {
        let (base, directory) = directory();
        let old = SystemTime::now() - 365 * 24 * 6 * LEFT_BEHIND;
        let [gone, held, folder, written, signed] =
            ["b", "c", "d", "e", "f"].map(|byte| format!("v1-{}.lock", byte.repeat(32)));
        let empty = ["tokens", "notes", "yarn.lock", "v1-b.lock", &gone, &held];
        for (name, text) in (empty.map(|name| (name, "")).into_iter()).chain([
            ("Cargo.lock", "version = 4"),
            (&written, "by another program"),
            (&signed, "distributed_lock v1 web-1:7\n"),
        ]) {
            let path = base.path().join("locks").join(name);
            std::fs::write(&path, text).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(old).unwrap();
        }
        std::fs::create_dir(base.path().join("locks").join(&folder)).unwrap();
        let holder = directory.open_file(&held, OFlags::RDONLY).unwrap();
        holder.try_lock().unwrap();
        tidy(&directory).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(base.path().join("locks"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let others = ["Cargo.lock", "notes", "tokens", "v1-b.lock"];
        let others = others
            .into_iter()
            .chain([&*held, &*folder, &*written, "yarn.lock"]);
        assert_eq!(left, others.collect::<Vec<_>>());
    }
}
