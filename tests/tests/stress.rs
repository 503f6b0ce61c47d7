//! Runs under stress, judged by what was written down; and backends that are broken on purpose, for
//! the judge.

use std::sync::Arc;
use std::time::Duration;

use lock_core::backend::{BootClock, Clock, TokioClock};
use lock_core::memory::MemoryBackend;
use lock_tests::address::Opened;
use lock_tests::chaos::{
    Bare, Campaign, ChaosLeaseTable, ChaosPostgres, InProcess, MemoryResource,
};
use lock_tests::chaos::{
    ChaosRedis, ChaosRedisCluster, ChaosRedisSentinels, PAUSE, STARVED, Subject,
};
use lock_tests::checker::{Check, Event, FaultRule, Rules, Verdict, judge};
use lock_tests::faulty_backend::{Bug, FaultyBackend};
use lock_tests::{FileStore, Store, seed};

const STRESSER: &str = env!("CARGO_BIN_EXE_stresser");

/// The lease of a faulty backend.
const LEASE: Duration = Duration::from_millis(500);

const SECOND: Duration = Duration::from_secs(1);

/// How long a lock without a lease is tried at the end: longer than a client waits for an answer.
const FREE_WITHIN: Duration = Duration::from_secs(3);

/// A crowd over a faulty backend, on a clock that stands still while a task works, so that one seed gives
/// one run, whatever else the machine does. Now and then one of them stands still past its lease.
fn trial(bug: Bug, resource: MemoryResource) -> Verdict {
    let history = history(bug, resource, seed());
    let rules = Rules::default()
        .lease(Some(LEASE))
        .free_within(LEASE + SECOND)
        .fault(PAUSE, FaultRule::freeze(Some(LEASE)));
    report(bug, judge(&history, &rules))
}

fn history(bug: Bug, resource: MemoryResource, seed: u64) -> Vec<Event> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let crowd = InProcess {
        workers: 1,
        readers: 0,
        locks: 2,
        lasts: 20 * SECOND,
        pausing: Some((20, LEASE * 2)),
        free_within: LEASE + SECOND,
        seed,
    };
    let backend = Bare::new(FaultyBackend::new(bug, LEASE, Arc::clone(&clock)));
    runtime.block_on(crowd.work(vec![backend; 6], resource, clock))
}

/// So many acquires are a race.
const RACED: usize = 200;

/// A crowd over a faulty backend that is quicker, on threads that do work at the same time. The lease is
/// longer than any machine stops a thread.
fn race(bug: Bug) -> Verdict {
    loop {
        let verdict = raced(bug);
        // A machine that is busy with other work can have let it do next to nothing. So can a lock that is stuck.
        if !verdict.checks().is_empty() || verdict.counts.acquires.done >= RACED {
            return report(bug, verdict);
        }
    }
}

fn raced(bug: Bug) -> Verdict {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build();
    let crowd = InProcess {
        workers: 2,
        readers: 0,
        locks: 2,
        lasts: SECOND,
        pausing: None,
        free_within: FREE_WITHIN,
        seed: seed(),
    };
    let lease = 60 * SECOND;
    let backend = Bare::new(FaultyBackend::new(bug, lease, Arc::new(BootClock)));
    let working = crowd.work(
        vec![backend; 4],
        MemoryResource::default(),
        Arc::new(BootClock),
    );
    let history = runtime.unwrap().block_on(working);
    judge(&history, &Rules::default().free_within(FREE_WITHIN))
}

#[allow(clippy::print_stdout, reason = "the report of a run")]
fn report(bug: Bug, verdict: Verdict) -> Verdict {
    println!("{bug:?}\n{verdict}");
    assert!(verdict.counts.acquires.done > 10, "it was stress");
    verdict
}

/// The check that is meant for it has found it.
#[track_caller]
fn assert_caught(verdict: &Verdict, check: Check) {
    assert!(verdict.checks().contains(&check), "{verdict}");
}

#[test]
fn a_backend_that_is_not_broken_is_judged_clean() {
    let trial = trial(Bug::None, MemoryResource::default());
    let counts = trial.assert_clean().counts;
    assert!(counts.losses > 10, "{counts:?}");
    assert!(counts.writes.refused > 0, "{counts:?}");
    let _ = race(Bug::None).assert_clean();
}

