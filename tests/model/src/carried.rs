//! The mirrored case of [`sentinels`](super::sentinels): a holder carries its lock over to the new master, where
//! it is renewed, while the former one sees its copy end and grants the lock to a process that has not heard yet.

use stateright::{Checker, Model, Property};

use super::is_broken;

/// How long a lock stays without a renewal, in ticks.
const LEASE: u8 = 6;
/// How much earlier its holder gives it up.
const MARGIN: u8 = 1;
/// How old the word of the Sentinels may be for a grant, and how much of a lease is carried over at least.
const HEARTBEAT: u8 = 2;
/// Until when the world is looked at.
const END: u8 = 2 * LEASE;

const EXCLUSION: &str = "at most one guard is valid";
/// Not promises: the world would be too small otherwise.
const CARRIED: &str = "the holder goes on at the new master";
const GRANTED: &str = "the former master grants to another while the new one is named";

/// A rule that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// What a master grants is held only if the Sentinels were asked a heartbeat ago or less.
    GrantsOfNow,
    /// A lease is carried over only with a heartbeat left.
    CarriedWithAHeartbeat,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    /// Whether the Sentinels name the new master.
    is_replaced: bool,
    /// Until when each master has the lock for the holder.
    former_until: u8,
    new_until: u8,
    /// Whether the former has granted it to the other process.
    is_taken: bool,
    /// Whether the holder has heard, and until when its guard is valid.
    has_moved: bool,
    valid_until: u8,
    /// A renewal on its way back: whether the new master did it, and when it was sent.
    renewed: Option<(bool, u8)>,
    /// Whether what the holder has was renewed by the new master.
    is_carried: bool,
    /// When the other process last asked the Sentinels and heard of no other master.
    word: u8,
    /// When a grant was asked for that is on its way to it.
    granted: Option<u8>,
    other_until: u8,
}

impl State {
    fn is_held(&self) -> bool {
        self.now < self.valid_until
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    Replace,
    /// The holder learns of the new master.
    Move,
    Renew,
    HearRenewed,
    /// The other process asks the Sentinels.
    Ask,
    /// It is granted the lock by the former master.
    Grant,
    HearGranted,
}

struct Carried {
    without: Option<Rule>,
}

impl Carried {
    fn keep(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn hear_renewed(&self, state: &mut State) {
        let Some((by_new, sent)) = state.renewed.take() else {
            return;
        };
        if by_new != state.has_moved || !state.is_held() {
            return;
        }
        let left = state.valid_until - state.now;
        let carries = state.is_carried || left >= HEARTBEAT;
        if by_new && !carries && self.keep(Rule::CarriedWithAHeartbeat) {
            state.valid_until = 0;
            return;
        }
        state.is_carried = by_new;
        state.valid_until = state.valid_until.max(sent + LEASE - MARGIN);
    }

    fn hear_granted(&self, state: &mut State) {
        let Some(sent) = state.granted.take() else {
            return;
        };
        let age = state.now - state.word;
        if age <= HEARTBEAT || !self.keep(Rule::GrantsOfNow) {
            state.other_until = sent.min(state.word) + LEASE - MARGIN;
        }
    }
}

impl Model for Carried {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            is_replaced: false,
            former_until: LEASE,
            new_until: 0,
            is_taken: false,
            has_moved: false,
            valid_until: LEASE - MARGIN,
            renewed: None,
            is_carried: false,
            word: 0,
            granted: None,
            other_until: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < END {
            actions.push(Action::Tick);
        }
        match state.is_replaced {
            false => actions.push(Action::Replace),
            true if !state.has_moved => actions.push(Action::Move),
            true => {}
        }
        match state.renewed {
            Some(_) => actions.push(Action::HearRenewed),
            None if state.is_held() => actions.push(Action::Renew),
            None => {}
        }
        if !state.is_replaced {
            // Later it learns of the new master, and leaves the former one.
            actions.push(Action::Ask);
        }
        match state.granted {
            Some(_) => actions.push(Action::HearGranted),
            None if !state.is_taken && state.now >= state.former_until => {
                actions.push(Action::Grant);
            }
            None => {}
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = state.now;
        match action {
            Action::Tick => state.now += 1,
            Action::Replace => {
                state.is_replaced = true;
                // It has what the former has.
                state.new_until = if state.is_taken {
                    0
                } else {
                    state.former_until
                };
            }
            Action::Move => state.has_moved = true,
            Action::Renew => {
                let until = match state.has_moved {
                    true => &mut state.new_until,
                    false => &mut state.former_until,
                };
                if now >= *until || (state.is_taken && !state.has_moved) {
                    return None;
                }
                *until = now + LEASE;
                state.renewed = Some((state.has_moved, now));
            }
            Action::HearRenewed => self.hear_renewed(&mut state),
            Action::Ask => state.word = now,
            Action::Grant => {
                state.granted = Some(now);
                state.is_taken = true;
            }
            Action::HearGranted => self.hear_granted(&mut state),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EXCLUSION, |_, state: &State| {
                !(state.is_held() && state.now < state.other_until)
            }),
            Property::sometimes(CARRIED, |_, state: &State| {
                state.is_carried && state.is_held() && state.now > LEASE
            }),
            Property::sometimes(GRANTED, |_, state: &State| {
                state.is_replaced && state.now < state.other_until
            }),
        ]
    }
}

#[test]
fn a_lock_that_is_carried_over_is_not_held_by_two() {
    let checker = Carried { without: None }.checker().spawn_bfs().join();
    checker.assert_properties();
}

#[test]
fn each_rule_about_a_lock_that_is_carried_over_is_needed() {
    for rule in [Rule::GrantsOfNow, Rule::CarriedWithAHeartbeat] {
        let world = Carried {
            without: Some(rule),
        };
        assert!(is_broken(world, EXCLUSION), "{rule:?}");
    }
}
