//! What a case works with, and how it is run.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lock_core::{LockName, LockProvider};

use crate::Store;
use crate::child::Child;

/// What takes longer than this hangs.
const TOO_LONG: Duration = Duration::from_secs(120);

/// A store of its own for one case, and names that no other case uses.
#[derive(Debug)]
pub struct Harness<S> {
    /// Where the locks are.
    pub store: S,
    locker: &'static str,
    names: AtomicU64,
}

impl<S: Store> Harness<S> {
    /// Another client of the store.
    pub async fn client(&self) -> LockProvider {
        self.store.client().await
    }

    /// Another client, which hands locks over among its tasks for so long.
    pub async fn client_that_hands_over(&self, limit: Duration) -> LockProvider {
        LockProvider::builder(self.store.backend().await)
            .local_handover(limit)
            .build()
    }

    /// Another process that uses the store.
    pub async fn child(&self) -> Child {
        let address = self.store.address().expect("processes can share the store");
        Child::start(self.locker, &address).await
    }

    /// A name that no other case uses.
    pub fn name(&self) -> LockName {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        LockName::new(
            "test",
            "case",
            format_args!("{}-{number}", std::process::id()),
        )
        .unwrap()
    }
}

/// Runs one case in a runtime of its own.
///
/// # Panics
///
/// When the case fails or hangs.
pub fn run<S: Store, F>(locker: &'static str, case: &str, body: impl FnOnce(Harness<S>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    if let Some((_, reason)) = S::NOT_FOR.iter().find(|(other, _)| *other == case) {
        return eprintln_skipped(reason);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    let outcome = runtime.block_on(async {
        let harness = Harness {
            store: S::open().await,
            locker,
            names: AtomicU64::new(0),
        };
        tokio::time::timeout(TOO_LONG, tokio::spawn(body(harness))).await
    });
    // Not waiting for threads that a case which hangs has blocked.
    runtime.shutdown_background();
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(failed)) => std::panic::resume_unwind(failed.into_panic()),
        Err(_) => panic!("the case did not end within {TOO_LONG:?}"),
    }
}

#[allow(clippy::print_stderr, reason = "a test that tells why it does nothing")]
fn eprintln_skipped(reason: &str) {
    eprintln!("does not apply: {reason}");
}
