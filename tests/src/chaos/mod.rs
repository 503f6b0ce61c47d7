//! A run under stress with faults, judged by its history.
//!
//! Processes of the program `stresser`, each with some clients, take a few locks in turns and write
//! to what they protect. Meanwhile something is broken every other second. At the end all is healed,
//! and every lock is tried once more.
//!
//! - [`Campaign`] is such a run; it is led against a [`Subject`], which is a store that may add
//!   [`Fault`]s of its own.
//! - [`Worker`] is one client, in a process of its own or beside others, over the library
//!   ([`Opened`]) or over a backend alone ([`Bare`]).
//! - [`InProcess`] is several of them in one process.
//! - [`Resource`] is what the locks protect.
//!
//! `LOCK_STRESS_SECONDS` says how long it lasts, `LOCK_STRESS_SEED` repeats what chance has chosen,
//! `LOCK_STRESS_HISTORY` names a file to write the history to.

mod faults;
mod fleet;
mod in_process;
mod lease_table;
mod locks;
mod network;
mod postgres;
mod redis;
mod redis_sentinels;
mod resource;
mod starvation;
mod worker;

use std::env;
use std::io::Write;
use std::str::FromStr;
use std::time::Duration;

use fastrand::Rng;
use lock_core::{LockMode, LockName};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

pub use faults::{Fault, Freeze, Kill, Subject, common};
use fleet::Setting;
pub use fleet::{Broken, Fleet};
pub use in_process::InProcess;
pub use lease_table::ChaosLeaseTable;
pub use locks::{Bare, Held, Locks, Permits, Taken};
pub use postgres::ChaosPostgres;
pub use redis::{ChaosRedis, ChaosRedisCluster};
pub use redis_sentinels::ChaosRedisSentinels;
pub use resource::{FileResource, MemoryResource, Resource, State};
pub use starvation::STARVED;
use starvation::Starvation;
pub use worker::{PAUSE, Worker};

use crate::Queued;
use crate::address::Opened;
use crate::checker::{
    Action, Event, FaultRule, HEALED, Journal, LEFT_OVER, NEWEST, RESOURCE, Rules, Stage, Verdict,
    WRITES, judge,
};

/// For how long after that a busy machine is watched: how long a thread has waited is known once it runs.
const WATCHED: Duration = Duration::from_millis(200);

const SECONDS: &str = "LOCK_STRESS_SECONDS";
const SEED: &str = "LOCK_STRESS_SEED";
const HISTORY: &str = "LOCK_STRESS_HISTORY";

/// A run under stress.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// How long something is broken now and then.
    pub lasts: Duration,
    /// The time from one fault to the next.
    pub every: Duration,
    /// How many processes there are at a time.
    pub processes: usize,
    /// How many clients each has.
    pub clients: usize,
    /// How many of these read what the others write.
    pub readers: usize,
    /// How many locks they share. Each process keeps one more to itself.
    pub locks: usize,
    /// How many may hold each of these at a time, where that is more than one. Then nothing but processes is broken.
    pub permits: Option<usize>,
    /// What chance chooses.
    pub seed: u64,
}

impl Campaign {
    /// Four processes with two clients each, on four locks that they share, for as long as the environment says, or
    /// this long. Prints the seed.
    ///
    /// # Panics
    ///
    /// When the environment has something that is no number.
    #[must_use]
    #[allow(clippy::print_stderr, reason = "shown when a test fails")]
    pub fn new(lasts: Duration) -> Self {
        let seed = given(SEED).unwrap_or_else(|| fastrand::u64(..));
        eprintln!("repeat with {SEED}={seed}");
        Self {
            lasts: seconds(lasts),
            every: Duration::from_secs(2),
            processes: 4,
            clients: 2,
            readers: 0,
            locks: 4,
            permits: None,
            seed,
        }
    }

