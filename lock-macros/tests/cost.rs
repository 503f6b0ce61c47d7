//! What the expansion costs, beside the same written by hand.

use std::alloc::System;
use std::mem::size_of_val;
use std::time::Duration;

use lock_core::memory::MemoryBackend;
use lock_core::{LockError, LockPolicy, LockProvider, distributed_lock, lock_name};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 100;

/// What a body that holds much over an await point takes.
const LARGE: usize = 4096;

#[distributed_lock("order:process:<id>")]
async fn by_attribute(locks: &LockProvider, id: u64) -> Result<u64, LockError> {
    let buffer = [0_u8; LARGE];
    tokio::task::yield_now().await;
    Ok(id + u64::from(buffer[0]))
}

async fn by_hand(locks: &LockProvider, id: u64) -> Result<u64, LockError> {
    let lock = locks.lock(lock_name!("order:process:<id>"))?;
    let guard = lock.acquire(LockPolicy::user_request()).await?;
    let work = std::pin::pin!(async {
        let buffer = [0_u8; LARGE];
        tokio::task::yield_now().await;
        id + u64::from(buffer[0])
    });
    let out = guard.protect(work).await?;
    guard.release().await?;
    Ok(out)
}

#[distributed_lock("job:refused", wait = "0s")]
async fn refused(locks: &LockProvider) -> Result<(), LockError> {
    Ok(())
}

async fn allocations<F: Future>(mut call: impl FnMut() -> F) -> usize {
    // What is made once does not count: templates, labels, maps.
    for _ in 0..ROUNDS {
        call().await;
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..ROUNDS {
        call().await;
    }
    region.change().allocations
}

// One test, so that nothing else allocates.
#[tokio::test(flavor = "current_thread")]
async fn the_attribute_adds_nothing() {
    // As in a program without debug assertions.
    let locks = LockProvider::builder(MemoryBackend::new())
        .lock_order_watch(false)
        .build();
    let by_hand_count = allocations(|| by_hand(&locks, 7)).await;
    let by_attribute_count = allocations(|| by_attribute(&locks, 7)).await;
    eprintln!(
        "allocations: {by_hand_count} by hand, {by_attribute_count} by attribute, a hundred calls"
    );
    assert!(by_attribute_count <= by_hand_count);

    let guard = locks
        .lock("job:refused")
        .expect("a name")
        .acquire(Duration::ZERO)
        .await;
    let count = allocations(|| refused(&locks)).await;
    drop(guard);
    assert!(
        count <= ROUNDS,
        "a refusal allocates its error and nothing else, not {count}"
    );

    let sizes = (
        size_of_val(&by_hand(&locks, 7)),
        size_of_val(&by_attribute(&locks, 7)),
    );
    eprintln!("sizes: {} by hand, {} by attribute", sizes.0, sizes.1);
    assert!(sizes.1 < sizes.0 + 256, "the body is kept once: {sizes:?}");
}
