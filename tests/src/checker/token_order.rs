//! Tokens of one lock differ, and one that asked after another was granted has the greater one.

use std::collections::HashMap;

use super::sweep::{Span, overtaken};
use super::timeline::{Lock, Timeline};
use super::{Check, Rules, Violation};

pub(super) fn check(timeline: &Timeline<'_>, rules: &Rules, violations: &mut Vec<Violation>) {
    if !rules.tokens {
        return;
    }
    for lock in timeline.locks.values() {
        check_lock(lock, violations);
    }
    let mut attempts = timeline.locks.values().flat_map(|lock| &lock.attempts);
    if !attempts.any(|attempt| attempt.token.is_some()) {
        let what = "nobody has drawn a token";
        violations.push(Violation::new(Check::TokenOrder, what, []));
    }
}

fn check_lock(lock: &Lock<'_>, violations: &mut Vec<Violation>) {
    let mut report = |what: &str, events| {
        violations.push(Violation::new(Check::TokenOrder, what, events));
    };
    let mut holders = HashMap::new();
    let mut spans = Vec::new();
    for attempt in &lock.attempts {
        let (Some(granted), Some((token, told))) = (attempt.granted(), attempt.token()) else {
            continue;
        };
        if let Some(other) = attempt.other_token {
            report("one holder has two tokens", [told, other]);
        }
        if let Some(other) = holders.insert(token, told) {
            report("two holders have one token", [other, told]);
        }
        spans.push(Span {
            start: attempt.asked.t_ns,
            end: granted.t_ns,
            rank: token,
            of: told,
        });
    }
    for (before, after) in overtaken(spans) {
        report(
            "the later of two holders has the smaller token",
            [before, after],
        );
    }
}