#[test]
fn one_seed_gives_one_run() {
    let run = |seed| history(Bug::GrantWhileHeld, MemoryResource::default(), seed);
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn a_token_that_is_used_again_is_caught() {
    let trial = trial(Bug::ReuseToken, MemoryResource::default());
    assert_caught(&trial, Check::TokenOrder);
    assert_caught(&race(Bug::ReuseToken), Check::TokenOrder);
}

#[test]
fn a_release_that_does_not_compare_the_owner_is_caught() {
    let trial = trial(Bug::ReleaseWithoutOwner, MemoryResource::default());
    assert_caught(&trial, Check::Exclusion);
}

#[test]
fn tokens_that_are_rounded_to_14_digits_are_caught() {
    let trial = trial(Bug::RoundTokens, MemoryResource::default());
    assert_caught(&trial, Check::TokenOrder);
    assert_caught(&race(Bug::RoundTokens), Check::TokenOrder);
}

#[test]
fn a_lock_that_is_valid_again_after_its_loss_is_caught() {
    let trial = trial(Bug::ValidAgain, MemoryResource::default());
    assert_caught(&trial, Check::Loss);
}

#[test]
fn a_grant_of_what_is_held_is_caught() {
    let trial = trial(Bug::GrantWhileHeld, MemoryResource::default());
    assert_caught(&trial, Check::Exclusion);
    assert_caught(&race(Bug::GrantWhileHeld), Check::Exclusion);
}

#[test]
fn a_release_that_is_forgotten_is_caught() {
    let trial = trial(Bug::ForgetRelease, MemoryResource::default());
    assert_caught(&trial, Check::NothingStuck);
    assert_caught(&race(Bug::ForgetRelease), Check::NothingStuck);
}

#[test]
fn a_resource_without_a_fence_is_caught() {
    let trial = trial(Bug::None, MemoryResource::without_fence());
    assert_eq!(trial.checks(), [Check::FencedResource], "{trial}");
}

/// One client with many callers, in the order of their calls.
#[tokio::test]
async fn clients_of_one_process_are_served_in_order_over_memory() {
    let crowd = InProcess {
        workers: 8,
        readers: 0,
        locks: 2,
        lasts: 2 * SECOND,
        pausing: None,
        free_within: FREE_WITHIN,
        seed: seed(),
    };
    let memory = MemoryBackend::new();
    let clients = vec![Opened::over(memory.clone()), Opened::over(memory)];
    let working = crowd.work(clients, MemoryResource::default(), Arc::new(BootClock));
    let rules = Rules::default()
        .free_within(FREE_WITHIN)
        .fifo(Duration::ZERO);
    let verdict = judge(&working.await, &rules).assert_clean();
    println!("{verdict}");
    assert!(verdict.counts.acquires.done > 100, "{verdict}");
}

/// Of three clients, each with 21 readers and a writer on one lock.
#[tokio::test]
async fn readers_and_writers_of_three_clients_keep_the_promises_over_memory() {
    let crowd = InProcess {
        workers: 22,
        readers: 21,
        locks: 1,
        lasts: 3 * SECOND,
        pausing: None,
        free_within: FREE_WITHIN,
        seed: seed(),
    };
    let memory = MemoryBackend::new();
    let clients = (0..3).map(|_| Opened::over(memory.clone())).collect();
    let working = crowd.work(clients, MemoryResource::default(), Arc::new(BootClock));
    let rules = Rules::default()
        .free_within(FREE_WITHIN)
        .fifo(Duration::ZERO);
    let verdict = judge(&working.await, &rules).assert_clean();
    println!("{verdict}");
    let counts = &verdict.counts;
    assert!(counts.reads > 100 && counts.writes.done > 10, "{verdict}");
}

/// Processes that compete for so many seconds while everything happens to them that can.
#[allow(clippy::print_stdout, reason = "the report of a run")]
async fn stressed(seconds: u32, subject: &impl Subject) -> Verdict {
    let campaign = Campaign::new(SECOND * seconds);
    let verdict = campaign.run(STRESSER, subject).await.assert_clean();
    assert!(verdict.counts.acquires.done > 100, "{verdict}");
    assert_eq!(injected(&verdict), subject.faults().len(), "{verdict}");
    verdict
}

/// How many kinds of faults there were, without what a busy machine adds.
fn injected(verdict: &Verdict) -> usize {
    let faults = verdict.counts.faults.keys();
    faults.filter(|name| **name != STARVED).count()
}

/// A frozen holder of a file stays its only holder, and loses nothing.
#[tokio::test]
async fn processes_that_are_killed_and_frozen_keep_the_promises_over_files() {
    let verdict = stressed(20, &FileStore::open().await).await;
    assert_eq!(verdict.counts.losses, 0, "{verdict}");
}

/// Whatever happens to processes, sessions and the network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_frozen_and_cut_off_keep_the_promises_over_postgres() {
    let verdict = stressed(30, &ChaosPostgres::open().await).await;
    assert!(verdict.counts.losses > 0, "{verdict}");
}

