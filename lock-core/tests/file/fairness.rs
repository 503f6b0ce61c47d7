//! A backend with many waiters of its own lets those of other backends take their turns.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lock_core::LockProvider;
use lock_core::file::FileBackend;

use crate::child::{Child, report};
use crate::support::Base;

const LOCK: &str = "order:process:1";
const ROUNDS: usize = 200;
const LONG: Duration = Duration::from_secs(60);

/// Has four tasks that want the lock all the time, until the file `stop` is there; reports how often
/// they had it.
pub(crate) fn greedy(backend: &FileBackend, base: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stop = base.join("stop");
    report("ready");
    let turns = runtime.block_on(async {
        let locks = LockProvider::new(backend.clone());
        let tasks: Vec<_> = (0..4)
            .map(|_| tokio::spawn(want(locks.clone(), move |_| true, stop.clone())))
            .collect();
        let mut turns = 0;
        for task in tasks {
            turns += task.await.unwrap();
        }
        turns
    });
    report(&turns.to_string());
}

async fn want(locks: LockProvider, visit: impl Fn(u64) -> bool, stop: std::path::PathBuf) -> u64 {
    let (mut turns, started) = (0, Instant::now());
    // Not for ever: the process that says stop may have been killed.
    while !stop.exists() && started.elapsed() < LONG {
        let guard = locks.lock(LOCK).unwrap().acquire(LONG).await.unwrap();
        turns += 1;
        let goes_on = visit(turns);
        tokio::task::yield_now().await;
        guard.release().await.unwrap();
        if !goes_on {
            break;
        }
    }
    turns
}

/// Takes the lock so many times; the longest wait.
async fn take_turns(locks: LockProvider) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..ROUNDS {
        let asked = Instant::now();
        let guard = locks.lock(LOCK).unwrap().acquire(LONG).await.unwrap();
        longest = longest.max(asked.elapsed());
        guard.release().await.unwrap();
    }
    longest
}

#[tokio::test]
async fn nobody_starves_beside_a_process_that_always_has_waiters() {
    let base = Base::new();
    let locks = LockProvider::new(base.backend());
    let greedy = Child::start("greedy", base.path(), "");
    greedy.expect("ready");
    let started = Instant::now();
    let longest = take_turns(locks).await;
    let took = started.elapsed();
    std::fs::write(base.path().join("stop"), "").unwrap();
    let theirs: u64 = greedy.reports()[0].parse().unwrap();
    println!("{ROUNDS} turns beside {theirs} greedy ones in {took:?}, longest wait {longest:?}");
    assert!(theirs >= 1, "the other one was never served");
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_backends_in_one_process_both_get_their_turns() {
    let base = Base::new();
    let stop = base.path().join("stop");
    let greedy = LockProvider::new(base.backend());
    let tasks: Vec<_> = (0..4)
        .map(|_| tokio::spawn(want(greedy.clone(), |_| true, stop.clone())))
        .collect();
    let longest = take_turns(LockProvider::new(base.backend())).await;
    std::fs::write(stop, "").unwrap();
    let mut theirs = 0;
    for task in tasks {
        theirs += task.await.unwrap();
    }
    println!("{ROUNDS} turns beside {theirs}, longest wait {longest:?}");
    assert!(theirs >= 1);
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}

/// How two providers that always have waiters share so many turns: those of the first, and the
/// longest run of one of them.
async fn share(providers: [LockProvider; 2], turns: u64) -> (usize, usize) {
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for (side, locks) in providers.into_iter().enumerate() {
        for _ in 0..3 {
            let order = Arc::clone(&order);
            let visit = move |_| {
                let mut order = order.lock().unwrap();
                order.push(side);
                (order.len() as u64) < turns
            };
            tasks.push(tokio::spawn(want(locks.clone(), visit, "/no/stop".into())));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    let order = order.lock().unwrap();
    let longest = order.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap();
    let first = order.iter().filter(|side| **side == 0).count();
    (first, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_backends_that_always_have_waiters_share_the_turns() {
    let base = Base::new();
    let (first, longest) = share([(); 2].map(|()| LockProvider::new(base.backend())), 4_000).await;
    println!("{first} of 4000 turns, longest run {longest}");
    assert!((400..3_600).contains(&first), "{first} of 4000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_providers_over_one_backend_share_the_turns() {
    let base = Base::new();
    let backend = base.backend();
    let started = Instant::now();
    let (first, longest) = share([(); 2].map(|()| LockProvider::new(backend.clone())), 4_000).await;
    println!(
        "{first} of 4000 turns in {:?}, longest run {longest}",
        started.elapsed()
    );
    assert!((400..3_600).contains(&first), "{first} of 4000");
}

#[test]
fn a_hand_over_between_two_processes() {
    let base = Base::new();
    let mut children = [(); 2].map(|()| Child::start("ping-pong", base.path(), "300"));
    children.iter().for_each(|child| child.expect("ready"));
    children.iter_mut().for_each(|child| child.tell("go"));
    let mut turns: Vec<(u64, u64, usize)> = Vec::new();
    for (side, child) in children.into_iter().enumerate() {
        for line in child.reports() {
            let (got, released) = line.split_once(' ').unwrap();
            turns.push((got.parse().unwrap(), released.parse().unwrap(), side));
        }
    }
    turns.sort_unstable();
    assert_eq!(turns.len(), 600);
    assert!(
        turns.windows(2).all(|pair| pair[0].1 <= pair[1].0),
        "two held it together"
    );
    let handed = turns.windows(2).filter(|pair| pair[0].2 != pair[1].2);
    let mut late: Vec<_> = handed.map(|pair| pair[1].0 - pair[0].1).collect();
    late.sort_unstable();
    let at = |part: usize| Duration::from_nanos(late[late.len() * part / 100]);
    println!(
        "{} hand-overs, p50 {:?}, p99 {:?}",
        late.len(),
        at(50),
        at(99)
    );
    assert!(
        late.len() > 100,
        "only {} hand-overs in 600 turns",
        late.len()
    );
}
