//! What a holder writes into its lock file, and what others read there.
//!
//! The lock is the kernel's, and a signature has no part in it: it is written once the lock is held, and
//! read without a lock. Where it cannot be written, since the disk is full, the holder has the lock
//! nevertheless, and is not named. What is read counts only where it is whole.
//!
//! # Why a look costs no holder its lock
//!
//! Whether a file is locked shows at a try, and a try that succeeds is a lock for a moment. It is a shared
//! one, and of two kinds of files: of one that is signed, which was locked when that was written, so that the
//! try succeeds only when its holder has released it, or has died; and of one that is older than a holder
//! takes to sign, as earlier versions leave them. A file in the making is never tried. So what a look can meet
//! is another process that clears away what a dead one has left: that takes the lock for held, as it does when
//! two processes clear it away together, and tries again.

use std::borrow::Cow;
use std::fs::{File, TryLockError};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::directory::{Directory, age};
use crate::instance::{Instance, LONGEST};
use crate::{Holder, LockError, LockMode};

/// How it begins; a version of its own, so that programs which read it know what follows.
const HEAD: &str = "distributed_lock v1 ";

/// Longer than between the creation of a file and its signature.
const IN_THE_MAKING: Duration = Duration::from_millis(20);

/// Of this process.
#[derive(Debug)]
pub(super) struct Signature {
    line: String,
    /// The process that it names, where it names one.
    process: Option<u32>,
}

impl Signature {
    pub(super) fn of(instance: &Instance) -> Self {
        Self {
            line: line(instance),
            process: instance.is_default().then(std::process::id),
        }
    }

    /// What is written by the process of this number: a child that was forked has another one.
    pub(super) fn line(&self, process: u32) -> Cow<'_, str> {
        match self.process {
            Some(named) if named != process => line(&Instance::of_process(LONGEST)).into(),
            _ => (&*self.line).into(),
        }
    }
}

fn line(instance: &Instance) -> String {
    format!("{HEAD}{}\n", instance.as_str())
}

/// What a look at a lock file has found.
#[derive(Debug, PartialEq)]
pub(super) enum Seen {
    Free,
    Held(Holder),
    /// It is new, and not signed: to be looked at again.
    Unsigned,
}

/// Looks who holds the lock of this name. `is_last`: there is no further look at what is not signed.
pub(super) fn look(directory: &Directory, name: &str, is_last: bool) -> Result<Seen, LockError> {
    let file = match directory.open_file(name, OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Seen::Free),
        Err(error) => return Err(directory.failed("open a lock file")(error)),
    };
    let signed = read(&file).and_then(instance_in);
    // After the signature: what is unlinked now had it.
    let metadata = file
        .metadata()
        .map_err(directory.failed("look at a lock file"))?;
    if metadata.nlink() == 0 {
        return Ok(Seen::Free);
    }
    if signed.is_none() && !is_last && age(&metadata) < IN_THE_MAKING {
        return Ok(Seen::Unsigned);
    }
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(directory.failed("lock a file")(error)),
        Ok(()) => {
            // Explicitly: a child that is forked in this moment has the file open as well.
            file.unlock().map_err(directory.failed("unlock a file"))?;
            return Ok(Seen::Free);
        }
    }
    let mut holder = Holder::new(LockMode::Exclusive);
    if let Some(instance) = signed {
        holder = holder.with_instance(&instance);
    }
    if let Ok(since) = metadata.modified() {
        holder = holder.with_since(since);
    }
    Ok(Seen::Held(holder))
}

/// Whether a lock was the last that was written to this file, if anything was.
pub(super) fn is_of_a_lock(file: &File) -> bool {
    read(file).is_some_and(|text| text.starts_with(HEAD) || HEAD.starts_with(&text))
}

/// No more than a signature has.
fn read(file: &File) -> Option<String> {
    let mut text = [0; HEAD.len() + LONGEST + 2];
    let length = file.read_at(&mut text, 0).ok()?;
    String::from_utf8(text[..length].to_vec()).ok()
}

fn instance_in(text: String) -> Option<String> {
    let instance = text.strip_prefix(HEAD)?.strip_suffix('\n')?;
    Some(instance.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::lock_file::tests::{NAME, directory, ours};

    fn instance(seen: Seen) -> Option<String> {
        match seen {
            Seen::Held(holder) => Some(holder.instance().unwrap_or("unnamed").to_owned()),
            Seen::Free => None,
            Seen::Unsigned => panic!("it is not signed"),
        }
    }

    #[test]
    fn a_holder_is_named_until_it_releases_or_dies() {
        let (_base, directory) = directory();
        let see = || look(&directory, NAME, false).unwrap();
        assert_eq!(see(), Seen::Free);
        let file = ours(&directory);
        file.sign("distributed_lock v1 web-1:7\n");
        assert_eq!(instance(see()).as_deref(), Some("web-1:7"));
        file.release(&directory, NAME, || ()).unwrap();
        assert_eq!(see(), Seen::Free);
        let file = ours(&directory);
        file.sign("distributed_lock v1 web-1:7\n");
        // As the kernel closes it.
        drop(file);
        assert_eq!(see(), Seen::Free);
        // The look has left no lock behind.
        drop(ours(&directory));
    }

    #[test]
    fn a_file_in_the_making_is_not_tried_and_one_that_stays_unsigned_is_held() {
        let (_base, directory) = directory();
        let see = |is_last| look(&directory, NAME, is_last).unwrap();
        let made = directory.open_file(NAME, OFlags::RDWR | OFlags::CREATE);
        let made = made.unwrap();
        assert_eq!(see(false), Seen::Unsigned);
        // Its maker comes to lock it only now.
        made.try_lock().unwrap();
        assert_eq!(see(false), Seen::Unsigned);
        assert_eq!(instance(see(true)).as_deref(), Some("unnamed"));
        std::thread::sleep(IN_THE_MAKING);
        assert_eq!(instance(see(false)).as_deref(), Some("unnamed"));
    }

    #[test]
    fn what_is_half_written_or_of_another_program_names_no_holder() {
        let (base, directory) = directory();
        let file = ours(&directory);
        let long = format!("{HEAD}{}\n", "x".repeat(LONGEST + 1));
        for text in [
            "d",
            HEAD,
            "distributed_lock v1 web-1:7",
            "distributed_lock v1 \n",
            "distributed_lock v1 web 1\n",
            "distributed_lock v1 a\nb\n",
            "distributed_lock v2 web-1:7\n",
            "pid 7\n",
            &long,
        ] {
            std::fs::write(base.path().join("locks").join(NAME), text).unwrap();
            let seen = look(&directory, NAME, true).unwrap();
            assert_eq!(instance(seen).as_deref(), Some("unnamed"), "{text:?}");
        }
        drop(file);
    }

    #[test]
    fn a_forked_child_signs_with_its_own_number_where_no_instance_was_given() {
        let process = std::process::id();
        let signature = Signature::of(&Instance::of("").unwrap());
        assert!(signature.line(process).ends_with(&format!(":{process}\n")));
        let parents = Signature {
            process: Some(process + 1),
            line: "of the parent".to_owned(),
        };
        assert!(parents.line(process).ends_with(&format!(":{process}\n")));
        let given = Signature::of(&Instance::of("web-1").unwrap());
        assert_eq!(given.line(process + 1), "distributed_lock v1 web-1\n");
    }
}
