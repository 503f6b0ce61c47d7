//! What a resource accepts comes from ever newer holders, and nothing is lost or made up.

use super::sweep::{Span, overtaken};
use super::timeline::{Lock, Step, Timeline};
use super::{Check, Event, Stage, Violation};

pub(super) fn check(timeline: &Timeline<'_>, violations: &mut Vec<Violation>) {
    for lock in timeline.locks.values() {
        never_decreasing(lock, violations);
        refused_with_reason(lock, violations);
        counted(lock, violations);
    }
}

fn writes<'a, 'h>(lock: &'a Lock<'h>) -> impl Iterator<Item = &'a Step<'h>> {
    lock.attempts.iter().flat_map(|attempt| &attempt.writes)
}

fn accepted<'h>(lock: &Lock<'h>) -> impl Iterator<Item = (u64, &'h Event, &'h Event)> {
    writes(lock).filter_map(|write| {
        let answer = write.answered(Stage::Ok)?;
        Some((write.begun.token?, write.begun, answer))
    })
}

/// No write is accepted after one with a greater token was.
fn never_decreasing(lock: &Lock<'_>, violations: &mut Vec<Violation>) {
    let spans = accepted(lock).map(|(token, begun, answer)| Span {
        start: begun.t_ns,
        end: answer.t_ns,
        rank: token,
        of: begun,
    });
    for (newer, older) in overtaken(spans) {
        let what = "a write was accepted after one with a greater token";
        violations.push(Violation::new(Check::FencedResource, what, [newer, older]));
    }
}

/// No write is refused before one with a greater token was tried.
fn refused_with_reason(lock: &Lock<'_>, violations: &mut Vec<Violation>) {
    let mut tried: Vec<_> = writes(lock)
        .filter_map(|write| Some((write.begun.t_ns, write.begun.token?)))
        .collect();
    tried.sort_unstable();
    let mut greatest = 0;
    for (_, token) in &mut tried {
        greatest = greatest.max(*token);
        *token = greatest;
    }
    for write in writes(lock) {
        let (Some(refused), Some(token)) = (write.answered(Stage::Fail), write.begun.token) else {
            continue;
        };
        let by_then = tried.partition_point(|(begun, _)| *begun <= refused.t_ns);
        if by_then == 0 || tried[by_then - 1].1 <= token {
            let what = "a write was refused, and there was no greater token";
            violations.push(Violation::new(
                Check::FencedResource,
                what,
                [write.begun, refused],
            ));
        }
    }
}

/// The resource has accepted as many writes as were acknowledged, give or take those whose
/// outcome is unknown, and remembers the newest token.
fn counted(lock: &Lock<'_>, violations: &mut Vec<Violation>) {
    let acknowledged = accepted(lock).count() as u64;
    let unknown = || {
        let is_unknown = |write: &&Step<'_>| {
            write
                .answer
                .is_none_or(|answer| answer.stage == Stage::Info)
        };
        writes(lock).filter(is_unknown)
    };
    if let Some((counted, event)) = told(lock.writes) {
        let most = acknowledged + unknown().count() as u64;
        if !(acknowledged..=most).contains(&counted) {
            let what = format!("it has counted {counted} writes, and not {acknowledged} to {most}");
            violations.push(Violation::new(Check::FencedResource, what, [event]));
        }
    }
    if let Some((newest, event)) = told(lock.newest) {
        let least = accepted(lock).map(|(token, ..)| token).max().unwrap_or(0);
        let perhaps = unknown().filter_map(|write| write.begun.token);
        let most = perhaps.max().unwrap_or(0).max(least);
        if !(least..=most).contains(&newest) {
            let what = format!("its newest token is {newest}, and not {least} to {most}");
            violations.push(Violation::new(Check::FencedResource, what, [event]));
        }
    }
}

fn told(event: Option<&Event>) -> Option<(u64, &Event)> {
    event.and_then(|event| Some((event.token?, event)))
}
