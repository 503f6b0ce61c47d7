//! A lock that a fault has cost is lost for its holder, soon and for good; no other is.

use super::rules::Cost;
use super::timeline::{Attempt, Fault, Timeline};
use super::{Check, Rules, Stage, Violation, nanos};

pub(super) fn check(timeline: &Timeline<'_>, rules: &Rules, violations: &mut Vec<Violation>) {
    let faults = &timeline.faults;
    let costly: Vec<_> = faults
        .iter()
        .filter(|fault| fault.rule.cost != Cost::Nothing)
        .collect();
    let mut report = |what: &str, events: &mut dyn Iterator<Item = _>| {
        violations.push(Violation::new(Check::Loss, what, events));
    };
    for attempt in timeline.locks.values().flat_map(|lock| &lock.attempts) {
        let Some(granted) = attempt.granted() else {
            continue;
        };
        if let Some(again) = attempt.valid_again {
            let events = [attempt.lost, Some(again)];
            report(
                "a lock that was lost is valid again",
                &mut events.into_iter().flatten(),
            );
        }
        if let (Some(lost), Some(release)) = (attempt.lost, attempt.release)
            && let Some(answer) = release.answered(Stage::Ok)
            && lost.t_ns <= release.begun.t_ns
        {
            report(
                "a lock that was lost was released",
                &mut [lost, answer].into_iter(),
            );
        }
        if let Some(loss) = attempt.loss() {
            let follows = nanos(rules.losses_follow_for);
            let explains = |fault: &&Fault<'_>| {
                let last = fault.over().saturating_add(follows);
                fault.hits(attempt) && (fault.begun.t_ns..=last).contains(&loss.t_ns)
            };
            if !costly.iter().copied().any(|fault| explains(&fault)) {
                report(
                    "a lock was lost, and there was no fault",
                    &mut [granted, loss].into_iter(),
                );
            }
        }
        // The first that it cannot have survived.
        let fatal = costly.iter().find(|fault| is_missed(fault, attempt));
        if let Some(fault) = fatal {
            let events = [
                Some(granted),
                Some(fault.begun),
                fault.over,
                Some(attempt.last()),
            ];
            report(
                "a loss was not signalled in time",
                &mut events.into_iter().flatten(),
            );
        }
    }
}

/// Whether the fault has cost the lock, and the holder did not hear of it.
fn is_missed(fault: &Fault<'_>, attempt: &Attempt<'_>) -> bool {
    let (Cost::Must(within), Some(over), Some(granted)) =
        (fault.rule.cost, fault.over, attempt.granted())
    else {
        return false;
    };
    let gave_up = attempt.given_up();
    let from_beginning_to_end = granted.t_ns < fault.begun.t_ns && over.t_ns < gave_up;
    if !fault.hits(attempt) || !from_beginning_to_end {
        return false;
    }
    let by = over.t_ns.saturating_add(nanos(within));
    if gave_up > by {
        return attempt.killed.is_none_or(|killed| killed > by);
    }
    // The server may have served a release before it dropped the lock, but only in this time.
    let race = fault.rule.overlap.map_or(0, nanos);
    let released = attempt
        .release
        .and_then(|release| Some((release.begun, release.answered(Stage::Ok)?)));
    attempt.lost.is_none()
        && released.is_some_and(|(begun, _)| begun.t_ns > over.t_ns.saturating_add(race))
}
