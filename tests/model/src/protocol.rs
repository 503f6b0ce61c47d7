//! The world: what can happen, and what is promised.

use std::collections::BTreeSet;

use stateright::{Model, Property};

use crate::client::{Client, Phase};
use crate::rules::{AHEAD, LEASE, PATIENCE, Rule};
use crate::server::{Data, Note, Server};

/// Where the clock of the first server begins.
const EPOCH: u8 = 10;

pub(crate) mod promise {
    pub(crate) const EXCLUSION: &str = "at most one guard is valid";
    pub(crate) const TOKENS: &str = "a later holder has a greater token";
    pub(crate) const OWN: &str = "a request touches only what is its owner's";
    pub(crate) const NOT_STUCK: &str = "nothing is refused or kept for longer than a lease";
    pub(crate) const ONE_TERM: &str = "a guard that has ended stays ended";
    /// Not a promise: the world would be too small otherwise.
    pub(crate) const BOTH_HOLD: &str = "both clients hold the lock, one after the other";
}

/// What the server goes through, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    Lives,
    StartsEmpty,
    StartsFromOldData,
    IsReplaced,
}

/// Who asked: what the server compares, and, for the promises alone, which client it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub value: u8,
    pub client: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Message {
    Acquire {
        owner: Owner,
        not_after: u8,
    },
    Renew {
        owner: Owner,
        not_after: u8,
        asked_at: u8,
    },
    Release {
        owner: Owner,
    },
    Granted {
        owner: Owner,
        token: u8,
    },
    Renewed {
        owner: Owner,
        asked_at: u8,
        is_ours: bool,
    },
}

impl Message {
    const fn asks(&self) -> Option<Owner> {
        match self {
            Self::Acquire { owner, .. } => Some(*owner),
            _ => None,
        }
    }

    /// Whether it was sent before this tick of the server.
    const fn was_there(&self, clock: u8) -> bool {
        match self {
            Self::Acquire { not_after, .. } | Self::Renew { not_after, .. } => {
                *not_after < clock + PATIENCE
            }
            _ => false,
        }
    }

    const fn answers(&self) -> Option<u8> {
        match self {
            Self::Granted { owner, .. } | Self::Renewed { owner, .. } => Some(owner.client),
            _ => None,
        }
    }
}

/// What was seen, which only the promises look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// The newest token of a guard.
    pub newest: u8,
    pub holders: u8,
    /// When the server was first asked since it is another one.
    pub looked: Option<u8>,
    pub token_went_back: bool,
    pub touched_anothers: bool,
    pub is_stuck: bool,
    pub was_taken_back: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    now: u8,
    server: Server,
    /// What a restart or a replica goes on from.
    copy: Data,
    clients: [Client; 2],
    on_the_way: BTreeSet<Message>,
    /// How many more messages are doubled, stalls and ticks that a clock loses there can be.
    mishaps: u8,
    has_slowed: bool,
    has_copied: bool,
    has_failed: bool,
    seen: Seen,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Tick,
    /// A tick that the clock of the first client loses.
    TickLost,
    Ask(usize),
    Renew(usize),
    Release(usize),
    Arrive(Message),
    /// It arrives, and a copy of it later.
    ArriveTwice(Message),
    /// The server reads its clock, stalls for a tick, and goes on.
    ArriveStalled(Message),
    /// The data are saved, or reach the replica.
    Copy,
    Restart,
    /// The replica takes over; its clock is so much ahead of the true time.
    Promote(u8),
}

pub(crate) struct Protocol {
    without: Option<Rule>,
    scenario: Scenario,
}

impl Protocol {
    pub(crate) const fn new(scenario: Scenario) -> Self {
        Self {
            without: None,
            scenario,
        }
    }

    pub(crate) const fn without(rule: Rule, scenario: Scenario) -> Self {
        Self {
            without: Some(rule),
            scenario,
        }
    }

