//! Readers beside writers: shares of one lock, their ends by the clocks of servers, the places of writers that wait, and
//! what a restart, a fail-over or the move of a slot makes of them, in every order of events of two readers and a writer.
//! Requests are late, and answers are lost.
//!
//! Times in the set of readers are data, which go from server to server as they are. The end of the lock is the server's:
//! a replica has it by the clock of its master, and the move of a slot takes along what is left.

use std::collections::BTreeMap;

use stateright::{Checker, Model, Property};

use super::is_broken;

/// How long a lock, a share and a place stay without a renewal, in ticks.
const LEASE: u8 = 2;
/// How long the server takes a request after it was sent.
const PATIENCE: u8 = 1;
/// Until when the world is looked at.
const END: u8 = 2 * LEASE + 1;
/// Where the clock of the first server begins, and by how much those of others differ: more than a lease.
const EPOCH: u8 = 10;
const AHEAD: u8 = LEASE + 2;

/// Of a reader that is gone.
const LEFT: u8 = u8::MAX;

const EXCLUSION: &str = "no writer is valid beside a valid reader";
const LET_IN: &str = "a server keeps readers out for a writer that is gone for a lease at most";
/// Not promises: the world would be too small otherwise.
const TOGETHER: &str = "readers hold the lock together";
const WRITES: &str = "a writer is granted the lock after a reader";
const GOES_ON: &str = "a reader goes on at another server";

/// A rule that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The lock lasts as long as each of its shares.
    LockLasts,
    /// A release removes the lock only where no share is left.
    LastRemoves,
    /// A lock is over when all its shares have ended by the clock of this server, and no other.
    ByThisClock,
    /// Where shares are by several clocks the times of none end the lock.
    MixedSayNothing,
    /// Until a longest lease after the first of them was by this clock.
    LongestLease,
    /// A set that is missing has not ended.
    MissingSaysNothing,
    /// A server that may have forgotten shares grants nothing, and removes nothing, for one lease.
    Quarantine,
    /// A place is not believed for longer than a lease after it was seen.
    PlacesBounded,
}

/// What the server goes through, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    Lives,
    /// It starts again, from data of an earlier time or from none.
    Restarts,
    /// Its replica takes over, which may lack the last of it.
    FailsOver,
    /// The same, where a writer has left its place behind, beside a reader.
    FailsOverLater,
    /// The slot is moved, the set of readers first.
    Moves,
}

