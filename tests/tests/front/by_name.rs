//! One lock by its name in one step, and work that returns a `Result`.

use std::future::pending;

use lock_core::memory::MemoryBackend;
use lock_core::{LockError, LockErrorKind, LockPolicy, LockProvider};
use lock_tests::scripted_backend::ScriptedBackend;
use tokio::time::sleep;

use crate::support::{is_free, ms, name, s, take, timed, took};

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

impl AppError {
    #[track_caller]
    fn kind(self) -> LockErrorKind {
        match self {
            Self::Lock(error) => error.kind(),
            Self::Broken => panic!("an error of the work"),
        }
    }
}

async fn fails() -> Result<(), AppError> {
    Err(AppError::Broken)
}

async fn never() -> Result<(), AppError> {
    pending().await
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_acquired_by_its_name_in_one_step() {
    let client = ScriptedBackend::new().client();
    let guard = client.acquire("order:process:42", s(1)).await.unwrap();
    assert_eq!(guard.name(), &name());
    let (elapsed, refused) = timed(client.acquire(name(), s(1))).await;
    took(elapsed, s(1));
    assert!(refused.unwrap_err().is_contended());
    guard.release().await.unwrap();
    let ran = client.run(name(), LockPolicy::background_job(), async { 7 });
    assert_eq!(ran.await.unwrap(), 7);
    assert!(is_free(&client).await);
}

#[tokio::test(start_paused = true)]
async fn a_try_waits_as_long_as_its_policy_says() {
    let client = ScriptedBackend::new().client();
    let guard = take(&client).await;
    for wait in [ms(0), s(5)] {
        let (elapsed, refused) = timed(client.try_acquire(name(), wait)).await;
        took(elapsed, wait);
        assert!(refused.unwrap().is_none());
    }
    let trying = tokio::spawn({
        let client = client.clone();
        async move { client.try_acquire(name(), s(5)).await }
    });
    sleep(s(3)).await;
    guard.release().await.unwrap();
    assert!(trying.await.unwrap().unwrap().is_some());
}

#[tokio::test]
async fn a_text_that_is_no_name_is_refused_by_every_call() {
    let client = ScriptedBackend::new().client();
    let work = async { unreachable!("work without a lock") };
    let kinds = [
        client.acquire("no name", s(1)).await.unwrap_err().kind(),
        client
            .try_acquire("no name", s(1))
            .await
            .unwrap_err()
            .kind(),
        client.run("no name", s(1), work).await.unwrap_err().kind(),
        client
            .try_run("no name", s(1), fails())
            .await
            .unwrap_err()
            .kind(),
    ];
    assert_eq!(kinds, [LockErrorKind::InvalidName; 4]);
}

#[tokio::test]
async fn work_that_fails_releases_its_lock() {
    let client = ScriptedBackend::new().client();
    let lock = client.lock(name()).unwrap();
    for failed in [
        client.try_run(name(), s(0), fails()).await,
        lock.try_run(s(0), fails()).await,
    ] {
        assert!(matches!(failed, Err(AppError::Broken)));
        assert!(is_free(&client).await);
    }
    let guard = take(&client).await;
    assert!(matches!(
        guard.try_protect(fails()).await,
        Err(AppError::Broken)
    ));
    assert!(guard.is_valid(), "it is the caller's to release");
    let done = guard.try_protect(async { Ok::<_, AppError>(7) });
    assert_eq!(done.await.unwrap(), 7);
}

#[tokio::test]
async fn what_is_wrong_with_the_lock_is_an_error_of_the_work() {
    let store = MemoryBackend::new();
    let client = LockProvider::new(store.clone());
    let revoke = async {
        tokio::task::yield_now().await;
        store.revoke(&name());
    };
    let (ran, ()) = tokio::join!(client.try_run(name(), s(1), never()), revoke);
    assert_eq!(ran.unwrap_err().kind(), LockErrorKind::Lost);

    let guard = take(&client).await;
    let refused = client.try_run(name(), s(0), never()).await;
    assert_eq!(refused.unwrap_err().kind(), LockErrorKind::Contended);
    let guards = client.acquire_all(["a:b:1", "a:b:2"], s(0)).await.unwrap();
    store.revoke(guard.name());
    store.revoke(guards[1].name());
    for lost in [
        guard.try_protect(never()).await,
        guards.try_protect(never()).await,
    ] {
        assert_eq!(lost.unwrap_err().kind(), LockErrorKind::Lost);
    }
}
