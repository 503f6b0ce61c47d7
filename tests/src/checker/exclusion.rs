//! The times from each grant to when the holder gave up, was notified, or knew that its lock had ended
//! are disjoint, but for those of readers with each other.

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
        let mut longest = Longest::default();
        for (granted, hold) in holds {
            let excluded = longest.excluding(hold);
            if let Some(before) = excluded.filter(|before| before.end() > granted) {
                let overlap =
                    Duration::from_nanos(before.end().min(hold.end()).saturating_sub(granted));
                if overlap.is_zero() {
                    // The later one had ended before its holder knew that it had begun.
                } else if is_excused(timeline, before, granted, overlap) {
                    counts.overlaps_excused += 1;
                    counts.longest_overlap = counts.longest_overlap.max(overlap);
                } else {
                    let who = match before.is_reader() || hold.is_reader() {
                        true => "a reader and a writer",
                        false => "two",
                    };
                    let what = format!("{who} were inside at once, for {overlap:.1?}");
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
            longest.add(hold);
        }
    }
}

/// Of the holds so far, those that end last.
#[derive(Default)]
struct Longest<'a, 'h> {
    writer: Option<&'a Attempt<'h>>,
    reader: Option<&'a Attempt<'h>>,
}

impl<'a, 'h> Longest<'a, 'h> {
    /// The one that ends last, of those beside which there can be no such hold.
    fn excluding(&self, hold: &Attempt<'_>) -> Option<&'a Attempt<'h>> {
        let readers = self.reader.filter(|_| !hold.is_reader());
        let both = self.writer.into_iter().chain(readers);
        both.max_by_key(|before| before.end())
    }

    fn add(&mut self, hold: &'a Attempt<'h>) {
        let same = match hold.is_reader() {
            true => &mut self.reader,
            false => &mut self.writer,
        };
        if same.is_none_or(|before| before.end() < hold.end()) {
            *same = Some(hold);
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
