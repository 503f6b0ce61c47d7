//! Locks that readers hold together, and a writer alone.

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use lock_core::{LockError, LockGuard, LockMode, LossReason};
use tokio::sync::{Barrier, oneshot};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use super::reading::{
    Sides, granted, is_readable, line_up, read, reader, spawn_reader, spawn_writer,
};
use super::{PATIENCE, take, wait_for};
use crate::{Harness, eventually, is_held, seed};

/// Readers of two clients, and then writers of both: neither lets the other in.
pub async fn readers_hold_it_together_and_never_with_a_writer(harness: Harness) {
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    let Sides { here, there, name } = &sides;
    for _ in 0..3 {
        let readers = [
            read(here, name).await,
            read(there, name).await,
            read(here, name).await,
        ];
        for guard in readers {
            assert!(guard.is_valid());
            assert!(is_held(here, name).await && is_held(there, name).await);
            assert!(here.claim([name], 1).await.unwrap().is_empty());
            guard.release().await.unwrap();
        }
        for client in sides.clients() {
            let guard = take(client, name).await;
            assert!(!is_readable(here, name).await && !is_readable(there, name).await);
            guard.release().await.unwrap();
        }
    }
}

/// Each would be granted the lock alone.
pub async fn tries_of_readers_that_meet_are_all_granted(harness: Harness) {
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    for _ in 0..10 {
        let mut tries = JoinSet::new();
        for client in sides.clients().into_iter().cycle().take(20) {
            tries.spawn(reader(client, &sides.name).acquire_owned(Duration::ZERO));
        }
        let readers = tries.join_all().await;
        for guard in readers {
            guard.unwrap().release().await.unwrap();
        }
    }
}

/// Counted inside, where a writer counts for more than all readers.
pub async fn readers_and_writers_are_never_inside_together(harness: Harness) {
    const WRITER: usize = 1_000;
    const ROUNDS: usize = 25;
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    let inside = Arc::<AtomicUsize>::default();
    let mut visitors = JoinSet::new();
    for number in 0..16 {
        let client = sides.clients()[number % 2].clone();
        let is_writer = number % 8 < 2;
        let (name, inside) = (sides.name.clone(), Arc::clone(&inside));
        visitors.spawn(async move {
            for round in 0..ROUNDS {
                let lock = client.lock(&name).unwrap();
                let (lock, weight) = match is_writer {
                    true => (lock, WRITER),
                    false => (lock.shared(), 1),
                };
                let guard = lock.acquire(PATIENCE).await.unwrap();
                let others = inside.fetch_add(weight, Ordering::SeqCst);
                assert!(others < WRITER, "a writer was inside");
                assert!(!is_writer || others == 0, "{others} readers were inside");
                yield_now().await;
                assert!(guard.is_valid());
                inside.fetch_sub(weight, Ordering::SeqCst);
                // Both ways of giving back.
                if round % 2 == 0 {
                    guard.release().await.unwrap();
                }
            }
        });
    }
    visitors.join_all().await;
}

/// In its own client and in another one; they read when it has released the lock.
pub async fn a_writer_that_waits_keeps_new_readers_out(harness: Harness) {
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    let Sides { here, there, name } = &sides;
    for (reading, writing) in [(here, here), (here, there), (there, here)] {
        let first = read(reading, name).await;
        let writer = spawn_writer(writing, name);
        sides.a_writer_waits().await;
        let behind = [line_up(here, name).await, line_up(there, name).await];
        assert!(first.is_valid() && !writer.is_finished());
        first.release().await.unwrap();
        let writer = granted(writer).await;
        assert!(behind.iter().all(|reader| !reader.is_finished()));
        writer.release().await.unwrap();
        for reader in behind {
            granted(reader).await.release().await.unwrap();
        }
    }
}

/// Those that it kept out read, beside those that it waited for.
pub async fn readers_go_on_when_the_writer_gives_up_that_kept_them_out(harness: Harness) {
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    let Sides { here, there, name } = &sides;
    for writing in sides.clients() {
        let first = read(here, name).await;
        let writer = spawn_writer(writing, name);
        sides.a_writer_waits().await;
        let behind = [line_up(here, name).await, line_up(there, name).await];
        writer.abort();
        assert!(writer.await.unwrap_err().is_cancelled());
        for reader in behind {
            let reader = granted(reader).await;
            assert!(first.is_valid() && reader.is_valid());
            reader.release().await.unwrap();
        }
        // One whose wait is over as well.
        let short = writing.lock(name).unwrap();
        let short = short.try_acquire(Duration::from_millis(30)).await.unwrap();
        assert!(short.is_none());
        let reader = granted(spawn_reader(there, name)).await;
        assert!(first.is_valid());
        reader.release().await.unwrap();
        first.release().await.unwrap();
    }
}

