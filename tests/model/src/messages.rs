//! Who is woken by a release: marks that refused clients leave, messages, and subscriptions, in every order of
//! events of three clients that want one lock. Locks that end without a release are asked for when they end,
//! which needs no message and is not in this world.

use stateright::{Model, Property};

const CLIENTS: usize = 3;

/// How often each of them wants the lock, and how many subscriptions are lost.
const WANTED: u8 = 2;
const LOST: u8 = 1;

/// A rule that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A try that is refused leaves a mark at the lock.
    RefusalMarks,
    /// Also one of a client that has waited already.
    EachRefusalMarks,
    /// A client whose subscription is confirmed tries again.
    TriesOnceSubscribed,
    /// One whose subscription is lost subscribes again.
    SubscribesAgain,
}

pub(crate) mod promise {
    pub(crate) const AWAKE: &str = "no client sleeps beside a lock that is free";
    pub(crate) const QUIET: &str = "a release that nobody was refused for sends no message";
    /// Not a promise: the world would be too small otherwise.
    pub(crate) const ALL_DONE: &str = "all clients held the lock as often as they wanted it";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    /// Its try is on the way; whether it waited before.
    Asking(bool),
    Waiting,
    Holding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subscription {
    No,
    /// On its way to the server.
    Asked,
    /// The server sends messages from now on; the confirmation is on its way.
    Taken,
    Confirmed,
    /// The server sends nothing any more, and the client does not know yet.
    Lost,
    /// The same, and the client has not cared.
    Deaf,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Client {
    phase: Phase,
    subscription: Subscription,
    /// Whether a message is on its way to it.
    has_message: bool,
    wanted: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    clients: [Client; CLIENTS],
    /// Whether the lock is held, and marked.
    is_held: bool,
    is_marked: bool,
    /// Whether a client was refused since the lock was acquired.
    was_refused: bool,
    lost: u8,
    spoke_unasked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Want,
    /// The server takes a try, and the client has the answer.
    Try,
    Release,
    Subscribe,
    Subscribed,
    Confirmed,
    Message,
    LoseSubscription,
    NoticeLoss,
}

pub(crate) struct Messages {
    without: Option<Rule>,
}

impl Messages {
    pub(crate) const fn new(without: Option<Rule>) -> Self {
        Self { without }
    }

    fn keep(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}

impl Client {
    fn can(&self, action: Action, lost: u8) -> bool {
        use Subscription::{Asked, Confirmed, Lost, No, Taken};
        match action {
            Action::Want => self.phase == Phase::Idle && self.wanted < WANTED,
            Action::Try => matches!(self.phase, Phase::Asking(_)),
            Action::Release => self.phase == Phase::Holding,
            Action::Subscribe => self.phase == Phase::Waiting && self.subscription == No,
            Action::Subscribed => self.subscription == Asked,
            Action::Confirmed => self.subscription == Taken,
            Action::Message => self.has_message,
            Action::LoseSubscription => {
                lost < LOST && matches!(self.subscription, Taken | Confirmed)
            }
            Action::NoticeLoss => self.subscription == Lost,
        }
    }

    /// Whether it will try again by itself, without a message that is not sent yet.
    fn will_try(&self) -> bool {
        self.phase != Phase::Waiting
            || self.has_message
            || !matches!(
                self.subscription,
                Subscription::Confirmed | Subscription::Deaf
            )
    }

    fn wake(&mut self) {
        if self.phase == Phase::Waiting {
            self.phase = Phase::Asking(true);
        }
    }
}

impl Model for Messages {
    type State = State;
    type Action = (usize, Action);

    fn init_states(&self) -> Vec<State> {
        let client = Client {
            phase: Phase::Idle,
            subscription: Subscription::No,
            has_message: false,
            wanted: 0,
        };
        vec![State {
            clients: [const { None }; CLIENTS].map(|_: Option<()>| client.clone()),
            is_held: false,
            is_marked: false,
            was_refused: false,
            lost: 0,
            spoke_unasked: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Self::Action>) {
        for (at, client) in state.clients.iter().enumerate() {
            let all = [
                Action::Want,
                Action::Try,
                Action::Release,
                Action::Subscribe,
                Action::Subscribed,
                Action::Confirmed,
                Action::Message,
                Action::LoseSubscription,
                Action::NoticeLoss,
            ];
            let possible = all
                .into_iter()
                .filter(|action| client.can(*action, state.lost));
            actions.extend(possible.map(|action| (at, action)));
        }
    }

    fn next_state(&self, last: &State, (at, action): Self::Action) -> Option<State> {
        let mut state = last.clone();
        let client = &mut state.clients[at];
        match action {
            Action::Want => {
                client.wanted += 1;
                client.phase = Phase::Asking(false);
            }
            Action::Try if !state.is_held => {
                client.phase = Phase::Holding;
                state.is_held = true;
            }
            Action::Try => {
                let has_waited = client.phase == Phase::Asking(true);
                client.phase = Phase::Waiting;
                state.was_refused = true;
                state.is_marked |= self.keep(Rule::RefusalMarks)
                    && (!has_waited || self.keep(Rule::EachRefusalMarks));
            }
            Action::Release => {
                client.phase = Phase::Idle;
                if state.is_marked {
                    state.spoke_unasked |= !state.was_refused;
                    for client in &mut state.clients {
                        use Subscription::{Confirmed, Taken};
                        client.has_message |= matches!(client.subscription, Taken | Confirmed);
                    }
                }
                // The mark is in the value of the lock, and ends with it.
                (state.is_held, state.is_marked, state.was_refused) = (false, false, false);
            }
            Action::Subscribe => client.subscription = Subscription::Asked,
            Action::Subscribed => client.subscription = Subscription::Taken,
            Action::Confirmed => {
                client.subscription = Subscription::Confirmed;
                if self.keep(Rule::TriesOnceSubscribed) {
                    client.wake();
                }
            }
            Action::Message => {
                client.has_message = false;
                client.wake();
            }
            Action::LoseSubscription => {
                state.lost += 1;
                client.subscription = Subscription::Lost;
                client.has_message = false;
            }
            Action::NoticeLoss => {
                client.subscription = if self.keep(Rule::SubscribesAgain) {
                    Subscription::No
                } else {
                    Subscription::Deaf
                };
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(promise::AWAKE, |_, state: &State| {
                state.is_held || state.clients.iter().all(Client::will_try)
            }),
            Property::always(promise::QUIET, |_, state: &State| !state.spoke_unasked),
            Property::sometimes(promise::ALL_DONE, |_, state: &State| {
                let done = |client: &Client| client.phase == Phase::Idle && client.wanted == WANTED;
                state.clients.iter().all(done)
            }),
        ]
    }
}
