//! One session after the other: how each begins, and what is left of one that is over.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use backon::ExponentialBuilder;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Config, Driver, End, Started, State};
use crate::LockError;
use crate::backend::LossReason;
use crate::outage::SoFar;
use crate::panics::catch;
use crate::postgres::connect::Opened;
use crate::postgres::errors;
use crate::postgres::held::HoldCommand;
use crate::postgres::place::place;
use crate::postgres::session::{KeyWaiters, Session};
use crate::postgres::shared::{Request, Shared};
use crate::server::{BackOff, worker};

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

impl Driver {
    /// One session after the other. A panic, which a server can cause that does not keep to its
    /// protocol, costs the session as any other loss does.
    pub(super) fn run(self, started: Started) {
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
        let is_held = |state: &&State| matches!(state, State::Held(_) | State::Reading(_));
        let held = self.keys.values().filter(is_held);
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
        self.wanted.clear();
        self.to_want.clear();
        self.given_up.clear();
        self.is_registered_for_everything = false;
        self.handed_over.clear();
        self.due.clear();
        self.due_readers.clear();
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
        drop(self.shared.readers.take_left());
    }

    /// Without a session all requests fail with its error; waiters are woken, and try for themselves.
    fn refuse_all(&mut self, error: &LockError) {
        (self.shared.queues).take(&mut self.backlog, &mut self.of_grants);
        for request in self.backlog.drain(..) {
            let refused = || error.duplicate_as_unavailable();
            match request {
                Request::Try { reply, .. } | Request::Read { reply, .. } => {
                    drop(reply.send(Err(refused())));
                }
                Request::Claim { reply, .. } => drop(reply.send(Err(refused()))),
                Request::Holder { reply, .. } => drop(reply.send(Err(refused()))),
                Request::List { reply, .. } => drop(reply.send(Err(refused()))),
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
        self.shared.wake_all();
        self.forget_left();
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
