//! In one process: first come, first served. Across processes: how long each waited.

use std::collections::HashMap;
use std::time::Duration;

use super::sweep::{Span, overtaken};
use super::timeline::{Attempt, Timeline};
use super::{Check, Counts, Rules, Violation, nanos};

pub(super) fn check(
    timeline: &Timeline<'_>,
    rules: &Rules,
    counts: &mut Counts,
    violations: &mut Vec<Violation>,
) {
    for lock in timeline.locks.values() {
        let mut processes: HashMap<&str, Vec<Span<&Attempt<'_>>>> = HashMap::new();
        for attempt in &lock.attempts {
            let (asked, Some(granted)) = (attempt.asked, attempt.granted()) else {
                continue;
            };
            let waited = Duration::from_nanos(granted.t_ns.saturating_sub(asked.t_ns));
            if counts.waited.is_none() || waited > counts.longest_wait {
                (counts.longest_wait, counts.waited) = (waited, Some(granted.clone()));
            }
            if attempt.is_reader() {
                counts.reads += 1;
            } else {
                counts.longest_wait_to_write = counts.longest_wait_to_write.max(waited);
            }
            // A lock that was lost may be granted to the next before its first holder looks.
            if let Some(apart) = rules.fifo
                && attempt.loss().is_none()
            {
                processes.entry(&asked.process).or_default().push(Span {
                    start: asked.t_ns,
                    end: asked.t_ns.saturating_add(nanos(apart)),
                    rank: granted.t_ns,
                    of: attempt,
                });
            }
        }
        let overtaken = processes.into_values().flat_map(overtaken);
        // Two readers hold together: which of them is seen to hold first is chance.
        let overtaken =
            overtaken.filter(|(first, second)| !(first.is_reader() && second.is_reader()));
        for (first, second) in overtaken {
            let what = "who asked later was served earlier, in one process";
            let events = [
                Some(first.asked),
                Some(second.asked),
                second.answer,
                first.answer,
            ];
            violations.push(Violation::new(
                Check::Order,
                what,
                events.into_iter().flatten(),
            ));
        }
    }
}
