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
        for (first, second) in processes.into_values().flat_map(overtaken) {
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
