//! Several processes over one directory.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lock_core::file::FileBackend;
use lock_core::{LockErrorKind, LockProvider};
use rustix::process::Signal;

use crate::child::{Child, HAMMERED, now};
use crate::support::{Base, Detector, take};

const LOCK: &str = "order:process:42";

#[test]
fn what_a_child_holds_is_held_until_it_releases_it() {
    let base = Base::new();
    let backend = base.backend();
    let mut child = Child::start("hold", base.path(), LOCK);
    child.expect("held");
    assert!(take(&backend, LOCK).is_none());
    child.tell("release");
    child.expect("released");
    assert!(take(&backend, LOCK).is_some());
}

#[test]
fn what_a_killed_child_held_is_free_at_once() {
    let base = Base::new();
    let backend = base.backend();
    let mut child = Child::start("hold", base.path(), LOCK);
    child.expect("held");
    child.kill();
    assert!(take(&backend, LOCK).is_some());
    assert!(base.lock_files().is_empty());
}

#[test]
fn a_program_that_a_killed_holder_had_started_does_not_keep_its_lock() {
    let base = Base::new();
    let backend = base.backend();
    let mut child = Child::start("hold-with-a-child", base.path(), LOCK);
    let grandchild = child.report();
    assert!(take(&backend, LOCK).is_none());
    child.kill();
    let free = take(&backend, LOCK).is_some();
    let alive = Command::new("kill")
        .arg(&grandchild)
        .status()
        .unwrap()
        .success();
    assert!(free && alive, "free {free}, alive {alive}");
}

#[test]
fn a_frozen_holder_still_holds() {
    let base = Base::new();
    let backend = base.backend();
    let mut child = Child::start("hold", base.path(), LOCK);
    child.expect("held");
    child.signal(Signal::STOP);
    thread::sleep(Duration::from_millis(1_500));
    assert!(take(&backend, LOCK).is_none());
    child.signal(Signal::CONT);
    child.tell("release");
    child.expect("released");
    assert!(take(&backend, LOCK).is_some());
}

#[test]
fn four_processes_of_four_threads_never_overlap_nor_leave_files() {
    let base = Base::new();
    let children: Vec<_> = (0..4)
        .map(|_| Child::start("hammer", base.path(), "500"))
        .collect();
    let turns = children.into_iter().flat_map(Child::reports);
    let turns: u64 = turns.map(|turns| turns.parse::<u64>().unwrap()).sum();
    let counted: u64 = HAMMERED
        .map(|lock| Detector::new(base.path(), lock).count())
        .iter()
        .sum();
    println!("{turns} turns of 16 threads in 4 processes");
    assert_eq!(counted, turns);
    assert!(turns > 0);
    assert!(base.lock_files().is_empty());
}

#[tokio::test]
async fn a_waiting_child_is_served_when_the_parent_releases() {
    let base = Base::new();
    let locks = LockProvider::new(base.backend());
    let lock = locks.lock(LOCK).unwrap();
    let guard = lock.acquire(Duration::ZERO).await.unwrap();
    let child = Child::start("acquire", base.path(), LOCK);
    child.expect("waiting");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let released = now();
    guard.release().await.unwrap();
    let got: u64 = child.report().parse().unwrap();
    assert!(got > released, "before the release");
    let late = Duration::from_nanos(got - released);
    println!("a child that waited was served after {late:?}");
    assert!(late < Duration::from_secs(5));
}

#[tokio::test]
async fn a_waiting_parent_is_served_when_the_child_releases() {
    let base = Base::new();
    let locks = LockProvider::new(base.backend());
    let mut child = Child::start("hold", base.path(), LOCK);
    child.expect("held");
    let lock = locks.lock(LOCK).unwrap();
    let waiting = tokio::spawn(lock.acquire_owned(Duration::from_secs(30)));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    child.tell("release");
    drop(waiting.await.unwrap().unwrap());
    child.expect("released");
}

#[tokio::test]
async fn who_waits_for_a_holder_that_is_killed_is_served() {
    let base = Base::new();
    let locks = LockProvider::new(base.backend());
    let mut child = Child::start("hold", base.path(), LOCK);
    child.expect("held");
    // Long enough for the tries to be far apart.
    let lock = locks.lock(LOCK).unwrap();
    let waiting = tokio::spawn(lock.acquire_owned(Duration::from_secs(30)));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let killed = Instant::now();
    child.kill();
    drop(waiting.await.unwrap().unwrap());
    println!("granted {:?} after the kill", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_wait_ends_while_another_process_holds() {
    let base = Base::new();
    let locks = LockProvider::new(FileBackend::open(base.locks()).unwrap());
    let child = Child::start("hold", base.path(), LOCK);
    child.expect("held");
    let lock = locks.lock(LOCK).unwrap();
    for wait in [0, 1, 30, 200].map(Duration::from_millis) {
        let started = Instant::now();
        let error = lock.acquire(wait).await.unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Contended);
        assert!(started.elapsed() >= wait);
    }
}
