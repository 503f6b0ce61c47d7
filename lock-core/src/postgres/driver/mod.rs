//! The one task that drives the one session.
//!
//! It takes all commands that have come while a statement was on the wire, and sends them in the
//! next. It runs on a thread of its own, so that neither a blocked worker nor the end of a runtime
//! of the application loses a lock.
//!
//! It is not the driver of leased keys (`server/driver`): the lease is that of the session, so that no key is
//! renewed, and what a failed statement left behind is found by an audit instead of being given back by an owner.
//!
//! # Why at most one holds a lock
//!
//! The server keeps a key to one session, but lets that session take it again and again, and two
//! names can share a key. So the driver keeps, for each key, who has it: a try is sent only for a key
//! that no caller here has, or has asked for, and a key is in a statement once. One that asks meanwhile
//! is answered that it is held, or waits for the unlock that is on the wire. Owners have numbers that are
//! never used twice: a release by an owner that is not the present one does nothing.
//!
//! # Readers
//!
//! The server keeps one shared lock for all readers of this session, which is there from before the first is granted
//! to after the last was released: while the driver has readers of a key, it sends no try of it for a writer, and
//! no reader is granted while a writer here has it. A session that holds neither cannot tell them apart for others: the
//! server does, by the two modes of one key.
//!
//! A writer that waits and is refused because of readers takes a second key, [`Keys::want`], and holds it until it
//! has the lock or waits no more. Each try of a reader, also one that joins readers of its own session, looks at that
//! key first, by holding it shared for a moment: of several writers one has it, which is enough, and readers do not
//! disturb each other. A writer whose try of it meets such a look has it with a later try, of the fallback at the latest. The end of its session
//! ends it.

mod batch;
mod claims;
mod holders;
mod listening;
mod listing;
mod recover;
mod sessions;
mod tokens;
mod upkeep;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::connect::Target;
use super::held::{Client, Hold, HoldCommand, SessionReleases};
use super::key::Keys;
use super::login_options::LoginOptions;
use super::session::{Failed, KeyWaiters, Session};
use super::shared::{Request, Shared};
use super::system::Home;
use crate::LockError;
use crate::backend::LossReason;
use crate::hand_over::HandOver;
use crate::outage::Outage;
use crate::server::{AdaptiveSpin, BackOff, Reply, worker};

/// How often waiters are tried for, also without a notification: the locks of a session that
/// ended are not notified.
const FALLBACK: Duration = Duration::from_millis(300);

/// After the server refused a notification releases do without for this long: those who wait find
/// the lock by their fallback.
const QUIET: Duration = Duration::from_secs(1);

/// How a driver begins, reported once.
type Started = Reply<()>;

/// What a driver needs to know.
pub(super) struct Config {
    pub(super) target: Target,
    pub(super) logins: LoginOptions,
    pub(super) max_held: Option<usize>,
    pub(super) token_epoch: u8,
}

/// Starts the thread of a driver; returns when it is connected.
pub(super) async fn start(config: Config) -> Result<(Arc<Shared>, Arc<Client>), LockError> {
    let shared = Arc::new(Shared::default());
    let client = shared.queues.client(SessionReleases);
    let driver = Driver::new(config, Arc::clone(&shared), Arc::downgrade(&client));
    // Dropped meanwhile, the client ends the driver.
    worker::start("distributed-lock", move |started| driver.run(started)).await?;
    Ok((shared, client))
}

/// Who has a key.
enum State {
    /// A try is on the wire.
    Trying,
    Held(u64),
    /// Held shared, by these owners. There is always one, and none is on the wire.
    Reading(HashSet<u64>),
    /// An unlock is on the wire.
    Releasing,
}

/// How a session ended.
enum End {
    /// No client is left, and all is answered.
    Done,
    Lost(LossReason),
}

/// What ends the wait for something to do.
enum Event {
    /// A notification, or something to do.
    Asked,
    Time,
    Disconnected,
}

impl From<Option<()>> for Event {
    fn from(notified: Option<()>) -> Self {
        notified.map_or(Self::Disconnected, |()| Self::Asked)
    }
}

