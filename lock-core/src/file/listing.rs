//! Which locks of a directory are held.

use rustix::fs::FileType;

use super::directory::Directory;
use super::key::is_file_stem;
use super::lock_file::{SUFFIX, is_awaited};
use super::signature::{Seen, look};
use crate::{ListedLock, LockError};

/// Up to one more than `limit`, if there are so many.
pub(super) fn list(directory: &Directory, limit: usize) -> Result<Vec<ListedLock>, LockError> {
    let mut held = Vec::new();
    for entry in directory.entries()? {
        if held.len() > limit {
            break;
        }
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        let Some(stem) = name.strip_suffix(SUFFIX).filter(|stem| is_file_stem(stem)) else {
            continue;
        };
        // A link or a socket, say, which no lock is, and which cannot be opened.
        let is_file = match entry.file_type() {
            FileType::Unknown => directory
                .look(name)?
                .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile),
            kind => kind == FileType::RegularFile,
        };
        if !is_file {
            continue;
        }
        // One in the making is held in a moment: as well as not.
        if let Seen::Held(holder) = look(directory, name, false)? {
            let awaited = directory.look(name)?;
            let lock = ListedLock::new(stem, holder);
            held.push(match awaited {
                Some(stat) => lock.with_awaited(is_awaited(&stat)),
                None => lock,
            });
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::super::lock_file::tests::directory;
    use super::super::lock_file::{Taken, take};
    use super::*;

    #[test]
    fn held_locks_are_listed_and_files_of_others_are_not() {
        let (base, directory) = directory();
        let stems = ["b", "c"].map(|byte| format!("v1-{}", byte.repeat(32)));
        let held: Vec<_> = (stems.iter())
            .map(
                |stem| match take(&directory, &format!("{stem}{SUFFIX}"), false).unwrap() {
                    Taken::Ours(file) => {
                        file.sign("distributed_lock v1 web-1:7\n");
                        file
                    }
                    Taken::Theirs(_) | Taken::Read(_) => panic!("another process holds it"),
                },
            )
            .collect();
        // Another waits for the second.
        let awaited = take(&directory, &format!("{}{SUFFIX}", stems[1]), true).unwrap();
        assert!(matches!(awaited, Taken::Theirs(_)));
        std::fs::write(base.path().join("locks").join("Cargo.lock"), "").unwrap();
        let mut listed = list(&directory, 10).unwrap();
        listed.sort_by(|one, other| one.key().cmp(other.key()));
        let [first, second] = &listed[..] else {
            panic!("{listed:?}")
        };
        assert_eq!([first.key(), second.key()], [&*stems[0], &*stems[1]]);
        assert_eq!(first.holder().instance(), Some("web-1:7"));
        assert_eq!(
            [first, second].map(ListedLock::is_awaited),
            [Some(false), Some(true)]
        );
        assert_eq!(
            list(&directory, 0).unwrap().len(),
            1,
            "one more than the limit"
        );
        drop(held);
        assert!(list(&directory, 10).unwrap().is_empty());
    }
}
