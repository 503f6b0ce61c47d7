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

mod batch;
mod claims;
mod holders;
mod listening;
mod recover;
mod tokens;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use backon::ExponentialBuilder;
use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::KIND;
use super::connect::{Opened, Target};
use super::held::{Client, Hold, HoldCommand, SessionReleases};
use super::key::Keys;
use super::login_options::LoginOptions;
use super::place::place;
use super::session::{Failed, Session, value};
use super::shared::{Request, Shared};
use super::system::Home;
use super::{errors, sql};
use crate::backend::LossReason;
use crate::hand_over::{HAND_OVER, HandOver};
use crate::outage::{Outage, SoFar};
use crate::panics::catch;
use crate::server::{AdaptiveSpin, BackOff, Reply, worker};
use crate::{LockError, observe};

/// Between attempts to connect.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(10))
    .with_max_delay(Duration::from_secs(1))
    .with_jitter();

/// After this long without a connection a new command makes for a new attempt.
const EAGER_AFTER: Duration = Duration::from_millis(100);

/// How long what is under way has to end when the backend is closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// After this long a session counts as one that works.
const STABLE: Duration = Duration::from_secs(1);

/// How often waiters are tried for, also without a notification: the locks of a session that
/// ended are not notified.
const FALLBACK: Duration = Duration::from_millis(300);

