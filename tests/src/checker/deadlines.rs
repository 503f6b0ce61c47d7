//! An acquire is over when its wait is, or a bounded time later.

use std::collections::HashMap;

use super::rules::Fate;
use super::timeline::{Fault, Timeline};
use super::{Check, Rules, Violation, nanos};

pub(super) fn check(timeline: &Timeline<'_>, rules: &Rules, violations: &mut Vec<Violation>) {
    let lateness = nanos(rules.lateness);
    let mut frozen: HashMap<&str, Vec<&Fault<'_>>> = HashMap::new();
    for fault in &timeline.faults {
        if fault.rule.process == Fate::Frozen {
            frozen.entry(&fault.begun.process).or_default().push(fault);
        }
    }
    for attempt in timeline.locks.values().flat_map(|lock| &lock.attempts) {
        let Some(deadline) = attempt.asked.valid_until_ns else {
            continue;
        };
        let answered = attempt.answer.map(|answer| answer.t_ns);
        let ended = answered.or(attempt.killed).unwrap_or(timeline.end);
        // Who stands still cannot return: the time counts from when it goes on.
        let asked = attempt.asked;
        let thaws = frozen.get(asked.process.as_str()).into_iter().flatten();
        let thaws = thaws.filter(|fault| fault.begun.t_ns < ended && fault.over() > asked.t_ns);
        let due = thaws.map(|fault| fault.over()).fold(deadline, u64::max);
        if ended > due.saturating_add(lateness) {
            let late = std::time::Duration::from_nanos(ended - due);
            let what = match answered {
                Some(_) => format!("an acquire ended {late:.1?} after its wait"),
                None => format!("an acquire had not ended {late:.1?} after its wait"),
            };
            let events = [Some(asked), attempt.answer].into_iter().flatten();
            violations.push(Violation::new(Check::Deadlines, what, events));
        }
    }
}
