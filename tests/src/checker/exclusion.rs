//! The times from each grant to when the holder gave up, was notified, or knew that its lock had ended
//! are disjoint.

use std::time::Duration;

use super::timeline::{Attempt, Timeline};
use super::{Check, Counts, Violation, nanos};

pub(super) fn check(timeline: &Timeline<'_>, counts: &mut Counts, violations: &mut Vec<Violation>) {
    for lock in timeline.locks.values() {
        let granted = lock.attempts.iter();
        let mut holds: Vec<_> = granted
            .filter_map(|attempt| Some((attempt.granted()?.t_ns, attempt)))
            .collect();
        holds.sort_by_key(|(granted, _)| *granted);
        let mut longest: Option<&Attempt<'_>> = None;
        for (granted, hold) in holds {
            if let Some(before) = longest.filter(|before| before.end() > granted) {
                let overlap =
                    Duration::from_nanos(before.end().min(hold.end()).saturating_sub(granted));
                if overlap.is_zero() {
                    // The later one had ended before its holder knew that it had begun.
                } else if is_excused(timeline, before, granted, overlap) {
                    counts.overlaps_excused += 1;
                    counts.longest_overlap = counts.longest_overlap.max(overlap);
                } else {
                    let what = format!("two were inside at once, for {overlap:.1?}");
                    let fault = timeline.last_fault_before(granted);
                    let events = [
                        fault.map(|fault| fault.begun),
                        fault.and_then(|fault| fault.over),
                        before.answer,
                        Some(before.last()),
                        hold.answer,
                        Some(hold.last()),
                    ];
                    let events = events.into_iter().flatten();
                    violations.push(Violation::new(Check::Exclusion, what, events));
                }
            }
            if longest.is_none_or(|before| before.end() < hold.end()) {
                longest = Some(hold);
            }
        }
    }
}

/// Whether the server has dropped the lock of the earlier holder, and that is still being heard of.
fn is_excused(timeline: &Timeline<'_>, before: &Attempt<'_>, from: u64, overlap: Duration) -> bool {
    timeline.faults.iter().any(|fault| {
        fault.rule.overlap.is_some_and(|bound| {
            let last = fault.over().saturating_add(nanos(bound));
            fault.hits(before) && (fault.begun.t_ns..=last).contains(&from) && overlap <= bound
        })
    })
}
