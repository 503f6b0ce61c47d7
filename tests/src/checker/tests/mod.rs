//! Histories written by hand: what each check finds, and what it must not find.

mod clients;
mod faults;
mod format;
mod readers;

use std::time::Duration;

use super::{Action, Check, Event, Rules, Stage, Verdict, judge};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A history of lines such as
///
/// ```text
/// 5 a/1 acquire invoke @lock #token <until shared
/// ```
///
/// with times in milliseconds. The lock is `x` if none is given, and for faults none.
fn history(lines: &str) -> Vec<Event> {
    let lines = lines.trim().lines();
    lines.map(|line| event(line.trim())).collect()
}

fn event(line: &str) -> Event {
    let mut words = line.split_whitespace();
    let mut word = || words.next().unwrap_or_else(|| panic!("too short: {line}"));
    let millis = |text: &str| text.parse::<u64>().unwrap() * 1_000_000;
    let t_ns = millis(word());
    let (process, op) = word().split_once('/').unwrap();
    let f = serde_json::from_value(word().into()).unwrap();
    let stage = serde_json::from_value(word().into()).unwrap();
    let mut event = Event {
        t_ns,
        process: process.to_owned(),
        op: op.to_owned(),
        lock: if f == Action::Fault { "" } else { "x" }.to_owned(),
        f,
        stage,
        shared: false,
        token: None,
        valid_until_ns: None,
    };
    for word in words {
        if word == "shared" {
            event.shared = true;
            continue;
        }
        match word.split_at(1) {
            ("@", lock) => event.lock = lock.to_owned(),
            ("#", token) => event.token = Some(token.parse().unwrap()),
            ("<", until) => event.valid_until_ns = Some(millis(until)),
            _ => panic!("what is {word}?"),
        }
    }
    event
}

/// Rules for histories without tokens and anything else.
fn plain() -> Rules {
    Rules::default().without_tokens()
}

fn verdict(lines: &str, rules: &Rules) -> Verdict {
    judge(&history(lines), rules)
}

#[track_caller]
fn is_clean(lines: &str, rules: &Rules) -> Verdict {
    verdict(lines, rules).assert_clean()
}

/// One violation of this check and of no other, and the times of the events that show it.
#[track_caller]
fn finds(check: Check, times: &[u64], lines: &str, rules: &Rules) {
    let verdict = verdict(lines, rules);
    assert_eq!(verdict.checks(), [check], "{verdict}");
    assert_eq!(verdict.violations.len(), 1, "{verdict}");
    let shown = verdict.violations[0].events.iter();
    let shown: Vec<_> = shown.map(|event| event.t_ns / 1_000_000).collect();
    assert_eq!(shown, times, "{verdict}");
}