    /// Whether they keep to the rule.
    pub(crate) fn keep(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// How often a client asks: the second finds out what a first look at another server changes.
    const fn asks(&self, client: usize) -> u8 {
        match self.scenario {
            Scenario::StartsFromOldData | Scenario::IsReplaced if client == 1 => 2,
            _ => 1,
        }
    }

    /// What goes wrong besides the fault.
    const fn mishaps(&self) -> u8 {
        match self.scenario {
            Scenario::Lives => 2,
            Scenario::StartsEmpty => 1,
            Scenario::StartsFromOldData | Scenario::IsReplaced => 0,
        }
    }

    /// Until when the world is looked at: a lease to forget, one to be granted after, one to lose.
    const fn end(&self) -> u8 {
        2 * LEASE
    }
}

impl State {
    fn clock(&self) -> u8 {
        self.now + self.server.ahead
    }

    fn tick(&mut self) {
        self.now += 1;
        self.server.has_answered = false;
    }

    fn send(&mut self, message: Option<Message>) {
        self.on_the_way.extend(message);
    }

    fn arrive(&mut self, rules: &Protocol, message: &Message, clock: u8) {
        if let Some(client) = message.answers() {
            let client = &mut self.clients[usize::from(client)];
            return client.hear(rules, message, self.now, &mut self.seen);
        }
        self.server.has_answered = true;
        let answer = self.server.answer(rules, message, clock, &mut self.seen);
        self.send(answer);
    }

    /// Forgets what has no effect any more, so that states that differ in nothing else are one.
    fn settle(&mut self, rules: &Protocol) {
        for client in &mut self.clients {
            if client.phase == Phase::Idle {
                client.slow = 0;
            }
        }
        if self.mishaps == 0 {
            self.server.has_answered = true;
        }
        let clock = self.clock();
        // The clock of one that takes over can be behind: late is early there.
        let may_go_back = rules.scenario == Scenario::IsReplaced && !self.has_failed;
        let (clients, lock) = (&self.clients, &self.server.data.lock);
        let asked: Vec<Owner> = self.on_the_way.iter().filter_map(Message::asks).collect();
        let copied = &self.copy.lock;
        self.on_the_way.retain(|message| match message {
            Message::Granted { owner, .. } | Message::Renewed { owner, .. } => {
                clients[usize::from(owner.client)].owner() == Some(*owner)
            }
            Message::Acquire { not_after, .. } | Message::Renew { not_after, .. } => {
                clock <= not_after + 1 || may_go_back || !rules.keep(Rule::NotAfter)
            }
            Message::Release { owner } => {
                let mut there = [lock, copied].into_iter().flatten();
                there.any(|lock| lock.owner.value == owner.value)
                    || asked.iter().any(|asked| asked.value == owner.value)
                    || !rules.keep(Rule::ReleaseCompares)
            }
        });
    }

