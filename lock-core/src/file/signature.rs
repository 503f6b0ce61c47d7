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
//!
//! A file that readers have signed is tried exclusively, which succeeds only when all of them have gone. A reader
//! that comes in this moment knows that by the record, and tries again.
//!
//! # Readers
//!
//! Readers have one file, and one record in it: that of the reader which came last, until it leaves. All records are
//! of one length, so that each covers the one before.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

use super::directory::{Directory, age};
use super::flock::{try_lock, try_share, unlock};
use crate::instance::{Instance, LONGEST};
use crate::{Holder, LockError, LockMode};

/// How it begins; a version of its own, so that programs which read it know what follows.
const HEAD: &str = "distributed_lock v1 ";

/// Longer than between the creation of a file and its signature.
const IN_THE_MAKING: Duration = Duration::from_millis(20);

/// What follows it in the record of a reader. An instance has no blank.
const READERS: &str = "shared ";

/// How long a record is, which no signature of a writer exceeds.
const RECORD: usize = HEAD.len() + READERS.len() + LONGEST + 1;

/// Of this process.
#[derive(Debug)]
pub(super) struct Signature {
    line: String,
    record: String,
    /// The process that it names, where it names one.
    process: Option<u32>,
}

impl Signature {
    pub(super) fn of(instance: &Instance) -> Self {
        Self {
            line: line(instance),
            record: record(instance),
            process: instance.is_default().then(std::process::id),
        }
    }

    /// What is written by the process of this number, as a writer: a child that was forked has another one.
    pub(super) fn line(&self, process: u32) -> Cow<'_, str> {
        match self.other_than_named(process) {
            Some(instance) => line(&instance).into(),
            None => (&*self.line).into(),
        }
    }

    /// The same of a reader.
    pub(super) fn record(&self, process: u32) -> Cow<'_, str> {
        match self.other_than_named(process) {
            Some(instance) => record(&instance).into(),
            None => (&*self.record).into(),
        }
    }

    /// The instance that the process of this number is named as.
    pub(super) fn instance(&self, process: u32) -> String {
        self.line(process)[HEAD.len()..].trim_end().to_owned()
    }

    fn other_than_named(&self, process: u32) -> Option<Instance> {
        let is_other = self.process.is_some_and(|named| named != process);
        is_other.then(|| Instance::of_process(LONGEST))
    }
}

fn line(instance: &Instance) -> String {
    format!("{HEAD}{}\n", instance.as_str())
}

pub(super) fn record(instance: &Instance) -> String {
    record_of(instance.as_str())
}

fn record_of(instance: &str) -> String {
    format!("{HEAD}{READERS}{instance:<LONGEST$}\n")
}

/// Writes a line or a record into a lock file that is ours.
pub(super) fn write(file: &File, text: &str) {
    // In one call. It fails where the disk is full, and then the holder is not named.
    let _ = file.write_all_at(text.as_bytes(), 0);
}

/// Takes the name of a reader that leaves out of the record, if it is the one there.
pub(super) fn withdraw(file: &File, record: &str) {
    if text_of(file).is_some_and(|text| text == record) {
        write(file, &record_of(""));
    }
}

/// What stands in a lock file.
#[derive(Debug, PartialEq)]
pub(super) enum Signed {
    Writer(String),
    /// With the instance of one of them, or none where that one has left.
    Readers(Option<String>),
    /// Nothing yet, or nothing whole.
    No,
}

pub(super) fn read(file: &File) -> Signed {
    let text = text_of(file).unwrap_or_default();
    let Some(text) = text.strip_prefix(HEAD) else {
        return Signed::No;
    };
    if let Some(instance) = text.strip_prefix(READERS) {
        let instance = instance.trim_end();
        return Signed::Readers((!instance.is_empty()).then(|| instance.to_owned()));
    }
    match text.strip_suffix('\n') {
        Some(instance) => Signed::Writer(instance.to_owned()),
        None => Signed::No,
    }
}

/// Whether readers were the last that wrote to this file.
pub(super) fn is_of_readers(file: &File) -> bool {
    matches!(read(file), Signed::Readers(_))
}

/// Whether its holder may not have come to sign it.
pub(super) fn is_in_the_making(signed: &Signed, metadata: &Metadata) -> bool {
    *signed == Signed::No && age(metadata) < IN_THE_MAKING
}

