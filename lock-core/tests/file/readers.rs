//! Readers hold a name together and never beside a writer, and a writer that waits is not overtaken, also by other
//! processes.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lock_core::backend::{Backend, Grant, LossReason};
use lock_core::file::FileBackend;
use lock_core::{LockErrorKind, LockMode};

use crate::child::{Child, report};
use crate::support::{Base, at_once, block_on, read, request, take, until_lost};

const LOCK: &str = "catalog:read:7";

/// Longer than anything takes that is waited for here.
const PATIENCE: Duration = Duration::from_secs(30);

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn readers_of_several_backends_hold_a_lock_together_and_a_writer_holds_it_alone() {
    let base = Base::new();
    let (one, other) = (base.backend(), base.backend());
    let readers = [&one, &one, &other].map(|backend| read(backend, LOCK).unwrap());
    assert_eq!(base.lock_files().len(), 1);
    for reader in readers {
        assert!(take(&one, LOCK).is_none() && take(&other, LOCK).is_none());
        at_once(reader.release()).unwrap();
    }
    assert!(base.lock_files().is_empty());
    let writer = take(&other, LOCK).unwrap();
    assert!(read(&one, LOCK).is_none() && read(&other, LOCK).is_none());
    drop(writer);
    drop(read(&one, LOCK).unwrap());
    assert!(base.lock_files().is_empty());
}

#[test]
fn a_reader_has_no_token_and_those_of_writers_grow_across_it() {
    let base = Base::new();
    let backend = base.backend();
    let token = || {
        let writer = take(&backend, LOCK).unwrap();
        block_on(writer.fencing_token()).unwrap()
    };
    let before = token();
    let reader = read(&backend, LOCK).unwrap();
    let error = block_on(reader.fencing_token()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Misconfigured);
    drop(reader);
    assert!(token() > before);
}

#[test]
fn readers_are_named_and_listed_as_readers() {
    let base = Base::new();
    let named = |instance| {
        let builder = FileBackend::builder(base.locks()).instance(instance);
        builder.open().unwrap()
    };
    let (one, other) = (named("web-1"), named("web-2"));
    let name = LOCK.parse().unwrap();
    let first = read(&one, LOCK).unwrap();
    let second = read(&other, LOCK).unwrap();
    for backend in [&one, &other] {
        let holder = block_on(backend.holder(&name)).unwrap().unwrap();
        assert_eq!(holder.mode(), LockMode::Shared);
        assert_eq!(holder.instance(), Some("web-2"));
        let listing = block_on(backend.list(10)).unwrap();
        let [row] = listing.locks() else {
            panic!("{listing:?}")
        };
        assert_eq!(row.holder().mode(), LockMode::Shared);
    }
    drop((first, second));
    assert_eq!(block_on(one.holder(&name)).unwrap(), None);
    let _writer = take(&one, LOCK).unwrap();
    let holder = block_on(other.holder(&name)).unwrap().unwrap();
    assert_eq!(holder.mode(), LockMode::Exclusive);
}

#[test]
fn readers_whose_file_is_removed_have_lost_it() {
    let base = Base::new();
    let (one, other) = (base.backend(), base.backend());
    let readers = [&one, &other].map(|backend| read(backend, LOCK).unwrap());
    fs::remove_file(&base.lock_files()[0]).unwrap();
    let writer = take(&one, LOCK).unwrap();
    for reader in &readers {
        until_lost(reader.lease());
        assert_eq!(reader.lease().reason(), Some(LossReason::Revoked));
    }
    drop(readers);
    assert_eq!(base.lock_files().len(), 1);
    assert!(writer.lease().is_valid());
}

#[test]
fn a_killed_reader_is_gone_and_the_others_still_hold() {
    let base = Base::new();
    let backend = base.backend();
    let mut killed = Child::start("read", base.path(), LOCK);
    let mut other = Child::start("read", base.path(), LOCK);
    killed.expect("held");
    other.expect("held");
    killed.kill();
    assert!(take(&backend, LOCK).is_none());
    let ours = read(&backend, LOCK).unwrap();
    other.kill();
    assert!(take(&backend, LOCK).is_none());
    drop(ours);
    drop(take(&backend, LOCK).unwrap());
    assert!(base.lock_files().is_empty());
}