/// Not for the first that releases it, of whichever client.
pub async fn a_writer_is_served_when_the_last_reader_releases(harness: Harness) {
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    let Sides { here, there, name } = &sides;
    for writing in sides.clients() {
        let mut readers = Vec::new();
        for client in [here, there, here, there] {
            readers.push(read(client, name).await);
        }
        let writer = spawn_writer(writing, name);
        sides.a_writer_waits().await;
        while let Some(guard) = readers.pop() {
            assert!(!writer.is_finished() && guard.is_valid());
            guard.release().await.unwrap();
        }
        granted(writer).await.release().await.unwrap();
    }
}

/// All of them hold it at one time, and then a writer.
pub async fn many_readers_of_two_clients_hold_it_at_once(harness: Harness) {
    const READERS: usize = 200;
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    let together = Arc::new(Barrier::new(READERS));
    let mut readers = JoinSet::new();
    for client in sides.clients().into_iter().cycle().take(READERS) {
        let (acquire, together) = (
            reader(client, &sides.name).acquire_owned(PATIENCE),
            Arc::clone(&together),
        );
        readers.spawn(async move {
            let guard = acquire.await.unwrap();
            together.wait().await;
            assert!(guard.is_valid());
        });
    }
    readers.join_all().await;
    for client in sides.clients() {
        wait_for(client, &sides.name).await.release().await.unwrap();
    }
}

/// It says so, and is in the way of no writer.
pub async fn a_reader_that_is_lost_says_so_and_lets_a_writer_in(harness: Harness) {
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    let Sides { here, there, name } = &sides;
    for writing in [here, there] {
        let reading = harness.client().await;
        let guard = read(&reading, name).await;
        let writer = spawn_writer(writing, name);
        sides.a_writer_waits().await;
        let work = guard.protect(pending::<()>());
        let (outcome, ()) = tokio::join!(work, harness.store.lose(name));
        assert!(outcome.unwrap_err().is_lost());
        assert!(!guard.is_valid() && guard.check().unwrap_err().is_lost());
        granted(writer).await.release().await.unwrap();
        assert!(guard.release().await.unwrap_err().is_lost());
    }
}

/// Those of other processes are as they were, and a writer gets in after them.
pub async fn a_reader_whose_process_is_killed_lets_a_writer_in(harness: Harness) {
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    let Sides { here, there, name } = &sides;
    let asked = format!("acquire {name} 0 shared");
    let mut child = harness.child().await;
    assert_eq!(child.ask(&asked).await, "granted");
    let beside = read(here, name).await;
    let writer = spawn_writer(there, name);
    sides.a_writer_waits().await;
    assert_eq!(harness.child().await.ask(&asked).await, "contended");
    child.kill().await;
    assert!(beside.is_valid() && !writer.is_finished());
    beside.release().await.unwrap();
    granted(writer).await.release().await.unwrap();
}

/// A writer that waited does not keep readers out for ever.
pub async fn a_writer_whose_process_is_killed_while_it_waits_lets_readers_in(harness: Harness) {
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    let Sides { here, there, name } = &sides;
    let first = read(here, name).await;
    let mut child = harness.child().await;
    child.tell(&format!("acquire {name} 60000")).await;
    sides.a_writer_waits().await;
    let behind = spawn_reader(there, name);
    child.kill().await;
    let reader = granted(behind).await;
    assert!(first.is_valid() && reader.is_valid());
}

/// In a task, outside of a runtime, and with the task that holds it.
pub async fn a_reader_that_is_dropped_lets_a_writer_in(harness: Harness) {
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    let Sides { here, there, name } = &sides;
    for writing in sides.clients() {
        let guard = read(here, name).await;
        tokio::spawn(async move { drop(guard) }).await.unwrap();
        wait_for(writing, name).await.release().await.unwrap();

        let guard = read(there, name).await;
        let thread = tokio::task::spawn_blocking(|| std::thread::spawn(|| drop(guard)).join());
        thread.await.unwrap().unwrap();
        wait_for(writing, name).await.release().await.unwrap();

        let (guard, (sender, started)) = (read(here, name).await, oneshot::channel());
        let task = tokio::spawn(async move {
            sender.send(()).unwrap();
            guard.protect(pending::<()>()).await
        });
        started.await.unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        wait_for(writing, name).await.release().await.unwrap();
    }
}

