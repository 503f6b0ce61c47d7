//! A database that does not hold the locks: its health is checked, and it keeps the mark of the
//! provider that does. One connection, on a thread of its own, so that a slow database delays no lock of another.

mod link;
mod outages;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use backon::ExponentialBuilder;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::{sleep, timeout};

use self::link::{ANSWER_WITHIN, Link, marked, session_in_time};
use self::outages::Outages;
use super::connect::{Opened, Target};
use super::errors;
use super::login::log_in;
use super::login_options::LoginOptions;
use super::mark::{Mark, unmarked};
use super::place::{place, warn_unless_verified};
use super::session::Session;
use super::session_name::{SHARED, SessionName};
use super::steps::Step;
use super::terms::Terms;
use crate::health::{Answer, Companion};
use crate::panics::catch;
use crate::server::{BackOff, Reply, Stop, worker};
use crate::settings::ProviderKind;
use crate::{LockError, oneshot};

/// How long the server keeps the mark of a process that vanished.
const LEASE: Duration = Duration::from_secs(30);

/// Between attempts to connect.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_secs(1))
    .with_jitter();

/// Between attempts of a process that can have no runtime.
const WITHOUT_RUNTIME: Duration = Duration::from_millis(100);

/// What is known of the database. Dropping it closes the connection and ends the thread.
#[derive(Debug)]
pub(crate) struct DatabaseCompanion {
    ask: mpsc::UnboundedSender<Reply<()>>,
    stop: Arc<Stop>,
}

impl DatabaseCompanion {
    /// Connects, and takes the mark.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) where the database has the mark of
    /// another provider, or can keep none that is required, and for what lets no client in;
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the server does not answer: whether it
    /// has such a mark is not known then.
    pub(crate) async fn open(
        options: PgConnectOptions,
        mark: Mark,
        is_required: bool,
    ) -> Result<Self, LockError> {
        warn_unless_verified(&options);
        let outages = Outages::new(place(&options));
        let target = Target::new(
            options,
            SessionName::without_instance(SHARED),
            Terms::new(LEASE)?,
            None,
        );
        let (ask, asked) = mpsc::unbounded_channel();
        let stop = Arc::<Stop>::default();
        let watch = Watch {
            stop: Arc::clone(&stop),
            target,
            logins: LoginOptions::default(),
            mark,
            is_required,
            asked,
            backoff: BackOff::new(BACKOFF),
            outages,
        };
        worker::start("distributed-lock-mark", move |started| watch.run(started)).await?;
        Ok(Self { ask, stop })
    }
}

impl Companion for DatabaseCompanion {
    fn name(&self) -> &'static str {
        ProviderKind::Postgres.as_str()
    }

    /// Whether the database answers, and has no other mark than ours.
    fn health(&self) -> Answer {
        let (reply, answer) = oneshot::channel();
        // Without a thread the reply is dropped, which is an answer.
        let _ = self.ask.send(reply);
        let stop = Arc::clone(&self.stop);
        Box::pin(async move {
            let gone = |_| match stop.is_asked() {
                true => Err(LockError::closed()),
                false => Err(errors::disconnected()),
            };
            answer.await.unwrap_or_else(gone)
        })
    }

    /// Ends the thread; completes when the connection is closed.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            self.stop.ask();
            self.stop.finished().await;
        })
    }
}

struct Watch {
    stop: Arc<Stop>,
    target: Target,
    logins: LoginOptions,
    mark: Mark,
    /// Whether there is no start without it.
    is_required: bool,
    asked: mpsc::UnboundedReceiver<Reply<()>>,
    backoff: BackOff,
    outages: Outages,
}

/// How a watch begins, reported once.
type Started = Reply<()>;

impl Watch {
    /// One link after the other. A panic, which a server can cause that does not keep to its
    /// protocol, costs the link.
    fn run(mut self, started: Started) {
        let mut started = Some(started);
        let mut last = errors::disconnected();
        let stop = Arc::clone(&self.stop);
        // Its connection is closed by then.
        let _done = worker::AtEnd(move || stop.done());
        while !self.stop.is_asked() {
            let lived = catch(|| self.live_in_runtime(&mut started, &mut last));
            let goes_on = lived.unwrap_or_else(|reason| {
                last = errors::panicked();
                // It can be the logger that panics.
                let _ = catch(|| {
                    self.outages.panicked(&reason);
                });
                match started.take() {
                    Some(started) => {
                        let _ = started.send(Err(errors::panicked()));
                        None
                    }
                    None => Some(()),
                }
            });
            if goes_on.is_none() {
                return;
            }
        }
    }

    /// A runtime for each attempt and its link: whatever that has left running ends with it, its
    /// socket as well. `None` when no caller is left.
    fn live_in_runtime(
        &mut self,
        started: &mut Option<Started>,
        last: &mut LockError,
    ) -> Option<()> {
        match worker::runtime() {
            Ok(runtime) => {
                let stop = Arc::clone(&self.stop);
                let goes_on = runtime.block_on(async {
                    tokio::select! {
                        biased;
                        () = stop.asked() => None,
                        goes_on = self.live(started, last) => goes_on,
                    }
                });
                runtime.shutdown_background();
                goes_on
            }
            Err(error) => {
                *last = error;
                self.live_without_runtime(started, last)
            }
        }
    }