#[test]
fn a_writer_that_waits_is_told_when_the_last_reader_is_killed() {
    let base = Base::new();
    let backend = base.backend();
    let mut reader = Child::start("read", base.path(), LOCK);
    reader.expect("held");
    let mut changed = Box::pin(backend.changed(&request(LOCK)));
    assert!(take(&backend, LOCK).is_none());
    reader.kill();
    block_on(changed.as_mut());
    drop(take(&backend, LOCK).unwrap());
}

#[test]
fn a_writer_that_waits_keeps_new_readers_out_of_all_processes_until_it_is_granted_the_lock() {
    let base = Base::new();
    let (writer, elsewhere) = (base.backend(), base.backend());
    let mut reader = Child::start("read", base.path(), LOCK);
    reader.expect("held");
    // A try does not wait.
    assert!(take(&writer, LOCK).is_none());
    drop(read(&elsewhere, LOCK).unwrap());
    let mut changed = Box::pin(writer.changed(&request(LOCK)));
    assert!(take(&writer, LOCK).is_none());
    assert!(read(&elsewhere, LOCK).is_none() && read(&writer, LOCK).is_none());
    reader.tell("release");
    reader.expect("released");
    assert!(read(&elsewhere, LOCK).is_none(), "before the writer");
    block_on(changed.as_mut());
    let granted = take(&writer, LOCK).unwrap();
    drop(changed);
    assert!(read(&elsewhere, LOCK).is_none());
    drop(granted);
    drop(read(&elsewhere, LOCK).unwrap());
    assert!(base.lock_files().is_empty());
}

#[test]
fn readers_that_wait_are_told_when_a_writer_gives_up_or_is_killed() {
    let base = Base::new();
    let (holding, reading) = (base.backend(), base.backend());
    let _first = read(&holding, LOCK).unwrap();
    let shared = request(LOCK).with_mode(LockMode::Shared);
    for is_killed in [false, true] {
        let mut writer = Child::start("wait", base.path(), LOCK);
        writer.expect("waits");
        assert!(read(&reading, LOCK).is_none());
        let mut changed = Box::pin(reading.changed(&shared));
        assert!(read(&reading, LOCK).is_none());
        if is_killed {
            writer.kill();
        } else {
            writer.tell("give up");
            writer.reports();
        }
        // The end of a process can be news before the kernel has unlocked its files: then another change or a try follows.
        while read(&reading, LOCK).is_none() {
            block_on(changed.as_mut());
            changed = Box::pin(reading.changed(&shared));
        }
    }
}

#[test]
fn a_writer_that_tries_again_and_again_is_not_overtaken_between_two_tries() {
    let base = Base::new();
    let (writing, reading) = (base.backend(), base.backend());
    let _first = read(&reading, LOCK).unwrap();
    let mut changed = writing.changed(&request(LOCK));
    assert!(take(&writing, LOCK).is_none());
    for _ in 0..200 {
        // As between two tries of a provider.
        drop(changed);
        assert!(read(&reading, LOCK).is_none());
        changed = writing.changed(&request(LOCK));
        assert!(take(&writing, LOCK).is_none());
    }
    drop(changed);
    until("readers are let in", || read(&reading, LOCK).is_some());
}

#[test]
fn a_lock_that_a_writer_no_longer_waits_for_is_free_as_soon_as_it_is_released() {
    let base = Base::new();
    let (one, other) = (base.backend(), base.backend());
    let first = read(&one, LOCK).unwrap();
    let changed = other.changed(&request(LOCK));
    assert!(take(&other, LOCK).is_none());
    drop(changed);
    until("readers are let in", || read(&other, LOCK).is_some());
    drop(first);
    drop(read(&one, LOCK).unwrap());
    drop(take(&one, LOCK).unwrap());
}

#[test]
fn a_writer_that_waits_for_a_writer_is_not_overtaken_by_a_reader_that_waits() {
    let base = Base::new();
    let (one, other, reading) = (base.backend(), base.backend(), base.backend());
    let first = take(&one, LOCK).unwrap();
    let mut writer = Box::pin(other.changed(&request(LOCK)));
    assert!(take(&other, LOCK).is_none());
    let reader = reading.changed(&request(LOCK).with_mode(LockMode::Shared));
    assert!(read(&reading, LOCK).is_none());
    // The next try of the writer, which is 50 ms later at most.
    assert!(take(&other, LOCK).is_none());
    drop(first);
    assert!(read(&reading, LOCK).is_none());
    block_on(writer.as_mut());
    drop(take(&other, LOCK).unwrap());
    drop((writer, reader));
    until("the reader is let in", || read(&reading, LOCK).is_some());
}

