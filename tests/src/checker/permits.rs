//! At most so many hold a lock with permits, and all permits are in use again soon after a kill.
//!
//! That a slot has one holder is the check of exclusion; here the slots of a lock count together, whichever
//! these are.

use std::collections::BTreeMap;

use super::rules::Fate;
use super::timeline::{Attempt, Timeline};
use super::{Check, Violation, nanos};

pub(super) fn check(timeline: &Timeline<'_>, number: usize, violations: &mut Vec<Violation>) {
    let mut locks: BTreeMap<&str, Vec<&Attempt<'_>>> = BTreeMap::new();
    for (name, lock) in &timeline.locks {
        if let Some((name, _)) = name.split_once('#') {
            locks.entry(name).or_default().extend(&lock.attempts);
        }
    }
    for (name, attempts) in locks {
        // What ends at a time has ended before what begins then.
        let mut changes = Vec::new();
        for attempt in &attempts {
            if let Some(granted) = attempt.granted()
                && granted.t_ns < attempt.end()
            {
                changes.extend([
                    (attempt.end(), -1_i64, *attempt),
                    (granted.t_ns, 1, *attempt),
                ]);
            }
        }
        changes.sort_by_key(|(at, change, _)| (*at, *change));
        let mut inside = 0;
        // When all are in use, from and to.
        let mut full: Vec<(u64, u64)> = Vec::new();
        for (at, change, attempt) in changes {
            inside += change;
            let excess = usize::try_from(inside).unwrap_or_default();
            if change > 0 && excess > number {
                let what = format!("{excess} hold {name}, of which {number} may");
                let events = [attempt.answer, Some(attempt.last())];
                violations.push(Violation::new(
                    Check::Exclusion,
                    what,
                    events.into_iter().flatten(),
                ));
            }
            if change > 0 && excess == number {
                full.push((at, u64::MAX));
            } else if let Some((_, to)) = full.last_mut()
                && *to == u64::MAX
            {
                *to = at;
            }
        }
        for fault in &timeline.faults {
            let (Fate::Killed, Some(bound)) = (fault.rule.process, fault.rule.granted_within)
            else {
                continue;
            };
            let (from, by) = (
                fault.begun.t_ns,
                fault.begun.t_ns.saturating_add(nanos(bound)),
            );
            let is_full = full.iter().any(|(since, to)| *since <= by && from < *to);
            if !is_full && by <= timeline.end {
                let what = format!(
                    "the {number} permits of {name} were not all in use within {bound:?} after a kill"
                );
                violations.push(Violation::new(Check::NothingStuck, what, [fault.begun]));
            }
        }
    }
}
