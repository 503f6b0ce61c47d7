//! Files that processes left behind when they died.

use std::time::Duration;

use rustix::fs::OFlags;

use super::directory::{Directory, age};
use super::key::is_file_stem;
use super::lock_file::{SUFFIX, clear};
use super::{signature, turnstile};
use crate::LockError;

/// Files that have not been locked for this long are tidied away when the directory is opened.
const LEFT_BEHIND: Duration = Duration::from_secs(600);

/// No more than this many are looked at.
const TIDY_LIMIT: usize = 10_000;

/// Removes files that processes left behind when they died; those of names which are never locked
/// again would stay for good. What another program has put into the directory is not touched, also where
/// it ends as lock files do (`Cargo.lock`).
pub(super) fn tidy(directory: &Directory) -> Result<(), LockError> {
    for entry in directory.entries()?.take(TIDY_LIMIT) {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        let stem = (name.strip_suffix(SUFFIX)).or_else(|| name.strip_suffix(turnstile::SUFFIX));
        if stem.is_some_and(is_file_stem) {
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
        metadata.is_file() && age(&metadata) >= LEFT_BEHIND && signature::is_of_a_lock(&file)
    });
    if left_behind {
        clear(directory, name, &file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;
    use crate::file::lock_file::tests::directory;

    #[test]
    fn what_is_no_lock_file_is_not_tidied_away() {
        let (base, directory) = directory();
        let old = SystemTime::now() - 365 * 24 * 6 * LEFT_BEHIND;
        let [gone, held, folder, written, signed] =
            ["b", "c", "d", "e", "f"].map(|byte| format!("v1-{}.lock", byte.repeat(32)));
        let [waited, waits] = [&gone, &held].map(|name| turnstile::name_of(name));
        let empty = ["tokens", "notes", "yarn.lock", "v1-b.lock", "v1-b.wait"];
        let empty = (empty.into_iter()).chain([&*gone, &held, &waited, &waits]);
        for (name, text) in empty.map(|name| (name, "")).chain([
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
        let waiter = directory.open_file(&waits, OFlags::RDONLY).unwrap();
        waiter.try_lock_shared().unwrap();
        tidy(&directory).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(base.path().join("locks"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut others = vec!["Cargo.lock", "notes", "tokens", "v1-b.lock", "v1-b.wait"];
        others.extend([&*held, &waits, &folder, &written, "yarn.lock"]);
        assert_eq!(left, others);
    }
}
