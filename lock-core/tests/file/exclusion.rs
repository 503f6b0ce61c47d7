//! At most one process holds a name, and nothing is left behind.

use std::fs::{self, File};
use std::path::PathBuf;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use lock_core::LockErrorKind;
use lock_core::backend::{Backend, Grant, LossReason};
use lock_core::file::FileBackend;

use crate::child::{HAMMERED, hammer_until};
use crate::support::{Base, Detector, at_once, block_on, request, take, until_lost};

const LOCK: &str = "order:process:42";

#[test]
fn two_backends_and_their_clones_exclude_each_other() {
    let base = Base::new();
    let (one, other) = (base.backend(), base.backend());
    let grant = take(&one, LOCK).unwrap();
    assert!(take(&one, LOCK).is_none());
    assert!(take(&one.clone(), LOCK).is_none());
    assert!(take(&other, LOCK).is_none());
    assert!(take(&other, "order:process:43").is_some());
    drop(grant);
    let grant = take(&other, LOCK).unwrap();
    assert!(take(&one, LOCK).is_none());
    at_once(grant.release()).unwrap();
    assert!(take(&one, LOCK).is_some());
}

#[test]
fn namespaces_keep_names_apart() {
    let base = Base::new();
    let shop = FileBackend::builder(base.locks())
        .namespace("shop")
        .open()
        .unwrap();
    let _grant = take(&base.backend(), LOCK).unwrap();
    let _other = take(&shop, LOCK).unwrap();
    assert!(take(&shop, LOCK).is_none());
}

#[test]
fn one_file_for_each_held_lock_and_none_after() {
    let base = Base::new();
    let backend = base.backend();
    let grants: Vec<_> = (0..100)
        .map(|id| take(&backend, &format!("order:process:{id}")))
        .collect();
    assert_eq!(base.lock_files().len(), 100);
    // Tries that fail leave nothing either.
    assert!(take(&base.backend(), "order:process:7").is_none());
    drop(grants);
    assert_eq!(base.lock_files(), Vec::<PathBuf>::new());
}

#[test]
fn a_release_never_removes_what_a_later_holder_has() {
    let base = Base::new();
    let (one, other) = (base.backend(), base.backend());
    let grant = take(&one, LOCK).unwrap();
    // The file is removed under its holder, and the next one has a new file.
    fs::remove_file(&base.lock_files()[0]).unwrap();
    let later = take(&other, LOCK).unwrap();
    let lease = grant.lease().clone();
    let error = at_once(grant.release()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Lost);
    assert_eq!(lease.reason(), Some(LossReason::Revoked));
    assert_eq!(base.lock_files().len(), 1);
    assert!(take(&one, LOCK).is_none());
    assert!(later.lease().is_valid());
}

#[test]
fn a_file_that_was_left_behind_is_taken_over() {
    let base = Base::new();
    let backend = base.backend();
    drop(take(&backend, LOCK));
    let grant = take(&backend, LOCK).unwrap();
    let file = base.lock_files().remove(0);
    drop(grant);
    for content in ["", "anything"] {
        fs::write(&file, content).unwrap();
        let grant = take(&backend, LOCK).unwrap();
        assert!(take(&base.backend(), LOCK).is_none());
        drop(grant);
        assert!(base.lock_files().is_empty());
    }
}

#[test]
fn old_files_without_a_holder_are_tidied_away_when_the_directory_is_opened() {
    let base = Base::new();
    let backend = base.backend();
    let _grant = take(&backend, LOCK).unwrap();
    let held = base.lock_files().remove(0);
    let named = |byte: &str| base.locks().join(format!("v1-{}.lock", byte.repeat(32)));
    let (left, recent) = (named("l"), named("r"));
    for file in [&held, &left, &recent] {
        let file = File::options()
            .create(true)
            .append(true)
            .open(file)
            .unwrap();
        let age = Duration::from_secs(3_600);
        file.set_modified(std::time::SystemTime::now() - age)
            .unwrap();
    }
    File::open(&recent)
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    base.backend();
    let mut there = base.lock_files();
    there.sort();
    let mut expected = vec![held, recent];
    expected.sort();
    assert_eq!(there, expected);
}