struct Driver {
    config: Config,
    shared: Arc<Shared>,
    client: Weak<Client>,
    /// Requests that no statement has taken yet.
    backlog: Vec<Request>,
    /// Commands of grants that no statement has taken yet.
    of_grants: Vec<HoldCommand>,
    keys: HashMap<i64, State>,
    last_owner: u64,
    /// Keys under which we are registered as waiting, with the key of the registration.
    registered: HashMap<i64, i64>,
    /// Whether we are registered as waiting for everything.
    is_registered_for_everything: bool,
    /// Keys to try for waiters.
    due: BTreeSet<i64>,
    /// The one of them that was tried last.
    last_due: i64,
    /// Keys to try for waiting readers.
    due_readers: BTreeSet<i64>,
    /// Keys that readers are kept from, since a writer here waits, with the key that does it.
    wanted: HashMap<i64, i64>,
    /// Keys that are to be such.
    to_want: Vec<Keys>,
    /// Keys that no writer here waits for any more: readers elsewhere are to be notified.
    given_up: Vec<i64>,
    /// Whether those left no room for the tries of callers.
    has_put_off: bool,
    /// Whether a lock was refused since sessions that stand still were looked for: one of them can hold it.
    was_refused: bool,
    /// Keys that are left to other processes for a moment.
    handed_over: HandOver<i64>,
    /// What the former session alone holds.
    former: Option<i64>,
    /// Where it was.
    place: Home,
    next_fallback: Instant,
    next_reap: Instant,
    /// When there was a waiter last, as far as is known.
    last_waited: Instant,
    /// Releases are not heard.
    deaf: Outage,
    /// Until the next connection, if there is one; forgotten when a session has lived for a while.
    backoff: Option<BackOff>,
    /// Whether no command can come after those that are taken.
    is_last: bool,
    /// How often a release told those who wait for everything.
    told_everybody: u32,
    /// The server takes no notifications: until then releases are not notified.
    quiet_until: Option<Instant>,
    /// What the log says of that.
    quiet: Outage,
    /// Sessions are lost.
    losses: Outage,
    /// None can be opened.
    outage: Outage,
    panics: Outage,
    heartbeats: Outage,
    reaper: Outage,
    /// With callers.
    spin: AdaptiveSpin,
}

impl Driver {
    fn new(config: Config, shared: Arc<Shared>, client: Weak<Client>) -> Self {
        Self {
            config,
            shared,
            client,
            backlog: Vec::new(),
            of_grants: Vec::new(),
            keys: HashMap::new(),
            last_owner: 0,
            registered: HashMap::new(),
            is_registered_for_everything: false,
            due: BTreeSet::new(),
            last_due: i64::MAX,
            due_readers: BTreeSet::new(),
            wanted: HashMap::new(),
            to_want: Vec::new(),
            given_up: Vec::new(),
            has_put_off: false,
            was_refused: false,
            handed_over: HandOver::default(),
            former: None,
            place: Home::default(),
            next_fallback: Instant::now(),
            next_reap: Instant::now(),
            last_waited: Instant::now(),
            deaf: Outage::new(),
            backoff: None,
            is_last: false,
            told_everybody: 0,
            quiet_until: None,
            quiet: Outage::new(),
            losses: Outage::new(),
            outage: Outage::new(),
            panics: Outage::new(),
            heartbeats: Outage::new(),
            reaper: Outage::new(),
            spin: AdaptiveSpin::new(),
        }
    }

