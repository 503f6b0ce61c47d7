//! The lock of a reader: a shared `flock` on the file that a name stands for.
//!
//! Readers of one name lock one file together. The first creates it, the others join, and the last to leave removes
//! it. Why no writer holds the name meanwhile is argued in [`lock_file`](super::lock_file).
//!
//! A file that no process locks was left behind. A reader clears it away, as a writer does: its marks are not for the
//! next holder. For that it tries the exclusive lock, as does the last reader when it leaves; a reader that
//! comes in this moment finds the file of readers locked by one process, and tries again: no writer holds such a
//! file, since writers hold those alone that they have created.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::directory::{Directory, FileId, age};
use super::flock::{try_share, unlock};
use super::lock_file::{AWAITED_BY_READERS, LockFile, Taken, clear, leads_to, mark_as};
use super::signature;
use super::turnstile::{self, Found};
use crate::LockError;

/// How often a try starts again when files come and go under it.
const ROUNDS: u32 = 12;

/// After so many of them it pauses between two: a process that it meets, on its way to remove the file, can have lost
/// its processor.
const SWIFT: u32 = 4;

/// The first of these pauses. Each next is twice as long, and all together are some 13 ms.
const PAUSE: Duration = Duration::from_micros(50);

/// Tries once to take the lock of this name for a reader, who writes this record. `awaits`: if a writer holds it, tell
/// it that another process waits.
pub(super) fn take(
    directory: &Directory,
    name: &str,
    record: &str,
    awaits: bool,
) -> Result<Taken, LockError> {
    for round in 0..ROUNDS {
        // In each round: a writer can have come to wait since.
        match turnstile::look(directory, name)? {
            Found::Closed(closed_for) => return Ok(Taken::Theirs(closed_for)),
            Found::Open => {
                if let Some(taken) = create_or_join(directory, name, record, awaits)? {
                    return Ok(taken);
                }
            }
            Found::InClearing => {}
        }
        if let Some(doubled) = round.checked_sub(SWIFT) {
            thread::sleep(PAUSE * 2_u32.pow(doubled));
        }
    }
    Ok(Taken::Theirs(Duration::ZERO))
}

/// Creates the file of this name, or joins its readers; `None` where it is to be tried again.
fn create_or_join(
    directory: &Directory,
    name: &str,
    record: &str,
    awaits: bool,
) -> Result<Option<Taken>, LockError> {
    match directory.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL) {
        Ok(file) => {
            let shared = share(directory, name, &file)?;
            Ok(shared.map(|id| ours(file, id, record)))
        }
        Err(Errno::EXIST) => join(directory, name, record, awaits),
        Err(error) => Err(directory.failed("create a lock file")(error)),
    }
}

/// Joins the readers that hold the file of this name; `None` where it is to be tried again: there was none, it was
/// left behind and is gone, or it is just being cleared away.
fn join(
    directory: &Directory,
    name: &str,
    record: &str,
    awaits: bool,
) -> Result<Option<Taken>, LockError> {
    // For reading, see `lock_file`.
    let Some(file) = directory.open_if_there(name, OFlags::RDONLY, "open a lock file")? else {
        return Ok(None);
    };
    let signed = signature::read(&file);
    let metadata = mark_as(directory, &file, Mode::empty())?;
    // One in the making is not locked yet, and its creator lives.
    if !signature::is_in_the_making(&signed, &metadata) && clear(directory, name, &file)? {
        return Ok(None);
    }
    if let Some(id) = share(directory, name, &file)? {
        let own = open_again(directory, name, id);
        unlock(directory, &file)?;
        return Ok(own?.map(|own| ours(own, id, record)));
    }
    // Anew: the first reader can have come to sign it since, and leave by now.
    if signature::is_of_readers(&file) {
        return Ok(None);
    }
    let mark = if awaits {
        AWAITED_BY_READERS
    } else {
        Mode::empty()
    };
    let metadata = mark_as(directory, &file, mark)?;
    Ok((metadata.nlink() > 0).then(|| Taken::Theirs(age(&metadata))))
}

/// Locks the file together with others; which it is, if the name leads to it.
fn share(directory: &Directory, name: &str, file: &File) -> Result<Option<FileId>, LockError> {
    if !try_share(directory, file)? {
        return Ok(None);
    }
    let id = leads_to(directory, name, file)?;
    if id.is_none() {
        unlock(directory, file)?;
    }
    Ok(id)
}

/// The file of this name, which is locked by us, once more and for writing: by that the end of a holder is told from
/// that of a try. `None` if another program has removed it.
fn open_again(directory: &Directory, name: &str, id: FileId) -> Result<Option<File>, LockError> {
    let Some(file) = directory.open_if_there(name, OFlags::RDWR, "open a lock file")? else {
        return Ok(None);
    };
    let shared = share(directory, name, &file)?;
    Ok(shared.filter(|again| *again == id).map(|_| file))
}