    /// Another server, or the same one that knows no better.
    fn becomes(&mut self, data: Data, ahead: u8) {
        self.has_failed = true;
        self.seen.looked = None;
        self.server.run += 1;
        self.server.ahead = ahead;
        self.server.has_answered = false;
        self.server.data = data;
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = State {
            now: 0,
            server: Server {
                run: 1,
                ahead: EPOCH,
                // Long ago.
                started: 0,
                was_replica: false,
                has_answered: false,
                data: Data::default(),
            },
            copy: Data::default(),
            clients: [Client::new(), Client::new()],
            on_the_way: BTreeSet::new(),
            mishaps: self.mishaps(),
            has_slowed: false,
            has_copied: false,
            has_failed: false,
            seen: Seen::default(),
        };
        if self.scenario != Scenario::IsReplaced {
            return vec![first];
        }
        // Of one that has taken over before, and whose replica knows that.
        let mut later = first.clone();
        let note = Note::of(1, EPOCH, EPOCH + 3 * AHEAD);
        later.copy.note = Some(note);
        // The replica lacks a grant already.
        later.server.data.note = Some(Note::of(1, EPOCH, EPOCH + 3 * AHEAD + 1));
        // Its replica was the master before, and its note of then is all that it has.
        let mut again = first.clone();
        again.copy.note = Some(Note::of(2, EPOCH, EPOCH));
        vec![first, later, again]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < self.end() {
            actions.push(Action::Tick);
            if state.mishaps > 0 && !state.has_slowed {
                actions.push(Action::TickLost);
            }
        }
        for (at, client) in state.clients.iter().enumerate() {
            match client.phase {
                Phase::Idle if client.asked < self.asks(at) => actions.push(Action::Ask(at)),
                Phase::Idle => {}
                Phase::Asking { .. } => actions.push(Action::Release(at)),
                Phase::Holding { .. } => {
                    actions.push(Action::Release(at));
                    // What renewals are for does not depend on which other server it is.
                    if self.scenario != Scenario::IsReplaced {
                        actions.push(Action::Renew(at));
                    }
                }
            }
        }
        for message in &state.on_the_way {
            actions.push(Action::Arrive(message.clone()));
            if message.answers().is_none() {
                if state.mishaps > 0 {
                    actions.push(Action::ArriveTwice(message.clone()));
                }
                if message.was_there(state.clock())
                    && state.mishaps > 0
                    && !state.server.has_answered
                {
                    actions.push(Action::ArriveStalled(message.clone()));
                }
            }
        }
        if state.has_failed {
            return;
        }
        if matches!(
            self.scenario,
            Scenario::StartsFromOldData | Scenario::IsReplaced
        ) && !state.has_copied
        {
            actions.push(Action::Copy);
        }
        match self.scenario {
            Scenario::Lives => {}
            Scenario::StartsEmpty => actions.push(Action::Restart),
            Scenario::StartsFromOldData => actions.push(Action::Restart),
            Scenario::IsReplaced => {
                actions.extend([EPOCH - AHEAD, EPOCH + 1].map(Action::Promote));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let (now, clock) = (state.now, state.clock());
        match action {
            Action::Tick => state.tick(),
            Action::TickLost => {
                state.clients[0].slow += 1;
                state.has_slowed = true;
                state.mishaps -= 1;
                state.tick();
            }
            Action::Ask(at) => {
                let client = u8::try_from(at).ok()?;
                let ask = state.clients[at].ask(self, client, now, clock);
                state.send(Some(ask));
            }
            Action::Renew(at) => {
                let renew = state.clients[at].renew(now, clock)?;
                state.send(Some(renew));
            }
            Action::Release(at) => {
                let release = state.clients[at].release(now)?;
                state.send(Some(release));
            }
            Action::Arrive(message) => {
                state.on_the_way.remove(&message);
                state.arrive(self, &message, clock);
            }
            Action::ArriveTwice(message) => {
                state.mishaps -= 1;
                state.arrive(self, &message, clock);
            }
            Action::ArriveStalled(message) => {
                state.on_the_way.remove(&message);
                state.mishaps -= 1;
                state.arrive(self, &message, clock - 1);
            }
            Action::Copy => {
                state.copy = state.server.data.clone();
                state.has_copied = true;
            }
            Action::Restart => {
                let data = std::mem::take(&mut state.copy);
                state.becomes(data, EPOCH);
                state.server.started = clock;
            }
            Action::Promote(ahead) => {
                let data = std::mem::take(&mut state.copy);
                state.becomes(data, ahead);
                state.server.was_replica = true;
            }
        }
        state.settle(self);
        Some(state)
    }

    /// More on the way at a time shows nothing new, and takes long.
    fn within_boundary(&self, state: &State) -> bool {
        let most = match self.scenario {
            Scenario::Lives => 3,
            _ => 2,
        };
        state.on_the_way.len() <= most
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(promise::EXCLUSION, |_, state: &State| {
                let valid = state
                    .clients
                    .iter()
                    .filter(|client| client.is_valid(state.now));
                valid.count() < 2
            }),
            Property::always(promise::TOKENS, |_, state: &State| {
                !state.seen.token_went_back
            }),
            Property::always(promise::OWN, |_, state: &State| {
                !state.seen.touched_anothers
            }),
            Property::always(promise::NOT_STUCK, |_, state: &State| !state.seen.is_stuck),
            Property::always(promise::ONE_TERM, |_, state: &State| {
                !state.seen.was_taken_back
            }),
            Property::sometimes(promise::BOTH_HOLD, |_, state: &State| {
                state.seen.holders == 3
            }),
        ]
    }
}