/// Whatever happens to processes, the network, the pooler and its sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_keep_the_promises_over_a_table_behind_a_pooler() {
    let verdict = stressed(30, &ChaosLeaseTable::open().await).await;
    assert!(verdict.counts.losses > 0, "{verdict}");
}

/// Whatever happens to processes, the network and the server; also when the server forgets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_frozen_cut_off_and_forgotten_keep_the_promises_over_redis() {
    let verdict = stressed(30, &ChaosRedis::open().await).await;
    assert!(verdict.counts.losses > 0, "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_frozen_and_forgotten_keep_the_promises_over_a_redis_cluster() {
    let verdict = stressed(20, &ChaosRedisCluster::open().await).await;
    assert!(verdict.counts.losses > 0, "{verdict}");
}

/// Three processes, each with more callers than there are permits, of which some are killed and frozen.
async fn stressed_with_permits(seconds: u32, subject: &impl Subject) {
    let campaign = Campaign {
        processes: 3,
        clients: 6,
        locks: 1,
        permits: Some(5),
        ..Campaign::new(SECOND * seconds)
    };
    let verdict = campaign.run(STRESSER, subject).await.assert_clean();
    assert!(verdict.counts.acquires.done > 100, "{verdict}");
    assert_eq!(injected(&verdict), 2, "{verdict}");
}

#[tokio::test]
async fn permits_of_killed_and_frozen_processes_are_no_more_over_files() {
    stressed_with_permits(12, &FileStore::open().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permits_of_killed_and_frozen_processes_are_no_more_over_postgres() {
    stressed_with_permits(16, &ChaosPostgres::open().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permits_of_killed_and_frozen_processes_are_no_more_over_redis() {
    stressed_with_permits(16, &ChaosRedis::open().await).await;
}

/// Three processes, each with 21 readers and a writer on one lock, while everything happens to them that can.
#[allow(clippy::print_stdout, reason = "the report of a run")]
async fn stressed_with_readers(seconds: u32, subject: &impl Subject) {
    let campaign = Campaign {
        processes: 3,
        clients: 22,
        readers: 21,
        locks: 1,
        ..Campaign::new(SECOND * seconds)
    };
    let verdict = campaign.run(STRESSER, subject).await.assert_clean();
    println!("{verdict}");
    let counts = &verdict.counts;
    assert!(counts.reads > 100 && counts.writes.done > 10, "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_writers_of_three_processes_keep_the_promises_over_postgres() {
    stressed_with_readers(20, &ChaosPostgres::open().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_writers_of_three_processes_keep_the_promises_over_a_table_behind_a_pooler() {
    stressed_with_readers(20, &ChaosLeaseTable::open().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_writers_of_three_processes_keep_the_promises_over_redis() {
    stressed_with_readers(20, &ChaosRedis::open().await).await;
}

/// Whatever takes the place of the master, while that is dead, frozen or goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_keep_the_promises_while_sentinels_replace_the_redis_master() {
    let verdict = stressed(60, &ChaosRedisSentinels::open().await).await;
    assert!(verdict.counts.losses > 0, "{verdict}");
}