#[test]
fn a_lock_whose_file_is_removed_is_lost_within_two_seconds() {
    let base = Base::new();
    let backend = base.backend();
    let grant = take(&backend, LOCK).unwrap();
    let other = take(&backend, "order:process:43").unwrap();
    let released = take(&backend, "order:process:44").unwrap();
    let lease = released.lease().clone();
    drop(released);
    thread::sleep(Duration::from_millis(1_200));
    assert!(grant.lease().is_valid());
    let file = |grant: &lock_core::file::FileGrant| {
        let text = format!("{grant:?}");
        base.lock_files()
            .into_iter()
            .find(|file| text.contains(&*file.file_name().unwrap().to_string_lossy()))
    };
    fs::remove_file(file(&grant).unwrap()).unwrap();
    until_lost(grant.lease());
    assert_eq!(grant.lease().reason(), Some(LossReason::Revoked));
    assert!(other.lease().is_valid());
    assert!(lease.is_valid(), "a release is not a loss");
}

#[test]
fn many_threads_over_four_backends_never_overlap_nor_leave_files() {
    let base = Base::new();
    let until = Instant::now() + Duration::from_millis(400);
    let backends = [(); 4].map(|()| base.backend());
    let turns: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|i| (&backends[i % 4], &base))
            .map(|(backend, base)| scope.spawn(|| hammer_until(base.path(), backend, until)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    let counted: u64 = HAMMERED
        .map(|lock| Detector::new(base.path(), lock).count())
        .iter()
        .sum();
    assert_eq!(counted, turns);
    assert!(turns > 0);
    assert!(base.lock_files().is_empty());
}

#[test]
fn a_grant_is_released_by_a_panic_and_outside_of_a_runtime() {
    let base = Base::new();
    let backend = base.backend();
    let grant = take(&backend, LOCK).unwrap();
    let panicked = thread::spawn(move || {
        let _grant = grant;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert!(take(&backend, LOCK).is_some());
}

#[test]
fn a_release_that_is_never_polled_releases() {
    let base = Base::new();
    let backend = base.backend();
    drop(take(&backend, LOCK).unwrap().release());
    assert!(take(&backend, LOCK).is_some());
}

#[test]
fn a_try_that_fails_is_no_news_to_those_who_wait_and_a_release_is() {
    let base = Base::new();
    let (one, other) = (base.backend(), base.backend());
    let grant = take(&one, LOCK).unwrap();
    let mut changed = Box::pin(other.changed(&request(LOCK)));
    let mut is_told = || {
        let mut cx = Context::from_waker(Waker::noop());
        changed.as_mut().poll(&mut cx).is_ready()
    };
    for _ in 0..10 {
        assert!(take(&one, LOCK).is_none() && take(&other, LOCK).is_none());
    }
    thread::sleep(Duration::from_millis(50));
    assert!(!is_told());
    drop(grant);
    let released = Instant::now();
    while !is_told() {
        assert!(released.elapsed() < Duration::from_secs(10), "not told");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_backend_is_healthy_and_says_where_it_is() {
    let base = Base::new();
    let backend = base.backend();
    block_on(backend.health()).unwrap();
    assert_eq!(backend.directory(), base.locks());
    assert!(format!("{backend:?}").contains("locks"));
    assert!(base.lock_files().is_empty());
    let _ = at_once(backend.try_acquire(&request(LOCK))).unwrap();
}

#[test]
fn what_a_cycle_takes() {
    let base = Base::new();
    let backend = base.backend();
    for held in [0, 100] {
        let grants: Vec<_> = (0..held)
            .map(|id| take(&backend, &format!("order:other:{id}")).unwrap())
            .collect();
        let started = Instant::now();
        for _ in 0..5_000 {
            drop(take(&backend, LOCK).unwrap());
        }
        println!(
            "acquire and release with {held} held: {:?}",
            started.elapsed() / 5_000
        );
        drop(grants);
    }
    let _grant = take(&backend, LOCK).unwrap();
    let started = Instant::now();
    for _ in 0..5_000 {
        assert!(take(&backend, LOCK).is_none());
    }
    println!("a try of a held lock: {:?}", started.elapsed() / 5_000);
}
