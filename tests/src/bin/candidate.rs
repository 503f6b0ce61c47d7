//! A process that campaigns for leadership until its standard input says `stop`.
//!
//! ```text
//! candidate HISTORY RESOURCE PROCESS NAME ADDRESS
//! ```
//!
//! It says `leads AT`, in nanoseconds of CLOCK_BOOTTIME, when it is elected. While it leads it writes
//! to the resource, and to its history until when it believes that it leads.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process;
use std::time::Duration;

use futures_util::FutureExt;
use lock_core::backend::Lease;
use lock_core::{Leader, LockError, LockName};
use lock_tests::address::{self, Leases};
use lock_tests::chaos::{FileResource, Resource};
use lock_tests::checker::{Action, Journal, Operation, Stage};
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::sync::watch;
use tokio::time::timeout;

/// The time between two looks of a leader at itself.
const LOOK: Duration = Duration::from_millis(2);

/// How long a process that stops waits for the release.
const GRACE: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // Also when it is frozen, and cannot see the end of its input.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [history, resource, process, name, address] = arguments.as_slice() else {
        return Err("usage: candidate HISTORY RESOURCE PROCESS NAME ADDRESS".into());
    };
    let name: LockName = name.parse()?;
    let opened = address::open(address).await?;
    let mut candidate = Candidate {
        leader: opened.locks.leader(name.clone())?,
        leases: opened.leases,
        resource: FileResource::open(resource)?,
        journal: Journal::create(Path::new(history), process)?,
        name,
    };
    let mut stop = stop_on_request();
    let stopping = stop.clone();
    say("ready")?;
    let mut held = None;
    while held.is_none() && !*stop.borrow() {
        let operation = candidate.journal.operation(&candidate.name);
        operation.note(Action::Acquire, Stage::Invoke);
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            elected = candidate.elected() => {
                elected?;
                held = candidate.lead(operation, &stopping).await?;
            }
        }
    }
    drop(candidate);
    opened.locks.shutdown(GRACE).await;
    if let Some(operation) = held {
        operation.note(Action::Release, Stage::Ok);
    }
    say("stopped")?;
    Ok(())
}

struct Candidate {
    leader: Leader,
    leases: Leases,
    resource: FileResource,
    journal: Journal,
    name: LockName,
}

impl Candidate {
    /// Waits until this process leads. It can be cancelled, and has written nothing down then.
    async fn elected(&mut self) -> Result<(), LockError> {
        while !self.leader.changed().await? {}
        Ok(())
    }

    /// Leads until that is lost, or gives the operation back when it is not wanted any more.
    async fn lead(
        &mut self,
        operation: Operation,
        stop: &watch::Receiver<bool>,
    ) -> io::Result<Option<Operation>> {
        operation.note_until(Action::Acquire, Stage::Ok, self.until(0));
        say(&format!("leads {}", self.journal.now()))?;
        let token = self.leader.fencing_token().await.ok().map(u64::from);
        // It has seen this term, so that it sees the next as well.
        let mut term = self.leader.clone();
        loop {
            // Read first: a process that is frozen here finds the loss when it looks at itself.
            let stopping = *stop.borrow();
            let seen = self.journal.now();
            // Elected again since the last look, it leads, and has lost this term.
            if !self.leader.is_leader() || term.changed().now_or_never().is_some() {
                operation.note(Action::Lost, Stage::Ok);
                operation.note_token(Action::Release, Stage::Invoke, token);
                operation.note(Action::Release, Stage::Fail);
                return Ok(None);
            }
            if stopping {
                operation.note_token(Action::Release, Stage::Invoke, token);
                return Ok(Some(operation));
            }
            if let Some(token) = token {
                let until = self.until(seen);
                operation.write(Action::Write, Stage::Invoke, Some(token), until);
                let accepted = self.resource.write(&self.name, token).await?;
                let stage = if accepted { Stage::Ok } else { Stage::Fail };
                operation.note(Action::Write, stage);
            }
            // Seen immediately, or at its next look: whichever is first must be right.
            let _ = timeout(LOOK, self.leader.clone().changed()).await;
        }
    }

    /// Until when this process believes that it leads, who was leader at `seen`. The clock is read
    /// first, since the process can be frozen in between.
    fn until(&self, seen: u64) -> Option<u64> {
        let now = self.journal.now();
        let lease = self.leases.of(&self.name);
        let left = lease.as_ref().and_then(Lease::remaining)?;
        let left = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
        Some(seen.max(if left == 0 {
            0
        } else {
            now.saturating_add(left)
        }))
    }
}

/// Turns true once the standard input says so. Its end ends the process, whatever it does.
fn stop_on_request() -> watch::Receiver<bool> {
    let (stop, stopping) = watch::channel(false);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            match line.as_deref() {
                Ok("stop") => drop(stop.send_replace(true)),
                _ => break,
            }
        }
        process::exit(0);
    });
    stopping
}

fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
