//! A history, put together: what each operation was, from its beginning to its end.

use std::collections::{BTreeMap, HashMap};

use super::event::{HEALED, LEFT_OVER, NEWEST, RESOURCE, WRITES};
use super::rules::{Fate, FaultRule};
use super::{Action, Check, Event, Rules, Stage, Violation};

/// Everything that happened.
#[derive(Debug, Default)]
pub(super) struct Timeline<'h> {
    pub(super) locks: BTreeMap<&'h str, Lock<'h>>,
    pub(super) faults: Vec<Fault<'h>>,
    pub(super) healed: Option<&'h Event>,
    pub(super) left_over: Vec<&'h Event>,
    /// When the last thing happened.
    pub(super) end: u64,
    /// What does not fit together.
    pub(super) violations: Vec<Violation>,
}

/// What happened to one lock.
#[derive(Debug, Default)]
pub(super) struct Lock<'h> {
    /// In the order in which they were asked for.
    pub(super) attempts: Vec<Attempt<'h>>,
    /// The resource's word.
    pub(super) writes: Option<&'h Event>,
    pub(super) newest: Option<&'h Event>,
}

/// An acquire and all that followed from it.
#[derive(Debug)]
pub(super) struct Attempt<'h> {
    pub(super) asked: &'h Event,
    pub(super) answer: Option<&'h Event>,
    /// The first event with the token, and one with another.
    pub(super) token: Option<&'h Event>,
    pub(super) other_token: Option<&'h Event>,
    pub(super) writes: Vec<Step<'h>>,
    /// The latest that the holder has said.
    pub(super) valid_until: Option<u64>,
    pub(super) lost: Option<&'h Event>,
    pub(super) valid_again: Option<&'h Event>,
    pub(super) release: Option<Step<'h>>,
    /// When its process was killed.
    pub(super) killed: Option<u64>,
}

/// Something that takes time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'h> {
    pub(super) begun: &'h Event,
    pub(super) answer: Option<&'h Event>,
}

/// Something that was broken for some time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault<'h> {
    pub(super) begun: &'h Event,
    pub(super) over: Option<&'h Event>,
    pub(super) rule: FaultRule,
}

impl<'h> Step<'h> {
    /// The answer if it was this one.
    pub(super) fn answered(&self, stage: Stage) -> Option<&'h Event> {
        self.answer.filter(|answer| answer.stage == stage)
    }
}

impl<'h> Attempt<'h> {
    fn new(asked: &'h Event) -> Self {
        Self {
            asked,
            answer: None,
            token: None,
            other_token: None,
            writes: Vec::new(),
            valid_until: None,
            lost: None,
            valid_again: None,
            release: None,
            killed: None,
        }
    }

    /// Whether it holds together with others of its kind.
    pub(super) fn is_reader(&self) -> bool {
        self.asked.shared
    }

    /// The grant, if it was granted.
    pub(super) fn granted(&self) -> Option<&'h Event> {
        self.answer.filter(|answer| answer.stage == Stage::Ok)
    }

    /// The token and the event that tells it.
    pub(super) fn token(&self) -> Option<(u64, &'h Event)> {
        self.token.and_then(|event| Some((event.token?, event)))
    }

    /// When the holder has given the lock up, or heard that it is lost.
    pub(super) fn given_up(&self) -> u64 {
        let released = self.release.map(|release| release.begun.t_ns);
        let lost = self.lost.map(|lost| lost.t_ns);
        released.into_iter().chain(lost).min().unwrap_or(u64::MAX)
    }

    /// When the lock was not the holder's any more, at the latest, for all that the holder knew.
    pub(super) fn end(&self) -> u64 {
        let ends = self.valid_until.into_iter().chain(self.killed);
        ends.fold(self.given_up(), u64::min)
    }

    /// The event that tells the holder of a loss.
    pub(super) fn loss(&self) -> Option<&'h Event> {
        self.lost.or_else(|| {
            self.release
                .and_then(|release| release.answered(Stage::Fail))
        })
    }

    /// What shows when it ended.
    pub(super) fn last(&self) -> &'h Event {
        let released = self.release.map(|release| release.begun);
        let lost = self
            .lost
            .filter(|lost| released.is_none_or(|begun| lost.t_ns < begun.t_ns));
        lost.or(released).or(self.answer).unwrap_or(self.asked)
    }
}

impl Fault<'_> {
    /// Whether it hits this holder or caller.
    pub(super) fn hits(&self, attempt: &Attempt<'_>) -> bool {
        let Event { process, lock, .. } = self.begun;
        (process.is_empty() || *process == attempt.asked.process)
            && (lock.is_empty() || *lock == attempt.asked.lock)
    }

    /// When it was over.
    pub(super) fn over(&self) -> u64 {
        self.over.map_or(u64::MAX, |over| over.t_ns)
    }
}

