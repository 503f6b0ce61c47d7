//! Acquire and release on the embedded backends, and a map of `tokio::sync::Mutex` as what one
//! would write by hand for one process: `cargo bench -p lock-tests --bench local`.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails ends")]

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use divan::{Bencher, counter::ItemsCount};
use lock_core::{LockName, LockProvider};
use lock_tests::{FileStore, MemoryStore, Store};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

fn main() {
    divan::main();
}

/// How many tasks work together, each on a name of its own.
const TASKS: [usize; 3] = [1, 64, 1_024];

/// How often each of them takes its lock in one run.
const ROUNDS: usize = 8;

const PATIENCE: Duration = Duration::from_secs(60);

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn names(count: usize) -> Vec<LockName> {
    (0..count)
        .map(|id| LockName::new("order", "process", id).unwrap())
        .collect()
}

/// Runs a cycle of each of these names in a task of its own, some rounds of it.
fn cycles<F>(bencher: Bencher, tasks: usize, cycle: impl Fn(LockName) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (runtime, names) = (runtime(), names(tasks));
    bencher
        .counter(ItemsCount::new(tasks * ROUNDS))
        .bench_local(|| {
            runtime.block_on(async {
                let mut running = JoinSet::new();
                for name in &names {
                    let (name, cycle) = (name.clone(), cycle.clone());
                    running.spawn(async move {
                        for _ in 0..ROUNDS {
                            cycle(name.clone()).await;
                        }
                    });
                }
                running.join_all().await;
            });
        });
}

fn client_of<S: Store>() -> (S, LockProvider) {
    runtime().block_on(async {
        let store = S::open().await;
        let client = store.client().await;
        (store, client)
    })
}

#[divan::bench_group(name = "acquire_and_release_on_distinct_names")]
mod distinct {
    use super::*;

    #[divan::bench(types = [MemoryStore, FileStore], args = TASKS)]
    fn permit_of_five<S: Store>(bencher: Bencher, tasks: usize) {
        let (_store, client) = client_of::<S>();
        cycles(bencher, tasks, move |name| {
            let lock = client.lock(name).unwrap().permits(5);
            async move {
                let guard = lock.acquire(PATIENCE).await.unwrap();
                guard.release().await.unwrap();
            }
        });
    }

    #[divan::bench(types = [MemoryStore, FileStore], args = TASKS)]
    fn lock<S: Store>(bencher: Bencher, tasks: usize) {
        let (_store, client) = client_of::<S>();
        cycles(bencher, tasks, move |name| {
            let lock = client.lock(name).unwrap();
            async move {
                let guard = lock.acquire(PATIENCE).await.unwrap();
                guard.release().await.unwrap();
            }
        });
    }

    #[divan::bench(args = TASKS)]
    fn map_of_tokio_mutexes(bencher: Bencher, tasks: usize) {
        let map = Arc::new(KeyedMutex::default());
        cycles(bencher, tasks, move |name| {
            let map = Arc::clone(&map);
            async move {
                let guard = map.lock(name.clone()).await;
                drop(guard);
                map.forget(&name);
            }
        });
    }
}

/// The peer: in one process, without a wait that ends, without loss, without tokens.
#[derive(Default)]
struct KeyedMutex(Mutex<HashMap<LockName, Arc<tokio::sync::Mutex<()>>>>);

impl KeyedMutex {
    async fn lock(&self, name: LockName) -> tokio::sync::OwnedMutexGuard<()> {
        let mutex = Arc::clone(self.0.lock().unwrap().entry(name).or_default());
        mutex.lock_owned().await
    }

    /// Without this the map grows with every id.
    fn forget(&self, name: &LockName) {
        let mut map = self.0.lock().unwrap();
        if map
            .get(name)
            .is_some_and(|mutex| Arc::strong_count(mutex) == 1)
        {
            map.remove(name);
        }
    }
}

#[divan::bench_group(name = "hand_over_between_two")]
mod hand_over {
    use super::*;

    /// How often the lock goes from one to the other and back in one run.
    const TURNS: usize = 50;

    /// Two that both want the lock all the time.
    fn turns<F>(bencher: Bencher, cycles: [impl Fn() -> F + Clone + Send + 'static; 2])
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = runtime();
        bencher.counter(ItemsCount::new(2 * TURNS)).bench_local(|| {
            runtime.block_on(async {
                let mut running = JoinSet::new();
                for cycle in cycles.clone() {
                    running.spawn(async move {
                        for _ in 0..TURNS {
                            cycle().await;
                        }
                    });
                }
                running.join_all().await;
            });
        });
    }

    #[divan::bench(types = [MemoryStore, FileStore])]
    fn providers<S: Store>(bencher: Bencher) {
        let (store, here) = client_of::<S>();
        let there = runtime().block_on(store.client());
        let cycle = |client: LockProvider| {
            let lock = client.lock("order:process:42").unwrap();
            move || {
                let lock = lock.clone();
                async move {
                    let guard = lock.acquire(PATIENCE).await.unwrap();
                    tokio::task::yield_now().await;
                    guard.release().await.unwrap();
                }
            }
        };
        turns(bencher, [here, there].map(cycle));
    }

    #[divan::bench]
    fn tokio_mutex(bencher: Bencher) {
        let mutex = Arc::new(tokio::sync::Mutex::new(()));
        let cycle = |mutex: Arc<tokio::sync::Mutex<()>>| {
            move || {
                let mutex = Arc::clone(&mutex);
                async move {
                    let guard = mutex.lock().await;
                    tokio::task::yield_now().await;
                    drop(guard);
                }
            }
        };
        turns(bencher, [Arc::clone(&mutex), mutex].map(cycle));
    }
}
