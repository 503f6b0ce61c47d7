//! The end of the longest hold in a thread of the library, since the runtime of the holder is blocked.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use lock_core::backend::{Attempt, Backend, Grant, Lease, LockRequest};
use lock_core::{LockError, LockPolicy, LockProvider};
use lock_tests::scripted_backend::ScriptedBackend;
use tokio::time::sleep;

use crate::support::{ms, name, runtime, s};

/// Grants everything; each release blocks its thread, as on a disk that stalls.
struct StallingBackend(Arc<Disk>);

/// What stalls until the sender is dropped.
struct Disk {
    stalls: Mutex<mpsc::Receiver<()>>,
    /// How many releases have begun.
    releases: AtomicUsize,
}

struct StallingGrant {
    disk: Arc<Disk>,
    lease: Lease,
}

impl Backend for StallingBackend {
    type Grant = StallingGrant;

    const KIND: &'static str = "stalling";

    async fn try_acquire(&self, _: &LockRequest) -> Result<Attempt<StallingGrant>, LockError> {
        Ok(Attempt::Granted(StallingGrant {
            disk: Arc::clone(&self.0),
            lease: Lease::unbounded(),
        }))
    }

    fn changed(&self, _: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }

    async fn health(&self) -> Result<(), LockError> {
        Ok(())
    }
}

impl Grant for StallingGrant {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    async fn release(self) -> Result<(), LockError> {
        Ok(())
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        std::future::ready(Ok(1))
    }
}

impl Drop for StallingGrant {
    fn drop(&mut self) {
        self.disk.releases.fetch_add(1, Ordering::SeqCst);
        self.disk.stalls.lock().unwrap().recv().unwrap_err();
    }
}

/// Both are held in one thread, whose runtime it blocks.
#[tokio::test]
async fn a_release_that_blocks_holds_up_no_other_longest_hold() {
    let (disk_works, stalls) = mpsc::channel();
    let disk = Arc::new(Disk {
        stalls: Mutex::new(stalls),
        releases: AtomicUsize::new(0),
    });
    let stalling = LockProvider::new(StallingBackend(Arc::clone(&disk)));
    let scripted = ScriptedBackend::new();
    let (holder, other) = (scripted.client(), scripted.client());
    let (unblock, blocked) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        runtime().block_on(async {
            let first = LockPolicy::background_job().with_max_hold(ms(50));
            let stalled = stalling.acquire(name(), first).await.unwrap();
            let second = first.with_max_hold(ms(100));
            let guard = holder.acquire(name(), second).await.unwrap();
            blocked.recv().unwrap_err();
            assert!(!stalled.is_valid());
            guard.release().await.unwrap_err()
        })
    });
    while scripted.held() == 0 {
        sleep(ms(1)).await;
    }
    let next = other.acquire(name(), s(20)).await.unwrap();
    assert_eq!(disk.releases.load(Ordering::SeqCst), 1, "it blocks");
    drop(disk_works);
    drop(unblock);
    assert!(thread.join().unwrap().is_lost());
    assert!(next.is_valid());
}
