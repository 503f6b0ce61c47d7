//! Work that runs in rounds while an instance leads, until the provider is shut down.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lock_core::memory::MemoryBackend;
use lock_core::{FencingToken, LeaderTerm, LockError, LockProvider};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::leading::{NAME, pair};

const GRACE: Duration = Duration::from_secs(30);
const ROUND: Duration = Duration::from_millis(100);

/// An error of an application.
#[derive(Debug)]
enum AppError {
    Lock(LockError),
    Broken,
}

impl From<LockError> for AppError {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

#[tokio::test(start_paused = true)]
async fn rounds_go_on_in_one_term_until_the_shutdown() {
    let (store, locks, other) = pair();
    let rounds = Arc::new(Mutex::new(Vec::new()));
    let leading = tokio::spawn({
        let (locks, rounds) = (locks.clone(), Arc::clone(&rounds));
        async move {
            let round = async |term: LeaderTerm| {
                assert_eq!(term.name().as_str(), NAME);
                let token = term.fencing_token().await?;
                rounds.lock().unwrap().push(token);
                sleep(ROUND).await;
                Ok::<_, LockError>(())
            };
            locks.lead(NAME, round).await
        }
    });
    sleep(10 * ROUND + ROUND / 2).await;
    assert!(!leading.is_finished());
    assert_eq!(rounds.lock().unwrap().len(), 11);
    let started = tokio::time::Instant::now();
    let ended = locks.shutdown(GRACE).await;
    // Only the round that was under way was waited for.
    assert!(started.elapsed() <= ROUND, "{:?}", started.elapsed());
    assert_eq!((ended.released, ended.forfeited), (1, 0));
    leading.await.unwrap().unwrap();
    let rounds = rounds.lock().unwrap().clone();
    assert_eq!(rounds, vec![rounds[0]; 11]);
    assert_eq!(store.held(), 0);
    drop(other.acquire(NAME, Duration::ZERO).await.unwrap());
}

#[tokio::test]
async fn work_is_begun_again_after_the_loss_of_its_term() {
    let (store, locks, _) = pair();
    let terms = Mutex::new(Vec::<(FencingToken, LeaderTerm)>::new());
    let begun = Notify::new();
    let work = locks.lead(NAME, async |term| {
        let token = term.fencing_token().await?;
        terms.lock().unwrap().push((token, term));
        begun.notify_one();
        std::future::pending::<Result<(), LockError>>().await
    });
    let revoke = async {
        for term in 0..3 {
            begun.notified().await;
            let (_, led) = terms.lock().unwrap()[term].clone();
            let stop = led.cancellation_token();
            assert!(led.is_valid() && !stop.is_cancelled());
            store.revoke(led.name());
            stop.cancelled().await;
            assert!(!led.is_valid());
        }
        begun.notified().await;
        locks.shutdown(Duration::ZERO).await;
    };
    let (worked, ()) = tokio::join!(work, revoke);
    worked.unwrap();
    let tokens: Vec<_> = terms
        .into_inner()
        .unwrap()
        .into_iter()
        .map(|term| term.0)
        .collect();
    assert_eq!(tokens.len(), 4);
    assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
}

#[tokio::test]
async fn an_error_of_the_work_comes_back_and_resigns() {
    let (store, locks, other) = pair();
    let rounds = AtomicUsize::new(0);
    let led = locks.lead(NAME, async |_| {
        match rounds.fetch_add(1, Ordering::Relaxed) {
            0..3 => Ok(()),
            _ => Err(AppError::Broken),
        }
    });
    assert!(matches!(led.await, Err(AppError::Broken)));
    assert_eq!(rounds.load(Ordering::Relaxed), 4);
    assert_eq!(store.held(), 0, "another can lead");
    drop(other.acquire(NAME, Duration::ZERO).await.unwrap());

    let refused = locks.lead("no name", async |_| Err(AppError::Broken)).await;
    assert!(matches!(refused, Err(AppError::Lock(error)) if error.is_invalid_name()));
}

#[tokio::test]
async fn the_second_instance_takes_over_when_the_first_is_cancelled() {
    let (_store, one, other) = pair();
    let lead = |locks: LockProvider| {
        let led = Arc::new(Notify::new());
        let begun = Arc::clone(&led);
        let task = tokio::spawn(async move {
            let work = move |_| {
                begun.notify_one();
                std::future::pending::<Result<(), LockError>>()
            };
            locks.lead(NAME, work).await
        });
        (task, led)
    };
    let (first, leads) = lead(one);
    leads.notified().await;
    let (second, takes_over) = lead(other.clone());
    first.abort();
    takes_over.notified().await;
    assert!(first.await.unwrap_err().is_cancelled());
    other.shutdown(Duration::ZERO).await;
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_panic_of_the_work_resigns() {
    let store = MemoryBackend::new();
    let locks = LockProvider::new(store.clone());
    let task = tokio::spawn(async move {
        let work = async |_| -> Result<(), LockError> { panic!("a round that panics") };
        locks.lead(NAME, work).await
    });
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(store.held(), 0);
}
