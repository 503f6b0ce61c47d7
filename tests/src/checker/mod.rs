//! Judges what clients did with locks, from what they wrote down and nothing else.
//!
//! Every client writes [`Event`]s to a [`Journal`]; all journals of a run together are its history.
//! [`judge`] holds it to the [`Rules`] of the run. Its [`Verdict`] displays as a report.
//!
//! | file | check |
//! | --- | --- |
//! | `timeline` | the history fits together: [`Check::History`] |
//! | `token_order` | A granted before B asked: the token of A is smaller; no two are the same |
//! | `exclusion` | the times from grant to release, loss or the end of the lease are disjoint |
//! | `permits` | no more than so many hold a lock with permits, and all are in use again soon after a kill |
//! | `fenced_resource` | accepted tokens never decrease, and the resource counts what was acknowledged |
//! | `nothing_stuck` | freed locks are granted in time, and all are free at the end |
//! | `loss` | each loss is signalled, in time and for good, and none without a fault |
//! | `deadlines` | an acquire ends with its wait and one exchange with the server |
//! | `order` | first come, first served in one process; the longest wait across processes |
//!
//! Each takes O(n log n) for each lock. What must never be missed is missed by none of them for the
//! clocks: a grant counts from when its holder had it, a hold until its holder began to give it up,
//! so that each finding is one whatever the machine was busy with.

mod deadlines;
mod event;
mod exclusion;
mod fenced_resource;
mod journal;
mod loss;
mod nothing_stuck;
mod order;
mod permits;
mod rules;
mod sweep;
#[cfg(test)]
mod tests;
mod timeline;
mod token_order;
mod verdict;

use std::time::Duration;

pub use event::{Action, Event, HEALED, LEFT_OVER, NEWEST, RESOURCE, Stage, WRITES};
pub use journal::{Journal, Operation};
pub use rules::{Cost, Fate, FaultRule, Rules};
use timeline::{Step, Timeline};
pub use verdict::{Check, Counts, Tally, Verdict, Violation};

/// Judges a history, whatever the order of its events.
#[must_use]
pub fn judge(history: &[Event], rules: &Rules) -> Verdict {
    let mut timeline = Timeline::new(history, rules);
    let mut counts = counts(&timeline);
    let mut violations = std::mem::take(&mut timeline.violations);
    token_order::check(&timeline, rules, &mut violations);
    exclusion::check(&timeline, &mut counts, &mut violations);
    if let Some(number) = rules.permits {
        permits::check(&timeline, number, &mut violations);
    }
    fenced_resource::check(&timeline, &mut violations);
    nothing_stuck::check(&timeline, rules, &mut violations);
    loss::check(&timeline, rules, &mut violations);
    deadlines::check(&timeline, rules, &mut violations);
    order::check(&timeline, rules, &mut counts, &mut violations);
    Verdict { violations, counts }
}

fn counts(timeline: &Timeline<'_>) -> Counts {
    let mut counts = Counts::default();
    for fault in &timeline.faults {
        *counts.faults.entry(fault.begun.op.clone()).or_default() += 1;
    }
    for attempt in timeline.locks.values().flat_map(|lock| &lock.attempts) {
        counts.acquires.add(attempt.answer);
        for Step { answer, .. } in &attempt.writes {
            counts.writes.add(*answer);
        }
        if let Some(release) = attempt.release {
            counts.releases.add(release.answer);
        }
        counts.losses += usize::from(attempt.loss().is_some());
    }
    counts
}

impl Tally {
    fn add(&mut self, answer: Option<&Event>) {
        match answer.map(|answer| answer.stage) {
            Some(Stage::Ok) => self.done += 1,
            Some(Stage::Fail) => self.refused += 1,
            Some(Stage::Info | Stage::Invoke) | None => self.unknown += 1,
        }
    }
}

/// As events tell times.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
