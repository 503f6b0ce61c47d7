//! Processes with different leases at a server that forgets: two with the longest, of which one holds the lock, and others
//! with a shorter one, or without a quarantine, that ask the same server in between. What is asked is done immediately: of
//! late messages the other worlds have enough.

use stateright::{Checker, Model, Property};

use super::is_broken;

/// The longest lease, in ticks.
const LONG: u8 = 4;
/// That of others.
const SHORT: u8 = 2;
/// Without a quarantine.
const NONE: u8 = 0;
/// Where the clock begins; the first server was started long ago.
const EPOCH: u8 = 10;
/// Until when the world is looked at.
const END: u8 = EPOCH + 3 * LONG;

const EXCLUSION: &str = "at most one guard is valid";
const NOT_STUCK: &str = "nothing is refused for longer than the longest lease";
/// Not promises: the world would be too small otherwise.
const GRANTS: &str = "another is granted what was forgotten";
const WAITS: &str = "one with a longer lease comes when the shorter quarantine is over";

/// A rule that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The length that is noted counts for a client without a quarantine as well.
    KnownLengthCounts,
    /// A client with a longer lease lengthens what is noted.
    LongerLengthens,
    /// What it has to wait for began with the quarantine that is noted, and not with the server.
    BeganWithTheNoted,
}

/// What becomes of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fate {
    /// It starts again with its note, and lacks the lock.
    Keeps,
    /// It starts again with nothing.
    Loses,
    /// A replica takes its place that has nothing, and was started long ago.
    IsReplaced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Note {
    of: u8,
    till: u8,
    length: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    run: u8,
    started: u8,
    fate: Option<Fate>,
    note: Option<Note>,
    /// Until when the server has the lock.
    locked_until: u8,
    /// Until when its holder takes it for held.
    valid_until: u8,
    /// Whether a process with the longest lease has asked since all was lost: before that nothing can be known.
    is_known: bool,
    /// When this server was asked first.
    looked: Option<u8>,
    is_granted: bool,
    is_stuck: bool,
    has_waited: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    Renew,
    Suffer(Fate),
    /// A process with this quarantine asks for another lock.
    Look(u8),
    /// It asks for the lock.
    Ask(u8),
}

struct Leases {
    without: Option<Rule>,
}

impl Leases {
    fn keep(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Reads the note and writes it, for a client with this quarantine; gives until when nothing is granted.
    fn look(&self, state: &mut State, own: u8) -> u8 {
        let now = state.now;
        let noted = state.note.map_or(0, |note| note.length);
        let length = match own {
            NONE if !self.keep(Rule::KnownLengthCounts) => NONE,
            _ => own.max(noted),
        };
        let whole = now + length;
        let till = match state.note {
            Some(note) if note.of != state.run => whole,
            Some(note) if length > noted && self.keep(Rule::LongerLengthens) => {
                let is_said = noted > NONE && self.keep(Rule::BeganWithTheNoted);
                let began = if is_said {
                    note.till - noted
                } else {
                    state.started
                };
                state.has_waited |= note.till <= now && now < began + length;
                note.till.max(began + length)
            }
            Some(note) => note.till,
            None if state.fate == Some(Fate::IsReplaced) => whole,
            None => state.started + length,
        };
        let till = till.min(whole);
        state.note = Some(Note {
            of: state.run,
            till,
            length,
        });
        state.is_known |= own == LONG;
        let looked = *state.looked.get_or_insert(now);
        state.is_stuck |= now < till && looked + LONG < now;
        till
    }

    fn ask(&self, state: &mut State, own: u8) {
        let till = self.look(state, own);
        state.is_granted = till <= state.now && state.locked_until <= state.now;
    }
}

impl State {
    fn suffer(&mut self, fate: Fate) {
        self.fate = Some(fate);
        self.run += 1;
        self.locked_until = 0;
        self.looked = None;
        if fate != Fate::IsReplaced {
            self.started = self.now;
        }
        if fate != Fate::Keeps {
            self.note = None;
            self.is_known = false;
        }
    }

    fn renew(&mut self) {
        // What is lost stays lost.
        if self.locked_until > self.now {
            self.locked_until = self.now + LONG;
            self.valid_until = self.locked_until;
        } else {
            self.valid_until = 0;
        }
    }
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: EPOCH,
            run: 0,
            started: 0,
            fate: None,
            note: Some(Note {
                of: 0,
                till: LONG,
                length: LONG,
            }),
            locked_until: EPOCH + LONG,
            valid_until: EPOCH + LONG,
            is_known: true,
            looked: None,
            is_granted: false,
            is_stuck: false,
            has_waited: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.is_granted {
            return;
        }
        if state.now < END {
            actions.push(Action::Tick);
        }
        if state.now < state.valid_until {
            actions.push(Action::Renew);
        }
        if state.fate.is_none() {
            let fates = [Fate::Keeps, Fate::Loses, Fate::IsReplaced];
            actions.extend(fates.map(Action::Suffer));
        }
        for own in [LONG, SHORT, NONE] {
            // One without a quarantine does not say when what the next has to wait for began.
            let says_when = own > NONE || state.fate != Some(Fate::IsReplaced);
            if state.is_known || says_when {
                actions.push(Action::Look(own));
            }
            if state.is_known || own == LONG {
                actions.push(Action::Ask(own));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => state.now += 1,
            Action::Renew => state.renew(),
            Action::Suffer(fate) => state.suffer(fate),
            Action::Look(own) => {
                self.look(&mut state, own);
            }
            Action::Ask(own) => self.ask(&mut state, own),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EXCLUSION, |_, state: &State| {
                !(state.is_granted && state.now < state.valid_until)
            }),
            Property::always(NOT_STUCK, |_, state: &State| !state.is_stuck),
            Property::sometimes(GRANTS, |_, state: &State| {
                state.is_granted && state.fate.is_some()
            }),
            Property::sometimes(WAITS, |_, state: &State| state.has_waited),
        ]
    }
}

#[test]
fn the_longest_lease_counts_after_a_loss_whichever_process_asks_first() {
    let checker = Leases { without: None }.checker().spawn_bfs().join();
    checker.assert_properties();
}

#[test]
fn each_rule_about_different_leases_is_needed() {
    for rule in [
        Rule::KnownLengthCounts,
        Rule::LongerLengthens,
        Rule::BeganWithTheNoted,
    ] {
        let world = Leases {
            without: Some(rule),
        };
        assert!(is_broken(world, EXCLUSION), "{rule:?}");
    }
}