    /// `None` when no caller is left.
    fn live_without_runtime(
        &mut self,
        started: &mut Option<Started>,
        why: &LockError,
    ) -> Option<()> {
        if let Some(started) = started.take() {
            let _ = started.send(Err(why.duplicate()));
            return None;
        }
        thread::sleep(WITHOUT_RUNTIME);
        loop {
            match self.asked.try_recv() {
                Ok(reply) => drop(reply.send(Err(why.duplicate()))),
                Err(TryRecvError::Empty) => return Some(()),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
    }

    /// One attempt to connect, and the link to its end; `last` is why there is none. `None` when
    /// no caller is left.
    async fn live(&mut self, started: &mut Option<Started>, last: &mut LockError) -> Option<()> {
        if started.is_none() {
            self.pause(last).await?;
        }
        let opened = self.open(started.is_some()).await;
        let (link, other) = match (opened, started.take()) {
            (Ok((_, Some(other))), Some(started)) => {
                let _ = started.send(Err(self.mark.refusal(other)));
                return None;
            }
            (Ok(opened), Some(started)) => {
                started.send(Ok(())).ok()?;
                opened
            }
            (Err(error), Some(started)) => {
                let _ = started.send(Err(error));
                return None;
            }
            (Ok(opened), None) => opened,
            (Err(error), None) => {
                self.outages.is_away(&error);
                *last = error;
                return Some(());
            }
        };
        self.backoff.reset();
        self.outages.is_back();
        *last = self.serve(link, other).await?;
        self.outages.is_away(last);
        Some(())
    }

    /// Until the next attempt; callers learn meanwhile why there is no connection.
    async fn pause(&mut self, last: &LockError) -> Option<()> {
        let mut pause = pin!(sleep(self.backoff.pause()));
        loop {
            tokio::select! {
                biased;
                () = &mut pause => return Some(()),
                reply = self.asked.recv() => {
                    let _ = reply?.send(Err(last.duplicate_as_unavailable()));
                }
            }
        }
    }

    /// Connects, takes the mark and looks for another. Only a start can be refused for want of it: who
    /// holds locks already keeps them.
    async fn open(&mut self, is_start: bool) -> Result<(Link, Option<ProviderKind>), LockError> {
        let open = async |target: &Target| match is_start {
            true => target.open_first().await,
            false => target.open(None).await,
        };
        match self.logins.open(&self.target, open).await {
            Ok(Opened { session, .. }) => {
                let (session, other) = marked(session, &self.mark).await?;
                Ok((Link::Marked(session), other))
            }
            Err(error) if error.is_misconfigured() && !errors::is_login_refused(&error) => {
                Ok((self.open_plain(error, is_start).await?, None))
            }
            Err(error) => Err(error),
        }
    }

    /// A database that locks could not use can still be well; one that lets no client in is a mistake.
    async fn open_plain(&mut self, unfit: LockError, is_start: bool) -> Result<Link, LockError> {
        let unfit = errors::of_companion(unfit);
        let Ok(login) = log_in(&self.target.options, Step::LogIn).await else {
            return Err(unfit);
        };
        if is_start && self.is_required {
            return Err(unmarked(unfit));
        }
        self.outages.is_unfit(&unfit);
        let session = session_in_time(self.target.clone(), self.mark.clone());
        Ok(Link::Plain(Box::new(login.connection), Box::pin(session)))
    }

    /// Answers callers, and keeps the session. Gives the error that ended the link; `None` when
    /// no caller is left.
    async fn serve(
        &mut self,
        mut link: Link,
        mut other: Option<ProviderKind>,
    ) -> Option<LockError> {
        self.tell_of(other);
        loop {
            let mut replies = Vec::new();
            let pause = link.until_heartbeat();
            tokio::select! {
                biased;
                reply = self.asked.recv() => replies.push(reply?),
                changed = link.changed() => {
                    let Some((session, found)) = changed else {
                        return Some(errors::disconnected());
                    };
                    self.outages.is_fit();
                    (link, other) = (Link::Marked(session), found);
                    self.tell_of(other);
                }
                () = sleep(pause) => {}
            }
            // One statement is an answer for all.
            while let Ok(reply) = self.asked.try_recv() {
                replies.push(reply);
            }
            let mut answer = link.probe().await;
            if answer.is_ok()
                && let (Some(_), Link::Marked(session)) = (other, &mut link)
            {
                answer = self.check_again(session, &mut other).await;
            }
            let lost = answer.err();
            for reply in replies {
                let wrong = (lost.as_ref().map(LockError::duplicate))
                    .or_else(|| other.map(|other| self.mark.refusal(other)));
                let _ = reply.send(wrong.map_or(Ok(()), Err));
            }
            if lost.is_some() {
                return lost;
            }
        }
    }

    /// What is held stays held: only a process that starts is refused.
    fn tell_of(&mut self, other: Option<ProviderKind>) {
        match other {
            Some(other) => self.outages.is_marked(&self.mark.refusal(other)),
            None => self.outages.is_unmarked(),
        }
    }

    /// Whether the mark of others is still there.
    async fn check_again(
        &mut self,
        session: &mut Session,
        other: &mut Option<ProviderKind>,
    ) -> Result<(), LockError> {
        let checked = timeout(ANSWER_WITHIN, self.mark.check(session.wire())).await;
        *other = checked.unwrap_or_else(|_| Err(LockError::unanswered()))?;
        if other.is_none() {
            self.outages.is_unmarked();
        }
        Ok(())
    }
}