    /// Leads it against a store, with processes of the program at this path, and judges.
    ///
    /// # Panics
    ///
    /// When a process ends that was not killed, or the run itself cannot go on.
    pub async fn run<S: Subject>(self, stresser: &str, store: &S) -> Verdict {
        let mut rng = Rng::with_seed(self.seed);
        let directory = TempDir::new().unwrap();
        let resources = directory.path().join("resources");
        let resource = FileResource::open(&resources).unwrap();
        let mut names = names(self.locks + self.processes);
        let kept = names.split_off(self.locks);
        let shared = names.clone();
        let setting = Setting {
            program: stresser.to_owned(),
            address: store.address().expect("processes can share the store"),
            resource: format!("file:{}", resources.display()),
            histories: directory.path().to_owned(),
            clients: self.clients,
            readers: self.readers,
            names: shared.clone(),
            permits: self.permits,
            kept: kept.clone(),
        };
        let faults = match self.permits {
            None => store.faults(),
            Some(_) => common::<S>(),
        };
        let free_within = S::LEASE.unwrap_or_default() + Duration::from_secs(1);
        let probe = Opened::over(store.backend().await);
        if let Some(permits) = self.permits {
            let slots = shared.iter().flat_map(|name| {
                let lock = probe.locks.lock(name).unwrap().permits(permits);
                lock.slots().collect::<Vec<_>>()
            });
            names = slots.collect();
        }
        names.extend(kept);
        let mut fleet = Fleet::open(rng.fork(), setting).await;
        let journal = fleet.journal.clone();
        let starvation = Starvation::watched(journal.clone(), S::LEASE);
        let added = self.break_things(&faults, &mut rng, &mut fleet).await;

        journal.named(HEALED, &"").note(Action::Fault, Stage::Ok);
        fleet.tell_all_to_stop().await;
        // What the machine adds is known later.
        let patience = free_within + Duration::from_secs(10);
        try_all(&probe, &names, patience, &journal.of("probe")).await;
        let mut history = fleet.close().await;
        let most = starvation.most();
        for left in store.left_over().await {
            journal
                .named(LEFT_OVER, &left)
                .note(Action::Fault, Stage::Fail);
        }
        tell(&resource, &names, &journal).await;
        history.extend(journal.take());
        keep(&history);
        let mut rules = Rules::default()
            .lease(S::LEASE)
            .free_within(free_within + most)
            .fifo(Duration::ZERO)
            .fault(STARVED, FaultRule::harmless().may_cost_locks());
        rules.lateness += most;
        rules.permits = self.permits;
        for (fault, added) in faults.iter().zip(added) {
            let rule = fault.rule().on_a_machine_that_adds(added);
            rules = rules.fault(fault.name(), rule);
        }
        judge(&history, &rules)
    }

    /// Returns what the machine has added to what came of each fault: the longest that a process has waited for
    /// a processor meanwhile. A holder that does not run cannot hear of a loss.
    async fn break_things(
        &self,
        faults: &[Box<dyn Fault>],
        rng: &mut Rng,
        fleet: &mut Fleet,
    ) -> Vec<Duration> {
        let mut added = vec![Duration::ZERO; faults.len()];
        let end = Instant::now() + self.lasts;
        let mut due = Instant::now() + self.every;
        // Each once, in an order of chance, then each once again. The first round is not cut short, however long
        // what is waited for takes.
        let (mut bag, mut untried) = (Vec::new(), faults.len());
        while due < end || untried > 0 {
            sleep_until(due).await;
            if bag.is_empty() {
                bag = (0..faults.len()).collect();
                rng.shuffle(&mut bag);
            }
            let begun = Instant::now();
            due += self.every;
            if let Some(next) = bag.pop() {
                untried = untried.saturating_sub(1);
                let queued = Queued::here_and_there();
                faults[next].inject(fleet).await;
                // What it costs is noticed, and what it frees is granted, before another is in the way of that.
                let rule = faults[next].rule();
                let noticed = Instant::now() + rule.noticed_within() + WATCHED;
                sleep_until(noticed.max(begun + rule.granted_within.unwrap_or_default())).await;
                added[next] = queued.longest_since().max(added[next]);
            }
            due = due.max(Instant::now());
        }
        sleep_until(end).await;
        added
    }
}

/// Locks for one run.
#[must_use]
pub fn names(count: usize) -> Vec<LockName> {
    let name = |number| LockName::new("test", "stress", number).unwrap();
    (0..count).map(name).collect()
}

/// Tries every lock once, at the same time.
pub(crate) async fn try_all(
    locks: &impl Locks,
    names: &[LockName],
    wait: Duration,
    journal: &Journal,
) {
    let mut tries = JoinSet::new();
    for name in names {
        let (locks, name, operation) = (locks.clone(), name.clone(), journal.operation(name));
        tries.spawn(async move {
            operation.ask(wait);
            let Ok(Some(held)) = locks.acquire(&name, LockMode::Exclusive, wait).await else {
                return operation.note(Action::Acquire, Stage::Fail);
            };
            operation.note(Action::Acquire, Stage::Ok);
            operation.note(Action::Release, Stage::Invoke);
            let stage = held.release().await.map_or(Stage::Info, |()| Stage::Ok);
            operation.note(Action::Release, stage);
        });
    }
    tries.join_all().await;
}

/// Writes down what resources say of themselves.
pub(crate) async fn tell(resource: &impl Resource, names: &[LockName], journal: &Journal) {
    let journal = journal.of(RESOURCE);
    for name in names {
        let State { writes, newest } = resource.state(name).await.unwrap();
        for (op, number) in [(WRITES, writes), (NEWEST, newest)] {
            let word = journal.named(op, name);
            word.note_token(Action::Write, Stage::Ok, Some(number));
        }
    }
}

/// Writes the history to where the environment says.
fn keep(history: &[Event]) {
    let Ok(path) = env::var(HISTORY) else { return };
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for event in history {
        writeln!(file, "{}", serde_json::to_string(event).unwrap()).unwrap();
    }
    file.flush().unwrap();
}

/// How long it lasts: as the environment says, or so long.
pub(crate) fn seconds(otherwise: Duration) -> Duration {
    given(SECONDS).map_or(otherwise, Duration::from_secs)
}

/// A number in the environment.
fn given<T: FromStr>(variable: &str) -> Option<T> {
    let value = env::var(variable).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is a number and not `{value}`")))
}