    async fn serve(&mut self, session: &mut Session) -> End {
        self.last_waited = Instant::now();
        self.try_for_all();
        loop {
            match self.work(session).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(Failed::Session(reason)) => return End::Lost(reason),
                // Each step answers for its own failures.
                Err(Failed::Statement(_)) => return End::Lost(LossReason::Disconnected),
            }
            if self.is_last && self.backlog.is_empty() && self.of_grants.is_empty() {
                return End::Done;
            }
            match self.idle(session).await {
                Event::Asked | Event::Time => {}
                Event::Disconnected => return End::Lost(LossReason::Disconnected),
            }
            if let Some(reason) = session.lease.reason() {
                return End::Lost(reason);
            }
        }
    }

    /// Waits for something to do.
    async fn idle(&mut self, session: &mut Session) -> Event {
        let pause = self.until_next(session);
        let started = Instant::now();
        let mut notified = pin!(session.notified(&*self.shared));
        let at_once = self.spin.look(started, |cx| {
            if self.shared.queues.has_some() {
                return Poll::Ready(Event::Asked);
            }
            notified.as_mut().poll(cx).map(Event::from)
        });
        let event = match at_once.await {
            Some(event) => event,
            None => tokio::select! {
                biased;
                notified = notified => notified.into(),
                () = self.shared.queues.rung() => Event::Asked,
                () = sleep(pause) => Event::Time,
            },
        };
        self.spin.took(started);
        event
    }

    /// One round: a statement of each kind for which there is something to do. Tells whether there
    /// was.
    async fn work(&mut self, session: &mut Session) -> Result<bool, Failed> {
        self.due_readers.extend(&session.heard);
        self.due.append(&mut session.heard);
        if std::mem::take(&mut session.has_missed) {
            self.try_for_all();
        }
        self.look_at_the_clock();
        self.is_last = !(self.shared.queues).take(&mut self.backlog, &mut self.of_grants);
        let mut has_worked = self.run_batch(session).await?;
        has_worked |= self.run_tokens(session).await?;
        has_worked |= self.run_claim(session).await?;
        // Each look is preceded by the heartbeat that would be due during it.
        has_worked |= self.run_holders(session).await?;
        has_worked |= self.run_listings(session).await?;
        has_worked |= self.run_heartbeat(session).await?;
        self.rest(session).await?;
        self.reap(session).await?;
        Ok(has_worked)
    }

    fn try_for_all(&mut self) {
        let waited = self.shared.waiters.waited_for();
        self.due.extend(waited.iter().map(|keys| keys.lock));
        let waited = self.shared.readers.waited_for();
        self.due_readers.extend(waited.iter().map(|keys| keys.lock));
        self.next_fallback = Instant::now() + FALLBACK;
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        while let Some(key) = self.handed_over.take_ended(now) {
            self.make_due(key);
        }
        if self.next_fallback <= now {
            self.shared.waiters.sweep();
            self.shared.readers.sweep();
            self.try_for_all();
        }
    }

    fn until_next(&self, session: &Session) -> Duration {
        let now = Instant::now();
        let fallback =
            (!self.shared.is_empty()).then(|| self.next_fallback.saturating_duration_since(now));
        let handed_over = self.handed_over.next_end();
        let handed_over = handed_over.map(|until| until.saturating_duration_since(now));
        let rest = self.until_rest(session);
        [fallback, handed_over, rest]
            .into_iter()
            .flatten()
            .fold(session.until_heartbeat(), Duration::min)
    }

    /// How many locks this process may hold.
    fn cap(&self, session: &Session) -> usize {
        let limits = session.limits;
        let table = (limits.max_locks_per_transaction).saturating_mul(limits.max_connections);
        let quarter = usize::try_from(table / 4).unwrap_or(usize::MAX);
        self.config.max_held.unwrap_or(quarter)
    }

    /// A hold that is new.
    fn new_hold(&mut self, keys: Keys, is_shared: bool) -> Hold {
        self.last_owner += 1;
        Hold {
            keys,
            owner: self.last_owner,
            is_shared,
        }
    }

    fn is_held_by(&self, hold: Hold) -> bool {
        match self.keys.get(&hold.keys.lock) {
            Some(State::Held(owner)) => *owner == hold.owner,
            Some(State::Reading(owners)) => owners.contains(&hold.owner),
            _ => false,
        }
    }

    /// A key that may have become free is tried for those that wait for it.
    fn make_due(&mut self, key: i64) {
        if self.shared.waiters.is_waited_for(&key) {
            self.due.insert(key);
        }
        if self.shared.readers.is_waited_for(&key) {
            self.due_readers.insert(key);
        }
    }

    /// Keys of which a state is so.
    fn keys_with(&self, is_so: impl Fn(&State) -> bool) -> HashSet<i64> {
        let keys = self.keys.iter().filter(|(_, state)| is_so(state));
        keys.map(|(key, _)| *key).collect()
    }
}