/// How often sessions that stand still are looked for at most, while a lock is awaited or was refused:
/// for waiters with every second fallback, so that they have what such a session holds within a second.
const REAP: Duration = Duration::from_millis(500);

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
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A try is on the wire.
    Trying,
    Held(u64),
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

    /// One session after the other. A panic, which a server can cause that does not keep to its
    /// protocol, costs the session as any other loss does.
    fn run(self, started: Started) {
        let mut started = Some(started);
        let shared = Arc::clone(&self.shared);
        // Its callers see that.
        let _abandoned = worker::AtEnd(move || {
            shared.set_home(None);
            shared.abandon();
        });
        // Dropped before that: with it goes the pool of the application.
        let mut driver = self;
        loop {
            let lived = catch(|| driver.live_in_runtime(&mut started));
            if !lived.unwrap_or_else(|reason| driver.after_panic(&mut started, &reason)) {
                return;
            }
        }
    }

    /// A runtime for each session: whatever the session has left running ends with it, its socket as
    /// well. Tells whether there is to be another.
    fn live_in_runtime(&mut self, started: &mut Option<Started>) -> bool {
        let runtime = match worker::runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                if let Some(started) = started.take() {
                    let _ = started.send(Err(error));
                    return false;
                }
                self.refuse_all(&error);
                thread::sleep(EAGER_AFTER);
                return !self.shared.queues.signal.is_closed();
            }
        };
        let goes_on = runtime.block_on(self.live(started));
        runtime.shutdown_background();
        goes_on
    }

    /// The session went with the panic, and its guards with it. Tells whether there is to be another.
    fn after_panic(&mut self, started: &mut Option<Started>, reason: &str) -> bool {
        let error = errors::panicked();
        // It can be the logger that panics.
        let told = catch(|| {
            self.forget();
            if let Some(started) = started.take() {
                let _ = started.send(Err(error.duplicate()));
                return false;
            }
            self.refuse_all(&error);
            let server = place(&self.config.target.options);
            self.panics.failed(|SoFar { failures, lasting }| {
                tracing::error!(
                    server, reason, failures, lasting,
                    "the driver of PostgreSQL locks panicked: its locks are lost, and it connects again"
                );
            });
            true
        });
        self.backoff.get_or_insert_with(|| BackOff::new(BACKOFF));
        told.unwrap_or(true) && !self.shared.queues.signal.is_closed()
    }

    /// One session, from the first attempt to its end. Tells whether there is to be another.
    async fn live(&mut self, started: &mut Option<Started>) -> bool {
        let Some(mut session) = self.connect(started).await else {
            return false;
        };
        self.former = Some(session.identity);
        let begun = Instant::now();
        let shared = Arc::clone(&self.shared);
        let end = tokio::select! {
            biased;
            end = self.serve(&mut session) => end,
            () = hurried(&shared) => End::Done,
        };
        if begun.elapsed() >= STABLE {
            self.backoff = None;
            self.panics.over(|_| ());
        }
        let End::Lost(reason) = end else {
            // Where clients are left, they are not to count on it.
            session.lease.lose(LossReason::Shutdown);
            return false;
        };
        // Before anything else: no caller may count on it while we look for another one.
        session.lease.lose(reason);
        let held = self.keys.values().filter(|s| matches!(s, State::Held(_)));
        let (locks, server) = (held.count(), place(&self.config.target.options));
        self.losses.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                server, %reason, locks, failures, lasting,
                "lost the PostgreSQL lock session, and all locks that it held; opening another"
            );
        });
        self.forget();
        true
    }

    /// What was known of a session that is over.
    fn forget(&mut self) {
        self.shared.set_home(None);
        self.keys.clear();
        self.registered.clear();
        self.is_registered_for_everything = false;
        self.handed_over.clear();
        self.due.clear();
        self.forget_left();
        self.next_fallback = Instant::now();
    }

    /// Connects, again and again. `None` when no caller is left to connect for.
    async fn connect(&mut self, started: &mut Option<Started>) -> Option<Session> {
        // One that ended as soon as it had begun is not made anew at full speed.
        if let Some(delay) = self.backoff.as_mut().map(BackOff::pause) {
            sleep(delay).await;
        }
        let server = place(&self.config.target.options);
        loop {
            let opened = {
                // Each of its steps has a bound.
                let Config { logins, target, .. } = &self.config;
                let is_first = started.is_some();
                let open = logins.open(target, async |target| match is_first {
                    true => target.open_first().await,
                    false => target.open(self.former).await,
                });
                tokio::select! {
                    biased;
                    // First: what is refused without being tried is ready each time.
                    () = closed(&self.shared) => return None,
                    opened = open => opened,
                }
            };
            let settled = opened.and_then(|opened| {
                self.place.reached(opened.system.as_ref())?;
                Ok(opened)
            });
            let error = match settled {
                Ok(Opened { session, home, .. }) => {
                    self.shared.set_home(Some(home));
                    self.backoff.get_or_insert_with(|| BackOff::new(BACKOFF));
                    let mut again = None;
                    self.losses.over(|lasted| again = Some(lasted));
                    self.outage.over(|lasted| again = again.max(Some(lasted)));
                    if let Some(lasted) = again {
                        tracing::info!(server, ?lasted, "PostgreSQL lock session re-established");
                    }
                    if let Some(started) = started.take() {
                        // The caller has left: the client is gone too, which ends the service.
                        let _ = started.send(Ok(()));
                    }
                    return Some(session);
                }
                Err(error) => error,
            };
            if errors::is_several_servers(&error) {
                self.place.missed();
            }
            if let Some(started) = started.take() {
                let _ = started.send(Err(error));
                return None;
            }
            self.outage.failed(|SoFar { failures, lasting }| {
                tracing::warn!(
                    server,
                    error = &error as &dyn std::error::Error,
                    failures,
                    lasting,
                    "cannot open a PostgreSQL lock session: no lock is granted; retrying"
                );
            });
            self.refuse_all(&error);
            let backoff = self.backoff.get_or_insert_with(|| BackOff::new(BACKOFF));
            let delay = backoff.pause();
            let begun = Instant::now();
            let eager_after = match self.place.is_in_doubt() {
                // All processes come to a server that is new to them: none is asked for sooner.
                true => delay,
                false => self.config.logins.eager_after(EAGER_AFTER).min(delay),
            };
            let _ = timeout(delay, async {
                self.shared.queues.rung().await;
                sleep_until(begun + eager_after).await;
            })
            .await;
        }
    }

    /// Without a session there is nothing to unregister.
    fn forget_left(&self) {
        drop(self.shared.waiters.take_left());
    }

    /// Without a session all requests fail with its error; waiters are woken, and try for themselves.
    fn refuse_all(&mut self, error: &LockError) {
        (self.shared.queues).take(&mut self.backlog, &mut self.of_grants);
        for request in self.backlog.drain(..) {
            let refused = || error.duplicate_as_unavailable();
            match request {
                Request::Try { reply, .. } => drop(reply.send(Err(refused()))),
                Request::Claim { reply, .. } => drop(reply.send(Err(refused()))),
                Request::Holder { reply, .. } => drop(reply.send(Err(refused()))),
                Request::Health { reply } => drop(reply.send(Err(refused()))),
            }
        }
        for command in self.of_grants.drain(..) {
            match command {
                HoldCommand::Release { reply, .. } => {
                    reply.map(|reply| reply.send(Err(errors::not_ours())));
                }
                HoldCommand::Token { reply, .. } => drop(reply.send(Err(errors::not_ours()))),
            }
        }
        self.shared.waiters.wake_all();
        self.forget_left();
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
        let mut notified = pin!(session.notified(&*self.shared.waiters));
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
        self.due.append(&mut session.heard);
        if std::mem::take(&mut session.has_missed) {
            self.try_for_all();
        }
        self.look_at_the_clock();
        self.is_last = !(self.shared.queues).take(&mut self.backlog, &mut self.of_grants);
        let mut has_worked = self.run_batch(session).await?;
        has_worked |= self.run_tokens(session).await?;
        has_worked |= self.run_claim(session).await?;
        has_worked |= self.run_holders(session).await?;
        has_worked |= self.run_heartbeat(session).await?;
        self.rest(session).await?;
        if self.next_reap <= Instant::now() {
            self.next_reap = Instant::now() + REAP;
            if std::mem::take(&mut self.was_refused) || !self.shared.waiters.is_empty() {
                self.reap(session).await?;
            }
        }
        Ok(has_worked)
    }

    fn try_for_all(&mut self) {
        let waited = self.shared.waiters.waited_for();
        self.due.extend(waited.iter().map(|keys| keys.lock));
        self.next_fallback = Instant::now() + FALLBACK;
    }

    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        while let Some(key) = self.handed_over.take_ended(now) {
            if self.shared.waiters.is_waited_for(&key) {
                self.due.insert(key);
            }
        }
        if self.next_fallback <= now {
            self.shared.waiters.sweep();
            self.try_for_all();
        }
    }

    fn until_next(&self, session: &Session) -> Duration {
        let now = Instant::now();
        let fallback = (!self.shared.waiters.is_empty())
            .then(|| self.next_fallback.saturating_duration_since(now));
        let handed_over = self.handed_over.next_end();
        let handed_over = handed_over.map(|until| until.saturating_duration_since(now));
        let rest = self.until_rest(session);
        [fallback, handed_over, rest]
            .into_iter()
            .flatten()
            .fold(session.until_heartbeat(), Duration::min)
    }

    /// Keeps the session, and answers health checks.
    async fn run_heartbeat(&mut self, session: &mut Session) -> Result<bool, Failed> {
        let is_asked = self
            .backlog
            .iter()
            .any(|request| matches!(request, Request::Health { .. }));
        if !is_asked && !session.until_heartbeat().is_zero() {
            return Ok(false);
        }
        // Those who have asked are answered by the next session where this one is over.
        let result = match session.beat(&*self.shared.waiters).await {
            Ok(()) => {
                observe::renew_headroom(KIND, session.headroom);
                self.heartbeats.over(|lasted| {
                    tracing::info!(
                        ?lasted,
                        "heartbeats of the PostgreSQL lock session are answered again"
                    );
                });
                Ok(())
            }
            // Whose error it is, it does not say: the session shows what it holds, or is over.
            Err(Failed::Statement(error)) => {
                self.heartbeats.failed(|SoFar { failures, lasting }| {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        failures,
                        lasting,
                        "a heartbeat of the PostgreSQL lock session failed; checking its locks"
                    );
                });
                self.recover(session, None).await?;
                Err(errors::statement(error, session.limits))
            }
            Err(lost) => return Err(lost),
        };
        let asked = self
            .backlog
            .extract_if(.., |request| matches!(request, Request::Health { .. }));
        for request in asked {
            if let Request::Health { reply } = request {
                let result = match &result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(error.duplicate()),
                };
                let _ = reply.send(result);
            }
        }
        Ok(true)
    }

    /// Ends sessions that stand still inside a statement and still hold locks.
    async fn reap(&mut self, session: &mut Session) -> Result<(), Failed> {
        let lease = i64::try_from(self.config.target.terms.lease_ms()).unwrap_or(i64::MAX);
        let key = self.config.target.terms.lease_key();
        let shared = self.config.target.name.shared();
        let reaped = session
            .run_beside(
                &*self.shared.waiters,
                AssertSqlSafe(sql::reap(lease, key, shared)),
            )
            .await;
        match reaped {
            Ok(rows) => {
                self.reaper.over(|lasted| {
                    tracing::info!(?lasted, "stalled PostgreSQL sessions are looked for again");
                });
                let mut ended = 0_i64;
                for row in &rows {
                    ended = ended.saturating_add(value(row, 0)?);
                }
                if ended > 0 {
                    tracing::warn!(
                        ended,
                        "ended PostgreSQL sessions that had stalled for longer than their lease"
                    );
                    self.next_fallback = Instant::now() + HAND_OVER;
                }
                Ok(())
            }
            Err(Failed::Statement(error)) => {
                self.reaper.failed(|SoFar { failures, lasting }| {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error, failures, lasting,
                        "cannot look for stalled PostgreSQL sessions: locks that they hold are not freed; retrying"
                    );
                });
                Ok(())
            }
            Err(lost) => Err(lost),
        }
    }

    /// How many locks this process may hold.
    fn cap(&self, session: &Session) -> usize {
        let limits = session.limits;
        let table = (limits.max_locks_per_transaction).saturating_mul(limits.max_connections);
        let quarter = usize::try_from(table / 4).unwrap_or(usize::MAX);
        self.config.max_held.unwrap_or(quarter)
    }

    /// A hold that is new.
    fn new_hold(&mut self, keys: Keys) -> Hold {
        self.last_owner += 1;
        Hold {
            keys,
            owner: self.last_owner,
        }
    }

    fn is_held_by(&self, hold: Hold) -> bool {
        self.keys.get(&hold.keys.lock) == Some(&State::Held(hold.owner))
    }

    /// Keys that a live hold has.
    fn held(&self) -> HashSet<i64> {
        let held = self
            .keys
            .iter()
            .filter(|(_, state)| matches!(state, State::Held(_)));
        held.map(|(key, _)| *key).collect()
    }
}

/// Completes when no client is left.
async fn closed(shared: &Shared) {
    while !shared.queues.signal.is_closed() {
        // The bell is for the driver, which is busy: looked at now and then.
        sleep(Duration::from_millis(20)).await;
    }
}

/// Completes when the backend was closed, and what was under way has had its time.
async fn hurried(shared: &Shared) {
    shared.queues.stop.asked().await;
    sleep(CLOSE_WITHIN).await;
}