/// Whether a lock was the last that was written to this file, if anything was.
pub(super) fn is_of_a_lock(file: &File) -> bool {
    text_of(file).is_some_and(|text| text.starts_with(HEAD) || HEAD.starts_with(&text))
}

/// No more than a signature has.
fn text_of(file: &File) -> Option<String> {
    let mut text = [0; RECORD + 1];
    let length = file.read_at(&mut text, 0).ok()?;
    String::from_utf8(text[..length].to_vec()).ok()
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
    let Some(file) = directory.open_if_there(name, OFlags::RDONLY, "open a lock file")? else {
        return Ok(Seen::Free);
    };
    let signed = read(&file);
    // After the signature: what is unlinked now had it.
    let metadata = file
        .metadata()
        .map_err(directory.failed("look at a lock file"))?;
    if metadata.nlink() == 0 {
        return Ok(Seen::Free);
    }
    if !is_last && is_in_the_making(&signed, &metadata) {
        return Ok(Seen::Unsigned);
    }
    let is_free = match signed {
        Signed::Readers(_) => try_lock(directory, &file)?,
        Signed::Writer(_) | Signed::No => try_share(directory, &file)?,
    };
    if is_free {
        unlock(directory, &file)?;
        return Ok(Seen::Free);
    }
    let (mode, instance) = match signed {
        Signed::Writer(instance) => (LockMode::Exclusive, Some(instance)),
        Signed::Readers(instance) => (LockMode::Shared, instance),
        Signed::No => (LockMode::Exclusive, None),
    };
    let mut holder = Holder::new(mode);
    if let Some(instance) = instance {
        holder = holder.with_instance(&instance);
    }
    if let Ok(since) = metadata.modified() {
        // Not in the future, where the clock was put back.
        holder = holder.with_since(since.min(SystemTime::now()));
    }
    Ok(Seen::Held(holder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::lock_file::Taken;
    use crate::file::lock_file::tests::{NAME, directory, ours};
    use crate::file::read_lock;

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
            "distributed_lock v1 shared",
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
            record: "of the parent".to_owned(),
        };
        assert!(parents.line(process).ends_with(&format!(":{process}\n")));
        let read = parents.record(process).trim_end().to_owned();
        assert!(read.ends_with(&format!(":{process}")), "{read}");
        let given = Signature::of(&Instance::of("web-1").unwrap());
        assert_eq!(given.line(process + 1), "distributed_lock v1 web-1\n");
    }

    #[test]
    fn readers_are_named_by_the_last_that_came_until_it_leaves() {
        let (_base, directory) = directory();
        let read = |instance: &str| {
            let record = record(&Instance::of(instance).unwrap());
            match read_lock::take(&directory, NAME, &record, false).unwrap() {
                Taken::Ours(file) => file,
                Taken::Theirs(_) | Taken::Read(_) => panic!("no writer holds it"),
            }
        };
        let see = || match look(&directory, NAME, false).unwrap() {
            Seen::Held(holder) => {
                assert_eq!(holder.mode(), LockMode::Shared);
                Some(holder.instance().map(str::to_owned))
            }
            _ => None,
        };
        let named = |instance: &str| Some(Some(instance.to_owned()));
        let long = "x".repeat(LONGEST);
        let one = read(&long);
        assert_eq!(see(), named(&long));
        let other = read("web-1");
        assert_eq!(see(), named("web-1"));
        other.release(&directory, NAME, || ()).unwrap();
        assert_eq!(see(), Some(None), "it is not known which");
        let other = read("web-1");
        one.release(&directory, NAME, || ()).unwrap();
        assert_eq!(see(), named("web-1"));
        // The looks were in no reader's way, nor are they in a writer's.
        other.release(&directory, NAME, || ()).unwrap();
        assert_eq!(see(), None);
        drop(ours(&directory));
    }

    #[test]
    fn an_instance_that_is_called_as_readers_are_is_a_writer() {
        let (_base, directory) = directory();
        let file = ours(&directory);
        file.sign(&line(&Instance::of("shared").unwrap()));
        let seen = look(&directory, NAME, false).unwrap();
        assert_eq!(instance(seen).as_deref(), Some("shared"));
    }
}
