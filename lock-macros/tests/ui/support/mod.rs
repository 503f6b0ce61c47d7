//! What the passing cases have in common.
#![allow(dead_code)]

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lock_core::memory::MemoryBackend;
use lock_core::{LockGuard, LockProvider};

/// A provider of its own.
pub fn locks() -> LockProvider {
    LockProvider::new(MemoryBackend::new())
}

/// Makes a provider the one that the macro uses by default.
pub fn install() -> LockProvider {
    let locks = locks();
    locks.clone().install().expect("the first of this process");
    locks
}

/// The installed provider.
pub fn installed() -> LockProvider {
    LockProvider::installed()
        .expect("installed by `main`")
        .clone()
}

/// The lock, held by another caller.
pub async fn hold(locks: &LockProvider, name: &str) -> LockGuard {
    let lock = locks.lock(name).expect("a name");
    lock.acquire(Duration::ZERO).await.expect("it is free")
}

/// Whether the lock is held.
pub async fn is_held(locks: &LockProvider, name: &str) -> bool {
    let lock = locks.lock(name).expect("a name");
    lock.try_acquire(Duration::ZERO)
        .await
        .expect("an answer")
        .is_none()
}

/// As [`is_held`], where nothing can be awaited: in a destructor.
pub fn is_held_now(locks: &LockProvider, name: &str) -> bool {
    let lock = locks.lock(name).expect("a name");
    let attempt = pin!(lock.try_acquire(Duration::ZERO));
    match attempt.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer.expect("an answer").is_none(),
        Poll::Pending => panic!("a lock in memory answers at once"),
    }
}

/// Fails to compile for a future that cannot be spawned.
pub fn assert_send<F: Future + Send>(future: F) -> F {
    future
}