impl<'h> Timeline<'h> {
    /// What had gone wrong last at this time.
    pub(super) fn last_fault_before(&self, t_ns: u64) -> Option<&Fault<'h>> {
        let begun = self.faults.iter().filter(|fault| fault.begun.t_ns <= t_ns);
        begun.max_by_key(|fault| fault.begun.t_ns)
    }

    /// Puts a history together, whatever its order.
    pub(super) fn new(history: &'h [Event], rules: &Rules) -> Self {
        let mut events: Vec<_> = history.iter().collect();
        // Stable: what one process has written at one time stays in its order.
        events.sort_by_key(|event| event.t_ns);
        let mut timeline = Self {
            end: events.last().map_or(0, |event| event.t_ns),
            ..Self::default()
        };
        let mut known = HashMap::new();
        for event in events {
            let fits = match event.f {
                Action::Fault => timeline.fault(event, rules),
                Action::Write if event.process == RESOURCE => timeline.resource(event),
                Action::Acquire if event.stage == Stage::Invoke => {
                    let attempts = &mut timeline.lock(event).attempts;
                    attempts.push(Attempt::new(event));
                    let at = (event.lock.as_str(), attempts.len() - 1);
                    known.insert((&event.process, &event.op), at).is_none()
                }
                _ => match known.get(&(&event.process, &event.op)) {
                    Some((lock, index)) if *lock == event.lock => {
                        timeline.lock(event).attempts[*index].add(event)
                    }
                    _ => false,
                },
            };
            if !fits {
                let what = "an event that does not fit to those before it";
                timeline
                    .violations
                    .push(Violation::new(Check::History, what, [event]));
            }
        }
        timeline.kill();
        timeline
    }

    fn lock(&mut self, event: &'h Event) -> &mut Lock<'h> {
        self.locks.entry(&event.lock).or_default()
    }

    fn fault(&mut self, event: &'h Event, rules: &Rules) -> bool {
        match (event.op.as_str(), event.stage) {
            (HEALED, Stage::Ok) => self.healed = Some(event),
            (LEFT_OVER, Stage::Fail) => self.left_over.push(event),
            (name, Stage::Invoke) => {
                let Some(rule) = rules.faults.get(name) else {
                    return false;
                };
                self.faults.push(Fault {
                    begun: event,
                    over: None,
                    rule: *rule,
                });
            }
            (name, Stage::Ok) => {
                let is_it = |fault: &&mut Fault<'_>| {
                    let begun = fault.begun;
                    fault.over.is_none()
                        && begun.op == name
                        && begun.process == event.process
                        && begun.lock == event.lock
                };
                let Some(fault) = self.faults.iter_mut().rev().find(is_it) else {
                    return false;
                };
                fault.over = Some(event);
            }
            _ => return false,
        }
        true
    }

    fn resource(&mut self, event: &'h Event) -> bool {
        let lock = self.lock(event);
        match event.op.as_str() {
            WRITES => lock.writes.replace(event).is_none(),
            NEWEST => lock.newest.replace(event).is_none(),
            _ => false,
        }
    }

    /// Ends what processes did that were killed.
    fn kill(&mut self) {
        let killed = self.faults.iter();
        let killed = killed.filter(|fault| fault.rule.process == Fate::Killed);
        let killed: HashMap<_, _> = killed
            .map(|fault| (&fault.begun.process, fault.begun.t_ns))
            .collect();
        let attempts = self.locks.values_mut().flat_map(|lock| &mut lock.attempts);
        for attempt in attempts {
            attempt.killed = killed.get(&attempt.asked.process).copied();
        }
    }
}

impl<'h> Attempt<'h> {
    /// Adds what followed; whether it can.
    fn add(&mut self, event: &'h Event) -> bool {
        if let Some(token) = event.token {
            let first = *self.token.get_or_insert(event);
            if first.token != Some(token) {
                self.other_token.get_or_insert(event);
            }
        }
        self.valid_until = self.valid_until.max(event.valid_until_ns);
        if event.f != Action::Acquire && self.granted().is_none() {
            return false;
        }
        let begin = |event| Step {
            begun: event,
            answer: None,
        };
        match (event.f, event.stage) {
            (Action::Acquire, _) => self.answer.replace(event).is_none(),
            (Action::Write, Stage::Invoke) => {
                self.writes.push(begin(event));
                true
            }
            (Action::Write, _) => answer(self.writes.last_mut(), event),
            (Action::Lost, Stage::Ok) => self.lost.replace(event).is_none(),
            (Action::Lost, Stage::Fail) => {
                self.valid_again.get_or_insert(event);
                self.lost.is_some()
            }
            (Action::Release, Stage::Invoke) => self.release.replace(begin(event)).is_none(),
            (Action::Release, _) => answer(self.release.as_mut(), event),
            (Action::Lost | Action::Fault, _) => false,
        }
    }
}

/// Adds the answer to what has begun; whether that was without one.
fn answer<'h>(step: Option<&mut Step<'h>>, answer: &'h Event) -> bool {
    step.is_some_and(|step| step.answer.replace(answer).is_none())
}