/// Of both modes, before they are granted, refused or called, or after.
pub async fn readers_and_writers_that_leave_at_any_time_leak_nothing(harness: Harness) {
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    let mut random = Rng::with_seed(seed());
    let mut callers = JoinSet::new();
    for number in 0..16 {
        let client = sides.clients()[number % 2].clone();
        let (name, mut random) = (sides.name.clone(), random.fork());
        callers.spawn(async move {
            for _ in 0..40 {
                let lock = client.lock(&name).unwrap();
                let lock = match number % 4 {
                    0 => lock,
                    _ => lock.shared(),
                };
                let moment = Duration::from_micros(random.u64(0..3_000));
                let wait = *random.choice(&[Duration::ZERO, PATIENCE]).unwrap();
                let _left_or_dropped = timeout(moment, lock.acquire_owned(wait)).await;
            }
        });
    }
    callers.join_all().await;
    for client in sides.clients() {
        wait_for(client, &sides.name).await.release().await.unwrap();
        let guard = granted(spawn_reader(client, &sides.name)).await;
        guard.release().await.unwrap();
    }
}

/// Readers have none, and say why.
pub async fn tokens_of_writers_grow_across_readers_which_have_none(harness: Harness) {
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    let mut last = None;
    for _ in 0..3 {
        for client in sides.clients() {
            let guard = wait_for(client, &sides.name).await;
            let token = guard.fencing_token().await.unwrap();
            assert!(
                last.is_none_or(|last| last < token),
                "{token} after {last:?}"
            );
            last = Some(token);
            guard.release().await.unwrap();
            let guard = granted(spawn_reader(client, &sides.name)).await;
            let error = guard.fencing_token().await.unwrap_err();
            assert!(error.is_misconfigured(), "{error}");
            assert!(error.to_string().contains("`shared`"), "{error}");
            assert_eq!(error.lock(), Some(&sides.name));
            assert!(guard.is_valid());
            guard.release().await.unwrap();
        }
    }
}

/// With the mode in which they hold it.
pub async fn readers_are_named_and_listed_as_such(harness: Harness) {
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    harness.store.allow_listing().await;
    let Sides { here, there, name } = &sides;
    let us = format!(":{}", std::process::id());
    let readers = [read(here, name).await, read(there, name).await];
    for client in sides.clients() {
        let holder = client.holder(name).await.unwrap().unwrap();
        assert_eq!(holder.mode(), LockMode::Shared);
        assert!(holder.instance().unwrap().ends_with(&us), "{holder:?}");
        let listing = client.list(100).await.unwrap();
        match harness.store.lists_readers() {
            true => assert!((1..=2).contains(&listing.locks().len()), "{listing:?}"),
            false => assert!(listing.locks().is_empty(), "{listing:?}"),
        }
        for lock in listing.locks() {
            assert_eq!(lock.holder().mode(), LockMode::Shared, "{lock:?}");
        }
    }
    for guard in readers {
        assert!(here.holder(name).await.unwrap().is_some());
        guard.release().await.unwrap();
    }
    assert_eq!(there.holder(name).await.unwrap(), None);
    assert!(here.list(100).await.unwrap().locks().is_empty());
    let writer = take(here, name).await;
    let holder = there.holder(name).await.unwrap().unwrap();
    assert_eq!(holder.mode(), LockMode::Exclusive);
    writer.release().await.unwrap();
}

/// Each is waited for, and those that stay are lost.
pub async fn a_shutdown_waits_for_readers_and_takes_the_lock_from_those_that_stay(
    harness: Harness,
) {
    const GRACE: Duration = Duration::from_millis(100);
    let Some(sides) = Sides::of(&harness).await else {
        return;
    };
    let Sides { here, there, name } = &sides;
    let [leaves, stays] = [read(here, name).await, read(here, name).await];
    // Whether it has begun is asked for a writer, who cannot be granted the lock just before.
    let ending = {
        let here = here.clone();
        tokio::spawn(async move { here.shutdown(GRACE).await })
    };
    eventually("the shutdown has begun", || async {
        is_closed(here.try_acquire(name.clone(), Duration::ZERO)).await
    })
    .await;
    leaves.release().await.unwrap();
    let end = ending.await.unwrap();
    assert_eq!((end.released, end.forfeited), (1, 1));
    assert!(!stays.is_valid());
    assert_eq!(stays.lost().await, LossReason::Shutdown);
    wait_for(there, name).await.release().await.unwrap();

    // Without any that stays it ends before its grace.
    let guard = read(there, name).await;
    let ending = {
        let there = there.clone();
        tokio::spawn(async move { there.shutdown(PATIENCE * 100).await })
    };
    eventually("the shutdown has begun", || async {
        is_closed(there.try_acquire(name.clone(), Duration::ZERO)).await
    })
    .await;
    assert!(guard.is_valid() && !ending.is_finished());
    guard.release().await.unwrap();
    let end = ending.await.unwrap();
    assert_eq!((end.released, end.forfeited), (1, 0));
}

/// Whether the provider is shut down.
async fn is_closed(acquiring: impl Future<Output = Result<Option<LockGuard>, LockError>>) -> bool {
    acquiring.await.is_err_and(|error| error.is_closed())
}
