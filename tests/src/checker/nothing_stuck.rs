//! What a fault frees is granted to those who wait, and all can be acquired once everything is healed.

use std::time::Duration;

use super::timeline::{Attempt, Fault, Lock, Timeline};
use super::{Check, Rules, Violation, nanos};

pub(super) fn check(timeline: &Timeline<'_>, rules: &Rules, violations: &mut Vec<Violation>) {
    let mut report = |what: String, events: &mut dyn Iterator<Item = _>| {
        violations.push(Violation::new(Check::NothingStuck, what, events));
    };
    for event in &timeline.left_over {
        report(
            "the store keeps something of the dead".into(),
            &mut [*event].into_iter(),
        );
    }
    for (name, lock) in &timeline.locks {
        let order = Order::new(lock);
        for fault in &timeline.faults {
            let Some(bound) = fault.rule.granted_within else {
                continue;
            };
            if let Some((holder, waiting)) = order.left_waiting(fault, bound) {
                let what =
                    format!("a lock that a fault has freed was not granted within {bound:?}");
                let events = [
                    Some(fault.begun),
                    holder.answer,
                    Some(waiting.asked),
                    waiting.answer,
                ];
                report(what, &mut events.into_iter().flatten());
            }
        }
        if let (Some(bound), Some(healed)) = (rules.free_within, timeline.healed) {
            let last = healed.t_ns.saturating_add(nanos(bound));
            if !order.granted_between(healed.t_ns, last) {
                let what = format!("{name} could not be had within {bound:?}");
                let tried = lock.attempts.iter().rev().take(3);
                let tried = tried.flat_map(|attempt| [Some(attempt.asked), attempt.answer]);
                report(what, &mut [Some(healed)].into_iter().chain(tried).flatten());
            }
        }
    }
    if rules.free_within.is_some() && timeline.healed.is_none() {
        report(
            "the history does not tell when all was healed".into(),
            &mut [].into_iter(),
        );
    }
}

/// One lock, prepared for questions about times.
struct Order<'a, 'h> {
    attempts: &'a [Attempt<'h>],
    /// When it was granted, in order, and to whom.
    grants: Vec<(u64, &'a Attempt<'h>)>,
    /// For each attempt, of those asked no later than it, the one that was answered last.
    patient: Vec<&'a Attempt<'h>>,
}

impl<'a, 'h> Order<'a, 'h> {
    fn new(lock: &'a Lock<'h>) -> Self {
        let granted = lock.attempts.iter();
        let mut grants: Vec<_> = granted
            .filter_map(|attempt| Some((attempt.granted()?.t_ns, attempt)))
            .collect();
        grants.sort_by_key(|(granted, _)| *granted);
        let mut patient: Vec<&Attempt<'_>> = Vec::with_capacity(lock.attempts.len());
        for attempt in &lock.attempts {
            let last = patient.last().copied();
            let longer = last.filter(|last| waited_until(last) >= waited_until(attempt));
            patient.push(longer.unwrap_or(attempt));
        }
        Self {
            attempts: &lock.attempts,
            grants,
            patient,
        }
    }

    fn granted_between(&self, from: u64, to: u64) -> bool {
        let next = self.grants.partition_point(|(granted, _)| *granted < from);
        self.grants
            .get(next)
            .is_some_and(|(granted, _)| *granted <= to)
    }

    /// The holder that the fault has hit, and a caller that had waited for its lock when the time was
    /// over and it was still not granted.
    fn left_waiting(
        &self,
        fault: &Fault<'_>,
        bound: Duration,
    ) -> Option<(&'a Attempt<'h>, &'a Attempt<'h>)> {
        let from = fault.begun.t_ns;
        let by = from.saturating_add(nanos(bound));
        let before = self.grants.partition_point(|(granted, _)| *granted < from);
        let (_, holder) = self.grants[..before].last()?;
        let gave_up = holder.given_up();
        if !fault.hits(holder) || gave_up <= by || self.granted_between(from, by) {
            return None;
        }
        // Others read meanwhile.
        let mut others = self.grants[..before].iter();
        let is_beside = |other: &Attempt<'_>| !fault.hits(other) && other.end() > from;
        if holder.is_reader() && others.any(|(_, other)| is_beside(other)) {
            return None;
        }
        let asked = self
            .attempts
            .partition_point(|attempt| attempt.asked.t_ns < from);
        let waiting = *self.patient[..asked].last()?;
        let deadline = waiting.asked.valid_until_ns.unwrap_or(u64::MAX);
        (waited_until(waiting) > by && deadline > by && !fault.hits(waiting))
            .then_some((holder, waiting))
    }
}

/// When an attempt had its answer, or its process its end. One that was never answered is not known
/// to have waited at all: the check of deadlines is for those.
fn waited_until(attempt: &Attempt<'_>) -> u64 {
    let answered = attempt.answer.map_or(0, |answer| answer.t_ns);
    answered.min(attempt.killed.unwrap_or(u64::MAX))
}
