//! What a case works with, and how it is run.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lock_core::{LockName, LockProvider};

use crate::child::Child;
use crate::{AnyStore, Store};

/// What takes longer than this hangs.
const TOO_LONG: Duration = Duration::from_secs(120);

/// A store of its own for one case, and names that no other case uses.
pub struct Harness {
    /// Where the locks are.
    pub store: Box<dyn AnyStore>,
    locker: &'static str,
    names: AtomicU64,
}

impl Harness {
    /// Another client of the store.
    pub async fn client(&self) -> LockProvider {
        self.store.provider().await.build()
    }

    /// Another client, which hands locks over among its tasks for so long.
    pub async fn client_that_hands_over(&self, limit: Duration) -> LockProvider {
        self.store.provider().await.local_handover(limit).build()
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

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness").finish_non_exhaustive()
    }
}

/// Runs one case in a runtime of its own.
///
/// # Panics
///
/// When the case fails or hangs.
pub fn run<S: Store, F>(locker: &'static str, case: &str, body: fn(Harness) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    if let Some((_, reason)) = S::NOT_FOR.iter().find(|(other, _)| *other == case) {
        return eprintln_skipped(reason);
    }
    let open = async { Box::new(S::open().await) as Box<dyn AnyStore> };
    run_over(
        locker,
        open.boxed(),
        Box::new(move |harness| body(harness).boxed()),
    );
}

/// The same for each store and each case.
fn run_over(
    locker: &'static str,
    open: BoxFuture<'_, Box<dyn AnyStore>>,
    body: Box<dyn FnOnce(Harness) -> BoxFuture<'static, ()> + Send>,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.unwrap();
    let outcome = runtime.block_on(async {
        let harness = Harness {
            store: open.await,
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
