//! Readers beside a writer: a lock that readers hold, its set of shares, and a slot that is moved to a server whose clock
//! differs and back, in every order of events of two readers and a writer. That answers come late, that messages are
//! doubled, and what a server may have forgotten, is in the other worlds: a share and a lock are the same there.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};

use crate::rules::{LEASE, MARGIN, PATIENCE};

/// Who asks: two readers and a writer.
const WRITER: usize = 2;

/// There and back.
const MOVES: u8 = 2;

/// Until when the world is looked at.
const END: u8 = LEASE + 2;

/// A rule that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A lock that readers hold lasts as long as its longest share.
    LockLasts,
    /// A set that is missing says nothing of its shares.
    SetIsThere,
    /// The times of another server's clock say nothing.
    ThisClock,
    /// A lock with shares that were granted or renewed elsewhere is never again one of a single clock.
    ClocksMix,
    /// A release removes the lock only with its last share.
    LastRemoves,
}

pub(crate) mod promise {
    pub(crate) const EXCLUSION: &str = "no writer is valid beside a reader";
    /// No promises: the world would be too small otherwise.
    pub(crate) const TOGETHER: &str = "two readers are valid together";
    pub(crate) const EARLY: &str = "a writer takes a lock whose shares have ended before it does";
    pub(crate) const ELSEWHERE: &str = "a writer is granted a lock of readers that was moved";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Message {
    Acquire { client: usize, sent: u8 },
    Renew { client: usize, sent: u8 },
    Release { client: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lock {
    is_read: bool,
    /// In true time: what is left of it moves with it.
    ends: u8,
    /// By which server's clock all of its shares end, if it is one.
    clock_of: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    now: u8,
    /// By how much the clocks of the two servers are ahead.
    ahead: [u8; 2],
    /// Which of them has the lock.
    server: usize,
    moves: u8,
    /// Whether the set is on its way, before the lock.
    set_is_away: bool,
    lock: Option<Lock>,
    /// Each share, by when it ends on the clock of the server that wrote that.
    shares: BTreeMap<usize, u8>,
    /// Until when each guard is valid, once it was granted.
    guards: [Option<u8>; 3],
    has_asked: [bool; 3],
    on_the_way: BTreeSet<Message>,
    was_early: bool,
    was_elsewhere: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Tick,
    Ask(usize),
    Renew(usize),
    Release(usize),
    Arrive(Message),
    MoveSet,
    MoveLock,
}

pub(crate) struct Readers {
    without: Option<Rule>,
}

impl Readers {
    pub(crate) const fn new(without: Option<Rule>) -> Self {
        Self { without }
    }

    fn keep(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}

impl State {
    fn clock(&self) -> u8 {
        self.now + self.ahead[self.server]
    }

    fn is_valid(&self, client: usize) -> bool {
        self.guards[client].is_some_and(|until| self.now < until)
    }

    fn grant(&mut self, client: usize, sent: u8) {
        self.guards[client] = self.guards[client].max(Some(sent + LEASE - MARGIN));
    }

    fn lasts(&mut self, rules: &Readers) {
        let ends = self.now + LEASE;
        if let Some(lock) = &mut self.lock
            && rules.keep(Rule::LockLasts)
        {
            lock.ends = lock.ends.max(ends);
        }
    }

    /// A share is about to end by the clock of this server.
    fn mixes(&mut self, rules: &Readers) {
        if let Some(lock) = &mut self.lock
            && lock.clock_of != Some(self.server)
            && rules.keep(Rule::ClocksMix)
        {
            lock.clock_of = None;
        }
    }

    /// Whether no share of this lock lasts any more, as far as the server can tell.
    fn is_over(&self, rules: &Readers, lock: Lock) -> bool {
        if self.set_is_away {
            return !rules.keep(Rule::SetIsThere);
        }
        let is_ours = lock.clock_of == Some(self.server) || !rules.keep(Rule::ThisClock);
        let clock = self.clock();
        self.shares.is_empty() || is_ours && self.shares.values().all(|ends| *ends <= clock)
    }

    fn acquire_share(&mut self, rules: &Readers, client: usize, sent: u8) {
        match self.lock {
            Some(lock) if !lock.is_read => return,
            Some(_) => self.mixes(rules),
            None => {
                self.shares.clear();
                self.lock = Some(Lock {
                    is_read: true,
                    ends: self.now + LEASE,
                    clock_of: Some(self.server),
                });
            }
        }
        self.shares.insert(client, self.clock() + LEASE);
        self.lasts(rules);
        self.grant(client, sent);
    }

    fn acquire_lock(&mut self, rules: &Readers, sent: u8) {
        if let Some(lock) = self.lock {
            if !lock.is_read || !self.is_over(rules, lock) {
                return;
            }
            self.was_early = true;
        }
        self.was_elsewhere |= self.moves > 0 && !self.shares.is_empty();
        self.lock = Some(Lock {
            is_read: false,
            ends: self.now + LEASE,
            clock_of: None,
        });
        self.grant(WRITER, sent);
    }

    fn renew_share(&mut self, rules: &Readers, client: usize, sent: u8) {
        let is_read = self.lock.is_some_and(|lock| lock.is_read);
        if !self.shares.contains_key(&client) || !is_read {
            return;
        }
        self.mixes(rules);
        self.shares.insert(client, self.clock() + LEASE);
        self.lasts(rules);
        if self.is_valid(client) {
            self.grant(client, sent);
        }
    }

    fn release_share(&mut self, rules: &Readers, client: usize) {
        if self.shares.remove(&client).is_none() {
            return;
        }
        if let Some(lock) = self.lock
            && lock.is_read
            && (self.is_over(rules, lock) || !rules.keep(Rule::LastRemoves))
        {
            self.lock = None;
        }
    }

    /// Forgets what has no effect any more, so that states that differ in nothing else are one.
    fn settle(&mut self) {
        let now = self.now;
        for guard in &mut self.guards {
            guard.take_if(|until| *until <= now);
        }
        if self.lock.is_none_or(|lock| !lock.is_read) {
            // The first share that is granted clears them, and none of them is renewed before.
            self.shares.clear();
        }
        let (shares, lock) = (&self.shares, self.lock);
        self.on_the_way.retain(|message| match message {
            // It comes too late.
            Message::Acquire { sent, .. } => now <= sent + PATIENCE,
            Message::Renew { client, sent } => {
                now <= sent + PATIENCE && shares.contains_key(client)
            }
            Message::Release { client: WRITER } => lock.is_some_and(|lock| !lock.is_read),
            Message::Release { client } => shares.contains_key(client),
        });
    }

    fn arrive(&mut self, rules: &Readers, message: Message) {
        match message {
            Message::Acquire { sent, .. } | Message::Renew { sent, .. }
                if self.now > sent + PATIENCE => {}
            Message::Acquire { client, sent } if client == WRITER => self.acquire_lock(rules, sent),
            Message::Release { client } if client == WRITER => {
                self.lock.take_if(|lock| !lock.is_read);
            }
            // Refused, and sent again.
            _ if self.set_is_away => {}
            Message::Acquire { client, sent } => self.acquire_share(rules, client, sent),
            Message::Renew { client, sent } => self.renew_share(rules, client, sent),
            Message::Release { client } => self.release_share(rules, client),
        }
    }
}

impl Model for Readers {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let world = |ahead| State {
            now: 0,
            ahead,
            server: 0,
            moves: 0,
            set_is_away: false,
            lock: None,
            shares: BTreeMap::new(),
            guards: [None; 3],
            has_asked: [false; 3],
            on_the_way: BTreeSet::new(),
            was_early: false,
            was_elsewhere: false,
        };
        vec![world([0, LEASE]), world([LEASE, 0])]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < END {
            actions.push(Action::Tick);
        }
        for client in 0..=WRITER {
            if !state.has_asked[client] {
                actions.push(Action::Ask(client));
            }
            if state.is_valid(client) {
                actions.push(Action::Release(client));
                if client != WRITER {
                    actions.push(Action::Renew(client));
                }
            }
        }
        for message in &state.on_the_way {
            actions.push(Action::Arrive(*message));
        }
        if state.moves < MOVES && state.lock.is_some() {
            actions.push(match state.set_is_away {
                false => Action::MoveSet,
                true => Action::MoveLock,
            });
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let sent = state.now;
        match action {
            Action::Tick => {
                state.now += 1;
                let now = state.now;
                state.lock.take_if(|lock| lock.ends <= now);
            }
            Action::Ask(client) => {
                state.has_asked[client] = true;
                state.on_the_way.insert(Message::Acquire { client, sent });
            }
            Action::Renew(client) => {
                state.on_the_way.insert(Message::Renew { client, sent });
            }
            Action::Release(client) => {
                state.guards[client] = None;
                state.on_the_way.insert(Message::Release { client });
            }
            Action::Arrive(message) => {
                state.on_the_way.remove(&message);
                state.arrive(self, message);
            }
            Action::MoveSet => state.set_is_away = true,
            Action::MoveLock => {
                state.set_is_away = false;
                state.server = 1 - state.server;
                state.moves += 1;
            }
        }
        state.settle();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(promise::EXCLUSION, |_, state: &State| {
                !state.is_valid(WRITER) || !(0..WRITER).any(|reader| state.is_valid(reader))
            }),
            Property::sometimes(promise::TOGETHER, |_, state: &State| {
                (0..WRITER).all(|reader| state.is_valid(reader))
            }),
            Property::sometimes(promise::EARLY, |_, state: &State| state.was_early),
            Property::sometimes(promise::ELSEWHERE, |_, state: &State| state.was_elsewhere),
        ]
    }
}
