//! A master that Sentinels have replaced, and that goes on: a holder that talks to it, and another client
//! that comes to the new one. The former master renews whatever it is asked to; what holds is between
//! the holder's lease, the Sentinels' word and the quarantine of the new master.

use stateright::{Checker, Model, Property};

use super::is_broken;

/// How long a lock stays without a renewal, in ticks: time for a renewal and a question in between.
const LEASE: u8 = 4;
/// How much earlier its holder gives it up.
const MARGIN: u8 = 1;
/// Until when the world is looked at.
const END: u8 = 2 * LEASE;

const EXCLUSION: &str = "at most one guard is valid";
/// Not promises: the world would be too small otherwise.
const BOTH_HOLD: &str = "the other client is granted what the holder has lost";
const FOLLOWS: &str = "the holder goes on at the new master";

/// A rule that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A lease counts from no later than a time when the Sentinels named no other master.
    CountsFromTheWord,
    /// That time is when they were asked, and not when they answered.
    AskedAndNotAnswered,
    /// An answer of the former master that comes later extends nothing.
    FormerExtendsNothing,
    /// The new master grants nothing for one lease.
    Quarantine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Server {
    Former,
    New,
}

/// A renewal on its way back: who did it, and when it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Renewed {
    by: Server,
    sent: u8,
    is_ours: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    /// Since when the Sentinels name the new master.
    is_replaced: bool,
    /// Until when the new master has the lock of the holder, which may never have reached it.
    copied_until: u8,
    quarantine_until: Option<u8>,
    at: Server,
    /// When the word was given that the lease counts from.
    as_of: u8,
    valid_until: u8,
    /// When the Sentinels were asked, and whether they named the new master then.
    word: Option<(u8, bool)>,
    renewed: Option<Renewed>,
    is_granted: bool,
}

impl State {
    fn is_held(&self) -> bool {
        self.now < self.valid_until
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    /// The new master has the lock, if it was renewed there so far, or lacks it.
    Replace {
        has_lock: bool,
    },
    AskSentinels,
    HearSentinels,
    /// The request is done by the server when it is sent; its answer can be late.
    Renew,
    HearRenewed,
    /// The other client comes to the new master, which a Sentinel named.
    Other,
}

struct Sentinels {
    without: Option<Rule>,
}

impl Sentinels {
    fn keep(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Nothing grants what it knows of.
    fn other(&self, state: &mut State) {
        let quarantine = if self.keep(Rule::Quarantine) {
            LEASE
        } else {
            0
        };
        let until = *(state.quarantine_until).get_or_insert(state.now + quarantine);
        state.is_granted = state.now >= until && state.now >= state.copied_until;
    }

    fn hear_sentinels(&self, state: &mut State) {
        let Some((asked, names_another)) = state.word.take() else {
            return;
        };
        if names_another {
            // Found by the answer of Sentinels to a question of that time, as any client finds it.
            state.at = Server::New;
            state.as_of = state.as_of.max(asked);
        } else if state.at == Server::Former {
            let counted = match self.keep(Rule::AskedAndNotAnswered) {
                true => asked,
                false => state.now,
            };
            state.as_of = state.as_of.max(counted);
        }
    }

    fn hear_renewed(&self, state: &mut State) {
        let Some(renewed) = state.renewed.take() else {
            return;
        };
        if renewed.by != state.at && self.keep(Rule::FormerExtendsNothing) {
            return;
        }
        if !renewed.is_ours {
            state.valid_until = 0;
        }
        let counted = match self.keep(Rule::CountsFromTheWord) {
            true => renewed.sent.min(state.as_of),
            false => renewed.sent,
        };
        if state.is_held() {
            let until = counted + LEASE - MARGIN;
            state.valid_until = state.valid_until.max(until);
        }
    }
}

impl Model for Sentinels {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            is_replaced: false,
            copied_until: 0,
            quarantine_until: None,
            at: Server::Former,
            as_of: 0,
            valid_until: LEASE - MARGIN,
            word: None,
            renewed: None,
            is_granted: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.is_granted {
            return;
        }
        if state.now < END {
            actions.push(Action::Tick);
        }
        if state.is_replaced {
            actions.push(Action::Other);
        } else {
            actions.extend([true, false].map(|has_lock| Action::Replace { has_lock }));
        }
        actions.push(match state.word {
            Some(_) => Action::HearSentinels,
            None => Action::AskSentinels,
        });
        match state.renewed {
            Some(_) => actions.push(Action::HearRenewed),
            None if state.is_held() => actions.push(Action::Renew),
            None => {}
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => state.now += 1,
            Action::Replace { has_lock } => {
                state.is_replaced = true;
                // Of the last renewal that reached it; the former's later ones do not.
                state.copied_until = if has_lock { state.now + LEASE } else { 0 };
            }
            Action::AskSentinels => state.word = Some((state.now, state.is_replaced)),
            Action::HearSentinels => self.hear_sentinels(&mut state),
            Action::Renew => {
                let is_there = state.now < state.copied_until;
                let is_ours = state.at == Server::Former || is_there;
                if state.at == Server::New && is_there {
                    state.copied_until = state.now + LEASE;
                }
                state.renewed = Some(Renewed {
                    by: state.at,
                    sent: state.now,
                    is_ours,
                });
            }
            Action::HearRenewed => self.hear_renewed(&mut state),
            Action::Other => self.other(&mut state),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EXCLUSION, |_, state: &State| {
                !(state.is_granted && state.is_held())
            }),
            Property::sometimes(BOTH_HOLD, |_, state: &State| state.is_granted),
            Property::sometimes(FOLLOWS, |_, state: &State| {
                state.at == Server::New && state.is_held() && state.now > LEASE
            }),
        ]
    }
}

#[test]
fn a_former_master_that_goes_on_makes_no_second_guard() {
    let checker = Sentinels { without: None }.checker().spawn_bfs().join();
    checker.assert_properties();
}

#[test]
fn each_rule_about_sentinels_is_needed() {
    for rule in [
        Rule::CountsFromTheWord,
        Rule::AskedAndNotAnswered,
        Rule::FormerExtendsNothing,
        Rule::Quarantine,
    ] {
        let world = Sentinels {
            without: Some(rule),
        };
        assert!(is_broken(world, EXCLUSION), "{rule:?}");
    }
}
