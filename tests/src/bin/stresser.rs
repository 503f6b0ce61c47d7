//! A process of a campaign: takes locks and writes down what it does until its standard input says
//! `stop`.
//!
//! ```text
//! stresser ADDRESS RESOURCE HISTORY PROCESS SEED CLIENTS READERS PERMITS KEPT NAME..
//! ```
//!
//! Its clients share the locks NAME.. with those of other processes, so many of which hold one at a time as PERMITS
//! says; 0 for locks without permits. The first READERS of them read. One client more keeps the lock KEPT
//! nearly all the time, so that a fault that costs locks always finds one.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use lock_core::{LockMode, LockName};
use lock_tests::address;
use lock_tests::chaos::{FileResource, Locks, Permits, Worker};
use lock_tests::checker::Journal;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::task::JoinSet;

/// Longer than most leases of tests.
const LINGERING: Duration = Duration::from_secs(3);

/// How long a shutdown waits for what is on its way.
const GRACE: Duration = Duration::from_secs(10);

/// One of so many holds of a shared lock is a long one: others have their turns.
const SELDOM: u32 = 300;

// One thread, so that the history has the order of the calls.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // Also when it is frozen, and cannot see the end of its input.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [
        address,
        resource,
        history,
        process,
        seed,
        clients,
        readers,
        permits,
        kept,
        names @ ..,
    ] = arguments.as_slice()
    else {
        return Err(
            "usage: stresser ADDRESS RESOURCE HISTORY PROCESS SEED CLIENTS READERS PERMITS KEPT NAME.."
                .into(),
        );
    };
    let directory = resource.strip_prefix("file:");
    let resource = FileResource::open(directory.ok_or("an unknown kind of resource")?)?;
    let names: Result<Vec<LockName>, _> = names.iter().map(|name| name.parse()).collect();
    let names = names?;
    let journal = Journal::create(Path::new(history), process)?;
    let mut rng = Rng::with_seed(seed.parse()?);
    let locks = address::open(address).await?;
    let stop = stop_on_request();
    say("ready")?;

    let mut workers = JoinSet::new();
    let permits: usize = permits.parse()?;
    let readers: usize = readers.parse()?;
    for place in 0..clients.parse()? {
        let (names, lingering) = (names.clone(), Some((SELDOM, LINGERING)));
        let rng = rng.fork();
        if permits == 0 {
            let mut worker = worker(locks.clone(), &resource, &journal, names, rng, lingering);
            if place < readers {
                worker.mode = LockMode::Shared;
            }
            workers.spawn(worker.work(Arc::clone(&stop)));
        } else {
            let locks = Permits(locks.clone(), permits);
            let worker = worker(locks, &resource, &journal, names, rng, lingering);
            workers.spawn(worker.work(Arc::clone(&stop)));
        }
    }
    let (kept, lingering) = (vec![kept.parse()?], Some((1, LINGERING)));
    let worker = worker(locks.clone(), &resource, &journal, kept, rng, lingering);
    workers.spawn(worker.work(Arc::clone(&stop)));
    workers.join_all().await;
    // A try for waiters that have left may still be on its way: what it is granted has to go back, or the
    // lock stands for a lease.
    locks.locks.shutdown(GRACE).await;
    say("stopped")?;
    Ok(())
}

fn worker<L: Locks>(
    locks: L,
    resource: &FileResource,
    journal: &Journal,
    names: Vec<LockName>,
    rng: Rng,
    lingering: Option<(u32, Duration)>,
) -> Worker<L, FileResource> {
    Worker {
        locks,
        resource: resource.clone(),
        journal: journal.clone(),
        names,
        mode: LockMode::Exclusive,
        rng,
        pausing: None,
        lingering,
    }
}

/// Set once the standard input says so. Its end ends the process, whatever it does.
fn stop_on_request() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            match line.as_deref() {
                Ok("stop") => stopping.store(true, Ordering::Relaxed),
                _ => break,
            }
        }
        process::exit(0);
    });
    stop
}

fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