fn ours(file: File, id: FileId, record: &str) -> Taken {
    signature::write(&file, record);
    Taken::Ours(LockFile::of_reader(file, id, record))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::lock_file;
    use super::super::lock_file::tests::{NAME, directory, ours as writers};
    use super::*;
    use crate::instance::Instance;

    fn record(instance: &str) -> String {
        signature::record(&Instance::of(instance).unwrap())
    }

    fn try_read(directory: &Directory) -> Option<LockFile> {
        match take(directory, NAME, &record("web-1:7"), true).unwrap() {
            Taken::Ours(file) => Some(file),
            Taken::Theirs(_) | Taken::Read(_) => None,
        }
    }

    fn reader(directory: &Directory) -> LockFile {
        try_read(directory).expect("no writer holds it")
    }

    fn is_there(base: &tempfile::TempDir) -> bool {
        base.path().join("locks").join(NAME).exists()
    }

    #[test]
    fn the_last_of_the_readers_removes_the_file_whoever_was_first() {
        let (base, directory) = directory();
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let readers = [(); 3].map(|()| reader(&directory));
            for (left, reader) in order.into_iter().enumerate() {
                assert!(is_there(&base));
                let released = readers[reader].release(&directory, NAME, || ()).unwrap();
                assert!(released.ours);
                assert_eq!(is_there(&base), left < 2);
            }
            drop(writers(&directory));
        }
    }

    #[test]
    fn a_writer_is_refused_by_readers_and_readers_by_a_writer() {
        let (_base, directory) = directory();
        let one = reader(&directory);
        let other = reader(&directory);
        let try_write = || lock_file::take(&directory, NAME, true).unwrap();
        assert!(matches!(try_write(), Taken::Read(_)));
        one.release(&directory, NAME, || ()).unwrap();
        assert!(matches!(try_write(), Taken::Read(_)));
        let awaited = Cell::new(0);
        let tell = || awaited.set(awaited.get() + 1);
        other.release(&directory, NAME, tell).unwrap();
        assert_eq!(awaited.get(), 1);
        let writer = writers(&directory);
        assert!(try_read(&directory).is_none());
        writer.release(&directory, NAME, || ()).unwrap();
        drop(reader(&directory));
    }

    #[test]
    fn a_writer_that_waits_behind_a_writer_knows_of_readers_that_wait() {
        let (_base, directory) = directory();
        let _writer = writers(&directory);
        let try_write = || lock_file::take(&directory, NAME, true).unwrap();
        assert!(matches!(try_write(), Taken::Theirs(_)));
        assert!(try_read(&directory).is_none());
        // Also after another writer has said that it waits.
        assert!(matches!(try_write(), Taken::Read(_)));
        assert!(matches!(try_write(), Taken::Read(_)));
    }

    #[test]
    fn a_reader_is_kept_out_while_a_writer_waits() {
        let (base, directory) = directory();
        let first = reader(&directory);
        let closed = turnstile::close(&directory, NAME).unwrap().unwrap();
        assert!(try_read(&directory).is_none());
        first.release(&directory, NAME, || ()).unwrap();
        assert!(try_read(&directory).is_none() && !is_there(&base));
        closed.open(&directory).unwrap();
        drop(reader(&directory));
    }

    #[test]
    fn what_dead_readers_have_left_is_cleared_away_and_not_joined() {
        let (_base, directory) = directory();
        let dead = reader(&directory);
        // A writer has waited for it.
        let refused = lock_file::take(&directory, NAME, true).unwrap();
        assert!(matches!(refused, Taken::Read(_)));
        // As the kernel closes it.
        drop(dead);
        let reader = reader(&directory);
        assert!(!reader.look(&directory, NAME).unwrap().awaited);
    }

    #[test]
    fn the_file_of_a_writer_that_has_died_is_not_joined() {
        let (_base, directory) = directory();
        for line in ["distributed_lock v1 web-1:7\n", ""] {
            let writer = writers(&directory);
            writer.sign(line);
            drop(writer);
            let one = reader(&directory);
            assert!(matches!(
                lock_file::take(&directory, NAME, true).unwrap(),
                Taken::Read(_)
            ));
            one.release(&directory, NAME, || ()).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_cleared_away_before_it_is_locked_is_not_held() {
        let (_base, directory) = directory();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let created = directory.open_file(NAME, flags).unwrap();
        // As by a process that takes it for one that was left behind.
        assert!(clear(&directory, NAME, &created).unwrap());
        assert_eq!(share(&directory, NAME, &created).unwrap(), None);
        let _writer = writers(&directory);
        assert_eq!(share(&directory, NAME, &created).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_not_the_readers_any_more_is_not_removed() {
        let (_base, directory) = directory();
        let reader = reader(&directory);
        directory.unlink(NAME).unwrap();
        let later = writers(&directory);
        assert!(!reader.release(&directory, NAME, || ()).unwrap().ours);
        assert!(later.look(&directory, NAME).unwrap().in_place);
    }
}
