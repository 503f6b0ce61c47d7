//! How leadership ends by itself: the last handle is dropped, or the provider is shut down.

use std::time::Duration;

use lock_core::LockPolicy;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::leading::{NAME, elected, pair};

const GRACE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_last_clone_resigns_when_it_is_dropped() {
    let (store, locks, _) = pair();
    let mut leader = locks.leader(NAME).unwrap();
    elected(&mut leader).await;
    drop(leader.clone());
    assert!(leader.is_leader());
    assert_eq!(store.held(), 1);
    drop(leader);
    // Before any task runs.
    assert_eq!(store.held(), 0);
}

#[test]
fn a_leader_can_be_dropped_outside_of_a_runtime() {
    let (store, locks, _) = pair();
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    let leader = runtime.block_on(async {
        let mut leader = locks.leader(NAME).unwrap();
        elected(&mut leader).await;
        leader
    });
    drop(leader);
    // The campaign, on a thread of its own, may look at the candidate at this moment.
    let deadline = std::time::Instant::now() + GRACE;
    while store.held() > 0 {
        assert!(std::time::Instant::now() < deadline, "it holds the lock");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_candidate_that_is_dropped_leaves_the_line() {
    let (store, one, other) = pair();
    let mut leader = one.leader(NAME).unwrap();
    elected(&mut leader).await;
    drop(other.leader(NAME).unwrap());
    let waiting = other.leader(NAME).unwrap();
    tokio::task::yield_now().await;
    drop(waiting);
    drop(leader);
    // No candidate is left that would take it.
    let guard = one.lock(NAME).unwrap().acquire(GRACE).await.unwrap();
    tokio::task::yield_now().await;
    assert!(guard.is_valid());
    guard.release().await.unwrap();
    assert_eq!(store.held(), 0);
}

#[tokio::test]
async fn a_shutdown_ends_leadership_at_once_and_for_good() {
    let (store, one, other) = pair();
    let mut leader = one.leader(NAME).unwrap();
    elected(&mut leader).await;
    let mut next = other.leader(NAME).unwrap();
    // Of the grace nothing is used: no work is under way.
    let shutdown = tokio::time::timeout(Duration::from_secs(5), one.shutdown(GRACE));
    shutdown.await.expect("the leader resigns by itself");
    assert!(!leader.is_leader());
    assert!(!leader.changed().await.unwrap());
    assert!(leader.changed().await.unwrap_err().is_closed());
    let error = leader.while_leading(async {}).await.unwrap_err();
    assert!(error.is_closed(), "{error}");
    elected(&mut next).await;
    assert_eq!(store.held(), 1);
}

#[tokio::test]
async fn work_under_way_has_the_grace_of_a_shutdown() {
    let (store, locks, _) = pair();
    let leader = locks.leader(NAME).unwrap();
    let (begun, has_begun) = oneshot::channel();
    let (finish, may_finish) = oneshot::channel();
    let worker = leader.clone();
    let work = tokio::spawn(async move {
        let work = async {
            begun.send(()).unwrap();
            may_finish.await.unwrap()
        };
        worker.while_leading(work).await
    });
    has_begun.await.unwrap();
    let closing = locks.clone();
    let shutdown = tokio::spawn(async move { closing.shutdown(GRACE).await });
    while leader.is_leader() {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.held(), 1, "the work still needs the lock");
    finish.send("done").unwrap();
    assert_eq!(work.await.unwrap().unwrap(), "done");
    shutdown.await.unwrap();
    assert_eq!(store.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn work_that_outlasts_the_grace_is_stopped() {
    let (store, locks, other) = pair();
    let leader = locks.leader(NAME).unwrap();
    let (begun, has_begun) = oneshot::channel();
    let work = tokio::spawn(async move {
        let work = async {
            begun.send(()).unwrap();
            std::future::pending::<()>().await;
        };
        leader.while_leading(work).await
    });
    has_begun.await.unwrap();
    locks.shutdown(Duration::from_secs(1)).await;
    assert!(work.await.unwrap().unwrap_err().is_lost());
    let lock = other.lock(NAME).unwrap();
    drop(lock.acquire(LockPolicy::background_job()).await.unwrap());
    assert_eq!(store.held(), 0);
}

#[test]
fn a_shutdown_ends_leadership_at_once_where_the_runtime_of_the_campaign_has_ended() {
    let (store, locks, _) = pair();
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let leader = runtime().block_on(async {
        let mut leader = locks.leader(NAME).unwrap();
        elected(&mut leader).await;
        leader
    });
    assert!(leader.is_leader());
    runtime().block_on(async {
        let shutdown = tokio::time::timeout(Duration::from_secs(5), locks.shutdown(GRACE));
        shutdown.await.expect("the leader resigns by itself");
    });
    assert!(!leader.is_leader());
    assert_eq!(store.held(), 0);
}
