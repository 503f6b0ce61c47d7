//! Fencing tokens through the file of the directory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

use lock_core::LockErrorKind;
use lock_core::backend::Grant;

use crate::child::Child;
use crate::support::{Base, block_on, take};

const LOCK: &str = "order:process:42";
const PAGE: u64 = 4096;

fn counter(base: &Base) -> PathBuf {
    base.locks().join("tokens")
}

/// Takes the lock for one token.
fn token(base: &Base) -> Result<u64, LockErrorKind> {
    let grant = take(&base.backend(), LOCK).unwrap();
    block_on(grant.fencing_token()).map_err(|error| error.kind())
}

fn damage(base: &Base, page: u64) {
    let file = File::options().write(true).open(counter(base)).unwrap();
    file.write_all_at(b"torn", page * PAGE + 10).unwrap();
}

#[test]
fn they_grow_across_processes() {
    let base = Base::new();
    let started = Instant::now();
    let children: Vec<_> = (0..4)
        .map(|_| Child::start("tokens", base.path(), "250"))
        .collect();
    children
        .into_iter()
        .for_each(|child| assert_eq!(child.reports().len(), 0));
    println!(
        "1000 tokens of one lock from 4 processes in {:?}",
        started.elapsed()
    );
    let log = fs::read_to_string(base.path().join("log")).unwrap();
    let tokens: Vec<u64> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(tokens.len(), 1_000);
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}

#[test]
fn they_come_without_a_runtime_and_are_quick() {
    let base = Base::new();
    let backend = base.backend();
    let grant = take(&backend, LOCK).unwrap();
    let mut last = block_on(grant.fencing_token()).unwrap();
    let started = Instant::now();
    for _ in 0..3_000 {
        let token = block_on(grant.fencing_token()).unwrap();
        assert!(token > last);
        last = token;
    }
    println!("a token takes {:?}", started.elapsed() / 3_000);
}

#[tokio::test]
async fn they_come_from_many_tasks_at_once() {
    let base = Base::new();
    let backend = base.backend();
    let mut tasks = Vec::new();
    for id in 0..50 {
        let grant = take(&backend, &format!("order:process:{id}")).unwrap();
        tasks.push(tokio::spawn(
            async move { grant.fencing_token().await.unwrap() },
        ));
    }
    let mut tokens = Vec::new();
    for task in tasks {
        tokens.push(task.await.unwrap());
    }
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 50);
}

#[test]
fn one_damaged_record_is_survived() {
    let base = Base::new();
    let mut last = token(&base).unwrap();
    for page in 0..3 {
        damage(&base, page);
        for _ in 0..2 {
            let next = token(&base).unwrap();
            assert!(next > last, "{next} after {last}");
            last = next;
        }
    }
}

#[test]
fn a_damaged_counter_is_refused_while_locks_work_and_starts_at_the_clock_when_it_is_removed() {
    let base = Base::new();
    let last = token(&base).unwrap();
    (0..3).for_each(|page| damage(&base, page));
    assert_eq!(token(&base), Err(LockErrorKind::Misconfigured));
    assert_eq!(
        token(&base),
        Err(LockErrorKind::Misconfigured),
        "not only once"
    );
    let backend = base.backend();
    let grant = take(&backend, LOCK).unwrap();
    let error = block_on(grant.fencing_token()).unwrap_err().to_string();
    assert!(
        error.contains("tokens") && error.contains("remove it"),
        "{error}"
    );
    fs::remove_file(counter(&base)).unwrap();
    assert!(block_on(grant.fencing_token()).unwrap() > last);
}

#[test]
fn one_counter_follows_another_that_was_removed() {
    let base = Base::new();
    let backend = base.backend();
    let grant = take(&backend, LOCK).unwrap();
    let last = block_on(grant.fencing_token()).unwrap();
    fs::remove_file(counter(&base)).unwrap();
    let next = block_on(grant.fencing_token()).unwrap();
    assert!(next > last, "{next} after {last}");
    assert!(counter(&base).exists());
}

#[test]
fn none_is_given_for_a_lock_that_was_released_or_lost() {
    let base = Base::new();
    let backend = base.backend();
    let grant = take(&backend, LOCK).unwrap();
    let asked = grant.fencing_token();
    drop(grant);
    assert_eq!(block_on(asked).unwrap_err().kind(), LockErrorKind::Lost);
    let grant = take(&backend, LOCK).unwrap();
    grant.lease().lose(lock_core::LossReason::Revoked);
    assert_eq!(
        block_on(grant.fencing_token()).unwrap_err().kind(),
        LockErrorKind::Lost
    );
}

#[test]
fn a_counter_that_is_kept_by_another_is_unavailable_and_then_goes_on() {
    let base = Base::new();
    let backend = base.backend();
    let grant = take(&backend, LOCK).unwrap();
    let last = block_on(grant.fencing_token()).unwrap();
    let other = File::open(counter(&base)).unwrap();
    other.try_lock().unwrap();
    assert_eq!(
        block_on(grant.fencing_token()).unwrap_err().kind(),
        LockErrorKind::Unavailable
    );
    drop(other);
    assert_eq!(block_on(grant.fencing_token()).unwrap(), last + 1);
}