/// By whose clock the shares are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum By {
    Server(u8),
    /// By this server's since then, and by those of others before.
    Since(u8, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lock {
    Written { owner: u8, until: u8 },
    Read { by: By, until: u8 },
}

/// What is in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Data {
    lock: Option<Lock>,
    /// When each ends, by owner.
    shares: BTreeMap<u8, u8>,
    place: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Acquire,
    Renew,
    Release,
    /// Gives back a place.
    Leave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Request {
    operation: Operation,
    owner: u8,
    sent: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Asking(u8),
    /// As this owner, until then.
    Holding(u8, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client {
    is_writer: bool,
    phase: Phase,
    asked: u8,
    has_renewed: bool,
    /// On its way to the server.
    request: Option<Request>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    clients: [Client; 3],
    server: u8,
    ahead: u8,
    data: Data,
    /// Until when nothing is granted.
    till: u8,
    /// The set of readers is at another node already.
    is_half_moved: bool,
    has_changed: bool,
    /// Since when readers were refused for a writer that is gone.
    kept_out: Option<u8>,
    is_stuck: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    Ask(usize),
    Renew(usize),
    Release(usize),
    /// The writer does not wait any longer.
    Leave(usize),
    /// The server does it, and its answer is there: a lease counts from the sending, so that a late one shows nothing.
    Arrive(usize),
    /// The same, and the answer is lost.
    ArriveUnheard(usize),
    /// It never arrives.
    Lose(usize),
    Restart(Lacks),
    Promote(u8, Lacks),
    MoveSet,
    Move(u8),
}

/// What a copy of the data lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lacks {
    Nothing,
    /// The share that was granted last.
    TheLast,
    Everything,
}

struct Readers {
    without: Option<Rule>,
    scenario: Scenario,
}

const COPIES: [Lacks; 3] = [Lacks::Nothing, Lacks::TheLast, Lacks::Everything];

impl Lacks {
    fn copy(self, of: &Data) -> Data {
        let mut data = of.clone();
        match self {
            Self::Nothing => {}
            Self::TheLast => drop(data.shares.pop_last()),
            Self::Everything => data = Data::default(),
        }
        data
    }
}

impl Client {
    const fn new(is_writer: bool) -> Self {
        Self {
            is_writer,
            phase: Phase::Idle,
            asked: 0,
            has_renewed: false,
            request: None,
        }
    }

    const fn is_valid(&self, now: u8) -> bool {
        matches!(self.phase, Phase::Holding(_, until) if now < until)
    }
}

impl State {
    const fn clock(&self) -> u8 {
        self.now + self.ahead
    }

    fn writer(&self) -> &Client {
        &self.clients[2]
    }

    /// Whether the set is there, as the server has it.
    fn has_set(&self) -> bool {
        !self.is_half_moved && (!self.data.shares.is_empty() || self.data.place.is_some())
    }

    /// Another server, or the same that knows no better.
    fn becomes(&mut self, data: Data, ahead: u8) {
        self.has_changed = true;
        self.server += 1;
        self.ahead = ahead;
        self.data = data;
        self.is_half_moved = false;
        self.kept_out = None;
    }
}

impl Readers {
    fn keep(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// A place can outlast a quarantine and a lease.
    const fn end(&self) -> u8 {
        match self.scenario {
            Scenario::FailsOverLater => END,
            _ => END - 1,
        }
    }

    /// A server that may have forgotten something.
    fn takes_over(&self, state: &mut State, data: Data, ahead: u8) {
        state.becomes(data, ahead);
        if self.keep(Rule::Quarantine) {
            state.till = state.clock() + LEASE;
        }
    }

    /// What is left of the lock at this time.
    fn expire(state: &mut State) {
        let clock = state.clock();
        state.data.lock.take_if(|lock| match lock {
            Lock::Written { until, .. } | Lock::Read { until, .. } => *until <= clock,
        });
    }

    fn is_over(&self, state: &State, by: By) -> bool {
        if !state.has_set() {
            return !self.keep(Rule::MissingSaysNothing);
        }
        let Some(last) = state.data.shares.values().max() else {
            return true;
        };
        let is_ours = match by {
            By::Server(server) => server == state.server || !self.keep(Rule::ByThisClock),
            By::Since(..) => !self.keep(Rule::MixedSayNothing),
        };
        is_ours && *last <= state.clock()
    }

    /// A share is by this clock from now on.
    fn count(&self, state: &State, by: By, may_end: bool) -> By {
        let (server, clock) = (state.server, state.clock());
        match by {
            By::Server(of) if of == server => by,
            By::Since(of, since) if of == server && since <= clock => {
                let longest = match self.keep(Rule::LongestLease) {
                    true => LEASE,
                    false => 0,
                };
                match may_end && since + longest < clock {
                    true => By::Server(server),
                    false => by,
                }
            }
            _ => By::Since(server, clock),
        }
    }

    /// Adds or renews a share of a lock that readers hold.
    fn put(&self, state: &mut State, owner: u8, by: By) {
        let ends = state.clock() + LEASE;
        state.data.shares.insert(owner, ends);
        let Some(Lock::Read { until, .. }) = state.data.lock else {
            return;
        };
        let until = match self.keep(Rule::LockLasts) {
            true => until.max(ends),
            false => until,
        };
        state.data.lock = Some(Lock::Read { by, until });
    }

    /// Whether it is granted.
    fn acquire(&self, state: &mut State, owner: u8, is_writer: bool) -> bool {
        let clock = state.clock();
        if state.till > clock {
            return false;
        }
        if is_writer {
            let is_free = match state.data.lock {
                None => true,
                Some(Lock::Written { .. }) => false,
                Some(Lock::Read { by, .. }) => self.is_over(state, by),
            };
            let until = clock + LEASE;
            if is_free {
                state.data.lock = Some(Lock::Written { owner, until });
            } else if state.has_set() {
                state.data.place = Some(until);
            }
            return is_free;
        }
        if let Some(place) = state.data.place.as_mut()
            && self.keep(Rule::PlacesBounded)
        {
            *place = (*place).min(clock + LEASE);
        }
        if state.data.place.is_some_and(|place| place > clock) {
            if state.writer().phase == Phase::Idle {
                let since = *state.kept_out.get_or_insert(state.now);
                state.is_stuck |= state.now > since + LEASE;
            }
            return false;
        }
        match state.data.lock {
            Some(Lock::Written { .. }) => false,
            Some(Lock::Read { .. }) if !state.has_set() => false,
            Some(Lock::Read { by, .. }) => {
                let by = self.count(state, by, true);
                if by == By::Server(state.server) {
                    state.data.shares.retain(|_, ends| *ends > clock);
                }
                state.data.place = None;
                self.put(state, owner, by);
                true
            }
            None => {
                (state.data.shares, state.data.place) = (BTreeMap::new(), None);
                let (by, until) = (By::Server(state.server), clock + LEASE);
                state.data.lock = Some(Lock::Read { by, until });
                self.put(state, owner, by);
                true
            }
        }
    }

    fn renew(&self, state: &mut State, owner: u8) -> bool {
        let Some(Lock::Read { by, .. }) = state.data.lock else {
            return false;
        };
        if !state.data.shares.contains_key(&owner) {
            return false;
        }
        let by = self.count(state, by, false);
        self.put(state, owner, by);
        true
    }

    fn release(&self, state: &mut State, owner: u8) {
        match state.data.lock {
            Some(Lock::Written { owner: of, .. }) if of == owner => state.data.lock = None,
            _ if state.data.shares.remove(&owner).is_none() => {}
            Some(Lock::Read { by, .. }) => {
                let is_last = !state.has_set() || self.is_over(state, by);
                if is_last || !self.keep(Rule::LastRemoves) {
                    state.data.lock = None;
                }
            }
            _ => {}
        }
    }

    /// The server does it: whether it was granted or renewed. What has its keys in two places is not done; a writer's call
    /// does not name the set.
    fn arrive(&self, state: &mut State, request: Request, is_writer: bool) -> Option<bool> {
        let is_late = state.now > request.sent + PATIENCE;
        if state.is_half_moved && !(is_writer && request.operation == Operation::Acquire) {
            return None;
        }
        Self::expire(state);
        let owner = request.owner;
        match request.operation {
            Operation::Acquire if !is_late => Some(self.acquire(state, owner, is_writer)),
            Operation::Renew if !is_late => Some(self.renew(state, owner)),
            Operation::Acquire | Operation::Renew => None,
            Operation::Release => {
                self.release(state, owner);
                None
            }
            Operation::Leave => {
                state.data.place = None;
                None
            }
        }
    }

    /// A writer that is refused waits on, and a reader tries again.
    fn hear(state: &mut State, at: usize, request: Request, is_done: bool) {
        let (now, until) = (state.now, request.sent + LEASE);
        let client = &mut state.clients[at];
        match (request.operation, client.phase) {
            (Operation::Acquire, Phase::Asking(owner)) if is_done && now < until => {
                client.phase = Phase::Holding(owner, until);
            }
            // Which asks again, or not.
            (Operation::Acquire, _) if !client.is_writer => client.phase = Phase::Idle,
            (Operation::Renew, Phase::Holding(owner, held)) => {
                client.phase = match is_done && now < held {
                    true => Phase::Holding(owner, held.max(until)),
                    false => Phase::Idle,
                };
            }
            _ => {}
        }
    }

    /// How often a client asks.
    const fn asks(&self, at: usize) -> u8 {
        match self.scenario {
            Scenario::Restarts | Scenario::FailsOver => 1,
            _ if at == 0 => 2,
            _ => 1,
        }
    }
}

impl Model for Readers {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut first = State {
            now: 0,
            clients: [false, false, true].map(Client::new),
            server: 0,
            ahead: EPOCH,
            data: Data::default(),
            till: 0,
            is_half_moved: false,
            has_changed: false,
            kept_out: None,
            is_stuck: false,
        };
        if self.scenario == Scenario::FailsOverLater {
            let until = EPOCH + LEASE;
            first.clients[2].asked = self.asks(2);
            first.data = Data {
                lock: Some(Lock::Read {
                    by: By::Server(0),
                    until,
                }),
                shares: [(LEFT, until)].into(),
                place: Some(until),
            };
        }
        vec![first]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < self.end() {
            actions.push(Action::Tick);
        }
        for (at, client) in state.clients.iter().enumerate() {
            if let Some(request) = client.request {
                actions.push(Action::Arrive(at));
                // What is late does nothing, and a release has no answer.
                actions.push(match request.operation {
                    Operation::Acquire | Operation::Renew => Action::ArriveUnheard(at),
                    Operation::Release | Operation::Leave => Action::Lose(at),
                });
            }
            // The first reader shows what the second would.
            let comes_first = at != 1 || state.clients[0].asked > 0;
            let is_idle = client.request.is_none();
            match client.phase {
                _ if !is_idle => {}
                Phase::Idle | Phase::Asking(_) if client.asked < self.asks(at) && comes_first => {
                    actions.push(Action::Ask(at));
                }
                Phase::Holding(..) => {
                    actions.push(Action::Release(at));
                    if !client.has_renewed && !client.is_writer && client.is_valid(state.now) {
                        actions.push(Action::Renew(at));
                    }
                }
                Phase::Idle | Phase::Asking(_) => {}
            }
            if client.is_writer && is_idle && matches!(client.phase, Phase::Asking(_)) {
                actions.push(Action::Leave(at));
            }
        }
        if state.has_changed {
            return;
        }
        match self.scenario {
            Scenario::Lives => {}
            Scenario::Restarts => actions.extend(COPIES.map(Action::Restart)),
            // A restart shows the other copies.
            Scenario::FailsOver | Scenario::FailsOverLater => actions.extend([
                Action::Promote(EPOCH - AHEAD, Lacks::Nothing),
                Action::Promote(EPOCH + AHEAD, Lacks::TheLast),
            ]),
            Scenario::Moves if !state.is_half_moved => actions.push(Action::MoveSet),
            Scenario::Moves => {
                actions.extend([EPOCH - AHEAD, EPOCH + AHEAD].map(Action::Move));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = state.now;
        match action {
            Action::Tick => {
                state.now += 1;
                let now = state.now;
                for client in &mut state.clients {
                    // The end of a share shows what its release would.
                    if matches!(client.phase, Phase::Holding(_, until) if until <= now) {
                        client.phase = Phase::Idle;
                    }
                    // Late, it does nothing.
                    let late = |request: &mut Request| {
                        let is_try =
                            matches!(request.operation, Operation::Acquire | Operation::Renew);
                        is_try && now > request.sent + PATIENCE
                    };
                    if client.request.take_if(late).is_some()
                        && !client.is_writer
                        && matches!(client.phase, Phase::Asking(_))
                    {
                        client.phase = Phase::Idle;
                    }
                }
            }
            Action::Ask(at) => {
                let client = &mut state.clients[at];
                let owner = 3 * client.asked + u8::try_from(at).ok()?;
                client.asked += 1;
                client.has_renewed = false;
                client.phase = Phase::Asking(owner);
                client.request = Some(Request {
                    operation: Operation::Acquire,
                    owner,
                    sent: now,
                });
                if at == 2 {
                    state.kept_out = None;
                }
            }
            Action::Renew(at) | Action::Release(at) => {
                let client = &mut state.clients[at];
                let Phase::Holding(owner, _) = client.phase else {
                    return None;
                };
                let operation = match action {
                    Action::Renew(_) => Operation::Renew,
                    _ => Operation::Release,
                };
                client.has_renewed = true;
                if operation == Operation::Release {
                    client.phase = Phase::Idle;
                }
                client.request = Some(Request {
                    operation,
                    owner,
                    sent: now,
                });
            }
            Action::Leave(at) => {
                let client = &mut state.clients[at];
                client.phase = Phase::Idle;
                client.request = Some(Request {
                    operation: Operation::Leave,
                    owner: 0,
                    sent: now,
                });
            }
            Action::Arrive(at) | Action::ArriveUnheard(at) => {
                let request = state.clients[at].request.take()?;
                let is_writer = state.clients[at].is_writer;
                let is_done = self.arrive(&mut state, request, is_writer);
                if let Some(is_done) = is_done {
                    let is_done = is_done && action == Action::Arrive(at);
                    if is_done || request.operation == Operation::Acquire {
                        Self::hear(&mut state, at, request, is_done);
                    }
                }
            }
            Action::Lose(at) => state.clients[at].request = None,
            Action::Restart(lacks) => {
                let (data, ahead) = (lacks.copy(&state.data), state.ahead);
                self.takes_over(&mut state, data, ahead);
            }
            Action::Promote(ahead, lacks) => {
                let data = lacks.copy(&state.data);
                self.takes_over(&mut state, data, ahead);
            }
            Action::MoveSet => state.is_half_moved = true,
            Action::Move(ahead) => {
                let mut data = state.data.clone();
                Self::expire(&mut state);
                data.lock = state.data.lock.map(|lock| {
                    let moved = |until: u8| until - state.ahead + ahead;
                    match lock {
                        Lock::Written { owner, until } => {
                            let until = moved(until);
                            Lock::Written { owner, until }
                        }
                        Lock::Read { by, until } => {
                            let until = moved(until);
                            Lock::Read { by, until }
                        }
                    }
                });
                state.becomes(data, ahead);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EXCLUSION, |_, state: &State| {
                let [one, other, writer] = state.clients.each_ref();
                let reads = one.is_valid(state.now) || other.is_valid(state.now);
                !(reads && writer.is_valid(state.now))
            }),
            Property::always(LET_IN, |_, state: &State| !state.is_stuck),
            Property::sometimes(TOGETHER, |_, state: &State| {
                let [one, other, _] = state.clients.each_ref();
                one.is_valid(state.now) && other.is_valid(state.now)
            }),
            Property::sometimes(WRITES, |model: &Self, state: &State| {
                let writes = state.clients[0].asked > 0 && state.writer().is_valid(state.now);
                writes || model.scenario == Scenario::FailsOverLater
            }),
            Property::sometimes(GOES_ON, |model: &Self, state: &State| {
                let one = &state.clients[0];
                let goes_on = one.is_valid(state.now) && one.has_renewed;
                goes_on && (state.has_changed || model.scenario == Scenario::Lives)
            }),
        ]
    }
}

fn holds(scenario: Scenario) {
    let without = None;
    let checker = Readers { without, scenario }.checker().spawn_bfs().join();
    checker.assert_properties();
}

#[test]
fn no_writer_is_valid_beside_a_reader() {
    holds(Scenario::Lives);
}

#[test]
fn no_writer_is_valid_beside_a_reader_when_the_server_starts_again() {
    holds(Scenario::Restarts);
}

#[test]
fn no_writer_is_valid_beside_a_reader_when_a_replica_takes_over() {
    holds(Scenario::FailsOver);
}

#[test]
fn a_writer_that_is_gone_lets_readers_in_when_a_replica_takes_over_whose_clock_is_behind() {
    holds(Scenario::FailsOverLater);
}

#[test]
fn no_writer_is_valid_beside_a_reader_when_the_slot_is_moved() {
    holds(Scenario::Moves);
}

#[test]
fn each_rule_about_readers_is_needed() {
    for (rule, scenario, broken) in [
        (Rule::LockLasts, Scenario::Lives, EXCLUSION),
        (Rule::LastRemoves, Scenario::Lives, EXCLUSION),
        (Rule::ByThisClock, Scenario::Moves, EXCLUSION),
        (Rule::MixedSayNothing, Scenario::Moves, EXCLUSION),
        (Rule::LongestLease, Scenario::Moves, EXCLUSION),
        (Rule::MissingSaysNothing, Scenario::Moves, EXCLUSION),
        (Rule::Quarantine, Scenario::Restarts, EXCLUSION),
        (Rule::Quarantine, Scenario::FailsOver, EXCLUSION),
        (Rule::PlacesBounded, Scenario::FailsOverLater, LET_IN),
    ] {
        let without = Some(rule);
        let world = Readers { without, scenario };
        assert!(is_broken(world, broken), "{rule:?} {scenario:?}");
    }
}
