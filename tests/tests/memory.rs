//! What a waiter and a held lock cost in memory. The only test of its program: allocations of others
//! would be counted too.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "what does not hold in a test ends it"
)]

use std::alloc::System;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use lock_core::memory::MemoryBackend;
use lock_core::{Acquire, LockGuard, LockName, LockProvider};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CROWD: usize = 10_000;

/// More than 23 bytes, so that its text is not kept in place.
fn names() -> Vec<LockName> {
    let name = |number| LockName::new("order", "process", format_args!("customer-{number:08}"));
    (0..CROWD).map(|number| name(number).unwrap()).collect()
}

/// Bytes that are allocated and not freed again, for each of the crowd.
fn each<T>(what: &str, make: impl FnOnce() -> T) -> (usize, T) {
    let region = Region::new(ALLOCATOR);
    let made = make();
    let change = region.change();
    let bytes = change
        .bytes_allocated
        .saturating_sub(change.bytes_deallocated);
    let allocations = change.allocations as f64 / CROWD as f64;
    eprintln!(
        "{what}: {} bytes each, {allocations:.1} allocations",
        bytes / CROWD
    );
    (bytes / CROWD, made)
}

fn wait(client: &LockProvider, name: &LockName) -> Acquire {
    let mut acquire = client
        .lock(name)
        .unwrap()
        .acquire_owned(Duration::from_secs(60));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut acquire).poll(&mut cx).is_pending());
    acquire
}

fn take(client: &LockProvider, name: &LockName) -> LockGuard {
    let mut acquire = client.lock(name).unwrap().acquire_owned(Duration::ZERO);
    let mut cx = Context::from_waker(Waker::noop());
    match Pin::new(&mut acquire).poll(&mut cx) {
        std::task::Poll::Ready(guard) => guard.unwrap(),
        std::task::Poll::Pending => panic!("the lock is free"),
    }
}

/// A vector that is there already.
fn filled<T>(mut room: Vec<T>, items: impl Iterator<Item = T>) -> Vec<T> {
    room.extend(items);
    room
}

#[test]
fn a_crowd_costs_a_few_hundred_bytes_each() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let store = MemoryBackend::new();
    // As in a program without debug assertions.
    let client = |store| LockProvider::builder(store).lock_order_watch(false).build();
    let (here, there) = (client(store.clone()), client(store));
    let names = names();

    // Twice: what stays after the first time is room in tables, what is added by the second a leak.
    let mut before_the_second = None;
    for _ in 0..2 {
        let region = Region::new(ALLOCATOR);

        let guard = take(&here, &names[0]);
        let room = Vec::with_capacity(CROWD);
        let waiters = || filled(room, (0..CROWD).map(|_| wait(&here, &names[0])));
        let (bytes, waiters) = each("a waiter on one name, in line", waiters);
        assert!(bytes < 1_024, "a waiter costs {bytes} bytes");
        drop((waiters, guard));

        let room = Vec::with_capacity(CROWD);
        let (bytes, guards) = each("a guard", || {
            filled(room, names.iter().map(|n| take(&there, n)))
        });
        assert!(bytes < 1_024, "a guard costs {bytes} bytes");

        let room = Vec::with_capacity(CROWD);
        let waiters = || filled(room, names.iter().map(|name| wait(&here, name)));
        let (bytes, waiters) = each("a waiter on a name of its own, across clients", waiters);
        assert!(bytes < 2_048, "a waiter costs {bytes} bytes");
        drop((waiters, guards));

        let change = region.change();
        let left = change.bytes_allocated as isize - change.bytes_deallocated as isize;
        if before_the_second.is_some() {
            // Slots of the runtime's timers, and the like.
            assert!(left < 16 * 1_024, "{left} bytes were not given back");
        }
        before_the_second = Some(left);
    }

    let region = Region::new(ALLOCATOR);
    for _ in 0..1_000 {
        drop(take(&here, &names[0]));
    }
    let allocations = region.change().allocations;
    eprintln!(
        "an acquire and its release: {} allocations",
        allocations as f64 / 1_000.0
    );
    assert!(
        allocations <= 3 * 1_000,
        "{allocations} allocations in 1,000 rounds"
    );
}
