//! Short words for what every test here does.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use lock_core::backend::Clock;
use lock_core::{Acquire, LockError, LockGuard, LockName, LockPolicy, LockProvider};
use lock_tests::is_held;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long callers wait for one answer in these tests.
pub(crate) const RESPONSE: Duration = Duration::from_secs(2);

/// What the library may add to a deadline.
pub(crate) const SLACK: Duration = Duration::from_millis(100);

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn name() -> LockName {
    "order:process:42".parse().unwrap()
}

pub(crate) async fn take(client: &LockProvider) -> LockGuard {
    client
        .lock(name())
        .unwrap()
        .acquire(Duration::ZERO)
        .await
        .unwrap()
}

pub(crate) async fn is_free(client: &LockProvider) -> bool {
    !is_held(client, name()).await
}

/// An acquire of its own accord, in line when this returns.
pub(crate) async fn start(
    client: &LockProvider,
    policy: impl Into<LockPolicy>,
) -> JoinHandle<Result<LockGuard, LockError>> {
    let mut acquire = client.lock(name()).unwrap().acquire_owned(policy);
    assert!(poll_once(&mut acquire).is_none(), "it is not had at once");
    let task = tokio::spawn(acquire);
    // Once more, now with the waker of the task.
    tokio::task::yield_now().await;
    task
}

/// Polls an acquire without a task to wake.
pub(crate) fn poll_once(acquire: &mut Acquire) -> Option<Result<LockGuard, LockError>> {
    match Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(result) => Some(result),
        std::task::Poll::Pending => None,
    }
}

/// One beside that of the test, of one thread.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// How long something takes, and what it gives.
pub(crate) async fn timed<F: Future>(future: F) -> (Duration, F::Output) {
    let started = Instant::now();
    let output = future.await;
    (started.elapsed(), output)
}

/// Checks that something took this long, give or take what the library may add.
#[track_caller]
pub(crate) fn took(actual: Duration, expected: Duration) {
    assert!(
        actual >= expected && actual <= expected + SLACK,
        "it took {actual:?} and not {expected:?}"
    );
}

/// A clock that counts how often it is looked at.
pub(crate) struct Counting<C> {
    clock: C,
    looks: AtomicUsize,
}

impl<C> Counting<C> {
    pub(crate) fn new(clock: C) -> Self {
        let looks = AtomicUsize::new(0);
        Self { clock, looks }
    }

    /// How often until now.
    pub(crate) fn looks(&self) -> usize {
        self.looks.load(Ordering::Relaxed)
    }
}

impl<C: Clock> Clock for Counting<C> {
    fn now(&self) -> Duration {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.clock.now()
    }
}