/// Who reads and who writes at a moment, in a file: a page for the writer's mark, one for each reader's.
struct Marks {
    file: File,
    /// Which of so many this is.
    place: u64,
}

const PLACES: usize = 16;

impl Marks {
    fn open(base: &Path, place: u64) -> Self {
        let path = base.join("marks");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap();
        Self { file, place }
    }

    fn set(&self, mark: u8) {
        self.file.write_all_at(&[mark], self.place).unwrap();
    }

    /// Holds it as a reader or as the writer, and panics where the others do not allow that.
    fn visit(&self, mark: u8) {
        self.set(mark);
        for _ in 0..3 {
            let mut all = [0; PLACES];
            let length = self.file.read_at(&mut all, 0).unwrap();
            for (place, other) in (0..).zip(&all[..length]) {
                let is_wrong =
                    place != self.place && *other != 0 && (mark == WRITES || *other == WRITES);
                assert!(!is_wrong, "{mark} beside {other}: {all:?}");
            }
            thread::yield_now();
        }
        self.set(0);
    }
}

const READS: u8 = 1;
const WRITES: u8 = 2;

/// Two threads that read and write a name by turns, as often as the argument says; reports how often each did.
pub(crate) fn read_and_write(base: &Path, argument: &str) {
    let mut numbers = argument
        .split(' ')
        .map(|number| number.parse::<u64>().unwrap());
    let (child, rounds) = (numbers.next().unwrap(), numbers.next().unwrap());
    let backend = FileBackend::open(base.join("locks")).unwrap();
    let counts = thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|thread| (Marks::open(base, 2 * child + thread), &backend))
            .map(|(marks, backend)| scope.spawn(move || by_turns(&marks, backend, rounds)))
            .collect();
        let counts = threads.into_iter().map(|thread| thread.join().unwrap());
        counts
            .reduce(|one, other| (one.0 + other.0, one.1 + other.1))
            .unwrap()
    });
    report(&format!("{} {}", counts.0, counts.1));
}

fn by_turns(marks: &Marks, backend: &FileBackend, rounds: u64) -> (u64, u64) {
    let (mut reads, mut writes) = (0, 0);
    let started = Instant::now();
    while reads + writes < rounds {
        assert!(
            started.elapsed() < PATIENCE,
            "{reads} reads, {writes} writes"
        );
        // Each hold ends with the removal of the file, if it is the last.
        if let Some(grant) = read(backend, LOCK) {
            marks.visit(READS);
            reads += 1;
            drop(grant);
        }
        if let Some(grant) = take(backend, LOCK) {
            marks.visit(WRITES);
            writes += 1;
            drop(grant);
        }
    }
    (reads, writes)
}

#[test]
fn readers_and_writers_of_four_processes_that_race_with_the_removal_of_the_file_never_overlap() {
    let base = Base::new();
    let children =
        (0..4).map(|child| Child::start("read-and-write", base.path(), &format!("{child} 1000")));
    let children: Vec<_> = children.collect();
    let (mut reads, mut writes) = (0, 0);
    for report in children.into_iter().flat_map(Child::reports) {
        let (read, written) = report.split_once(' ').unwrap();
        reads += read.parse::<u64>().unwrap();
        writes += written.parse::<u64>().unwrap();
    }
    println!("{reads} reads and {writes} writes of 8 threads in 4 processes");
    assert!(reads > 0 && writes > 0);
    let left = base.lock_files();
    assert!(left.is_empty(), "{left:?}");
}

/// A try can meet the last of the others just as that leaves, and is refused then: the next is granted.
#[test]
fn readers_alone_are_granted_it_whoever_leaves_meanwhile() {
    let base = Base::new();
    let backends = [(); 4].map(|()| base.backend());
    thread::scope(|scope| {
        for backend in &backends {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    until("a reader is granted it", || read(backend, LOCK).is_some());
                }
            });
        }
    });
    assert!(base.lock_files().is_empty());
}
