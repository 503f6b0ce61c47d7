//! What a leader learns, and what it may do.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::poll;
use lock_core::backend::Clock;
use lock_core::memory::MemoryBackend;
use lock_core::{FencingToken, Leader, LockProvider};
use tokio::sync::oneshot;

pub(crate) const NAME: &str = "job:process-outbox";

/// Two instances over one store.
pub(crate) fn pair() -> (MemoryBackend, LockProvider, LockProvider) {
    let store = MemoryBackend::new();
    let [one, other] = [(); 2].map(|()| LockProvider::new(store.clone()));
    (store, one, other)
}

pub(crate) async fn elected(leader: &mut Leader) {
    assert!(leader.changed().await.unwrap(), "it is elected");
}

/// Told when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

#[tokio::test]
async fn one_of_two_instances_leads_and_the_other_does_when_it_resigns() {
    let (_store, one, other) = pair();
    let mut first = one.leader(NAME).unwrap();
    assert_eq!(first.name().as_str(), NAME);
    assert!(!first.is_leader(), "it has not campaigned yet");
    elected(&mut first).await;
    let mut second = other.leader(NAME).unwrap();
    tokio::task::yield_now().await;
    assert!(first.is_leader() && !second.is_leader());
    drop(first);
    elected(&mut second).await;
    assert!(second.is_leader());
}

#[tokio::test]
async fn processes_of_one_machine_elect_through_files() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let backend = lock_core::file::FileBackend::open(directory.path().join("locks"));
        LockProvider::new(backend.unwrap())
    };
    let (one, other) = (open(), open());
    let mut first = one.leader(NAME).unwrap();
    elected(&mut first).await;
    let mut second = other.leader(NAME).unwrap();
    let old = first.fencing_token().await.unwrap();
    assert!(!second.is_leader());
    one.shutdown(Duration::ZERO).await;
    elected(&mut second).await;
    assert!(!first.is_leader() && second.is_leader());
    assert!(second.fencing_token().await.unwrap() > old);
}

#[tokio::test]
async fn a_loss_is_told_and_the_next_term_has_a_greater_token() {
    let (store, locks, _) = pair();
    let mut leader = locks.leader(NAME).unwrap();
    let mut tokens: Vec<FencingToken> = Vec::new();
    for _ in 0..3 {
        elected(&mut leader).await;
        let token = leader.fencing_token().await.unwrap();
        assert_eq!(leader.fencing_token().await.unwrap(), token);
        tokens.push(token);
        store.revoke(leader.name());
        assert!(!leader.is_leader(), "at once, whatever the campaign does");
        assert!(leader.fencing_token().await.unwrap_err().is_lost());
        assert!(!leader.changed().await.unwrap());
    }
    assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
}

#[tokio::test]
async fn a_term_that_nobody_saw_end_is_told_as_a_new_one() {
    let (store, locks, _) = pair();
    let mut leader = locks.leader(NAME).unwrap();
    let mut witness = leader.clone();
    elected(&mut leader).await;
    elected(&mut witness).await;
    store.revoke(leader.name());
    assert!(!witness.changed().await.unwrap());
    elected(&mut witness).await;
    // True again: it has seen the first term.
    elected(&mut leader).await;
    let more = tokio::time::timeout(Duration::from_millis(20), leader.changed());
    assert!(more.await.is_err(), "nothing else has changed");
}

/// A clock that a test sets.
#[derive(Default)]
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test]
async fn nobody_leads_past_the_validity_of_the_lease() {
    let clock = Arc::new(HandClock::default());
    let store = MemoryBackend::with_lease(Duration::from_secs(1), clock.clone());
    let mut leader = LockProvider::new(store).leader(NAME).unwrap();
    elected(&mut leader).await;
    clock.0.store(999, Ordering::Relaxed);
    assert!(leader.is_leader());
    // Between these two no task runs, as in a process that was frozen.
    clock.0.store(1_000, Ordering::Relaxed);
    assert!(!leader.is_leader());
    assert!(leader.fencing_token().await.unwrap_err().is_lost());
}

#[tokio::test]
async fn work_begins_when_this_instance_leads_and_leadership_outlasts_it() {
    let (_store, one, other) = pair();
    let mut first = one.leader(NAME).unwrap();
    elected(&mut first).await;
    let second = other.leader(NAME).unwrap();
    let mut work = tokio::spawn({
        let second = second.clone();
        async move { second.while_leading(async { 6 * 7 }).await }
    });
    let early = tokio::time::timeout(Duration::from_millis(20), &mut work).await;
    assert!(early.is_err(), "another leads");
    drop(first);
    assert_eq!(work.await.unwrap().unwrap(), 42);
    assert!(second.is_leader());
}

#[tokio::test]
async fn work_is_dropped_when_leadership_is_lost_and_is_not_begun_again() {
    let (store, locks, _) = pair();
    let mut leader = locks.leader(NAME).unwrap();
    elected(&mut leader).await;
    let (dropped, was_dropped) = oneshot::channel();
    let armed = Dropped(Some(dropped));
    let worker = leader.clone();
    let work = tokio::spawn(async move {
        let work = async {
            let _armed = armed;
            std::future::pending::<()>().await;
        };
        worker.while_leading(work).await
    });
    tokio::task::yield_now().await;
    store.revoke(leader.name());
    let error = work.await.unwrap().unwrap_err();
    assert!(error.is_lost(), "{error}");
    was_dropped.await.unwrap();
    // It may lead again by now, and says that it lost the first term all the same.
    while !leader.changed().await.unwrap() {}
    assert!(leader.is_leader());
}

#[tokio::test]
async fn a_change_that_was_cancelled_is_told_by_the_next_call() {
    let (_store, locks, _) = pair();
    let mut leader = locks.leader(NAME).unwrap();
    let witness = leader.clone();
    {
        let mut begun = pin!(leader.changed());
        assert!(poll!(&mut begun).is_pending(), "no campaign has run yet");
    }
    tokio::time::timeout(Duration::from_secs(30), async {
        while !witness.is_leader() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    elected(&mut leader).await;
}
