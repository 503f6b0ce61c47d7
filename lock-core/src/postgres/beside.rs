//! A database that does not hold the locks: it is asked how it is, and keeps the mark of the
//! provider that does. One connection, on a thread of its own.

use std::future::Future;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use sqlx::{Connection, PgConnection};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::board::Board;
use super::connect::Target;
use super::desk::Reply;
use super::mark::Mark;
use super::session::{Failed, Session};
use super::terms::Terms;
use super::{errors, sql, url};
use crate::LockError;

/// How long the server keeps the mark of a process that vanished.
const LEASE: Duration = Duration::from_secs(30);

/// How long one attempt to connect may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How long a connection without a lease may be silent before it is replaced.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Between attempts to connect.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(Duration::from_secs(1))
    .without_max_times()
    .with_jitter();

/// What is known of the database. Dropping it closes the connection and ends the thread.
#[derive(Debug)]
pub(crate) struct DatabaseBeside(mpsc::UnboundedSender<Reply<()>>);

impl DatabaseBeside {
    /// Connects, and takes the mark.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) where the database has the mark of
    /// another provider, and for what is wrong with the URL;
    /// [`Unavailable`](crate::LockErrorKind::Unavailable) when the server does not answer: whether it
    /// has such a mark is not known then.
    pub(crate) async fn open(text: &str, mark: Mark) -> Result<Self, LockError> {
        let options = url::parse(text)?;
        let target = Target::new(options, "distributed_lock", Terms::new(LEASE)?, None);
        let (ask, asked) = mpsc::unbounded_channel();
        let (started, opened) = oneshot::channel();
        let watch = Watch {
            target,
            mark,
            asked,
        };
        thread::Builder::new()
            .name("distributed-lock-mark".to_owned())
            .spawn(move || watch.run(started))
            .map_err(|error| {
                LockError::unavailable("no thread could be started").with_source(error)
            })?;
        opened
            .await
            .unwrap_or_else(|_| Err(errors::disconnected()))?;
        Ok(Self(ask))
    }

    /// Whether the database answers, and has no other mark than ours.
    pub(crate) fn health(&self) -> impl Future<Output = Result<(), LockError>> + Send + 'static {
        let (reply, answer) = oneshot::channel();
        // Without a thread the reply is dropped, which is an answer.
        let _ = self.0.send(reply);
        async move { answer.await.unwrap_or_else(|_| Err(errors::disconnected())) }
    }
}

struct Watch {
    target: Target,
    mark: Mark,
    asked: mpsc::UnboundedReceiver<Reply<()>>,
}

/// How the database is reached.
enum Link {
    /// By a session of ours, which holds the mark.
    Marked(Box<Session>),
    /// By a connection that can hold nothing: through a proxy that shares sessions, or to a standby.
    Plain(Box<PgConnection>),
}

/// A way to the database, and the mark of others where there is one.
type Opened = (Link, Option<LockError>);

impl Watch {
    fn run(self, started: oneshot::Sender<Result<(), LockError>>) {
        match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                runtime.block_on(self.watch(started));
                runtime.shutdown_background();
            }
            Err(error) => {
                let refused = LockError::unavailable("no runtime could be made for the database");
                let _ = started.send(Err(refused.with_source(error)));
            }
        }
    }

    async fn watch(mut self, started: oneshot::Sender<Result<(), LockError>>) {
        let (mut link, mut others) = match self.open().await {
            Ok((link, None)) => (link, None),
            Ok((_, Some(error))) | Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        if started.send(Ok(())).is_err() {
            return;
        }
        while let Some(error) = self.serve(&mut link, others).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the connection to the database is lost"
            );
            // Closed before the next is opened: one at a time.
            drop(link);
            let Some(opened) = self.reopen(error).await else {
                return;
            };
            (link, others) = opened;
        }
    }

    /// Connects, takes the mark and looks for others.
    async fn open(&self) -> Result<Opened, LockError> {
        let opened = timeout(CONNECT_WITHIN, async {
            match self.target.open(None).await {
                Ok((session, _)) => self.mark(session).await,
                Err(error) if error.is_misconfigured() => self.open_plain(error).await,
                Err(error) => Err(error),
            }
        });
        opened
            .await
            .unwrap_or_else(|_| Err(errors::connect_timed_out()))
    }

    async fn mark(&self, mut session: Session) -> Result<Opened, LockError> {
        self.mark.take(&mut session.listener).await?;
        let others = match self.mark.check(&mut session.listener).await {
            Ok(()) => None,
            Err(error) if error.is_misconfigured() => Some(error),
            Err(error) => return Err(error),
        };
        Ok((Link::Marked(Box::new(session)), others))
    }

    /// A database that locks could not use can still be well; one that lets nobody in is a mistake.
    async fn open_plain(&self, unfit: LockError) -> Result<Opened, LockError> {
        let Ok(connection) = PgConnection::connect_with(&self.target.options).await else {
            return Err(unfit);
        };
        tracing::warn!(
            error = &unfit as &dyn std::error::Error,
            "this way to the database cannot tell whether other processes lock with another provider"
        );
        Ok((Link::Plain(Box::new(connection)), None))
    }

    /// Answers whoever asks, and keeps the session. Gives the error that ended the link; `None` when
    /// nobody can ask any more.
    async fn serve(&mut self, link: &mut Link, mut others: Option<LockError>) -> Option<LockError> {
        loop {
            let mut replies = Vec::new();
            let pause = link.until_heartbeat();
            tokio::select! {
                biased;
                reply = self.asked.recv() => replies.push(reply?),
                () = link.lost() => return Some(errors::disconnected()),
                () = sleep(pause) => {}
            }
            // One statement is an answer for all.
            while let Ok(reply) = self.asked.try_recv() {
                replies.push(reply);
            }
            let mut answer = link.probe().await;
            if answer.is_ok()
                && let (Some(_), Link::Marked(session)) = (&others, &mut *link)
            {
                answer = self.check_again(session, &mut others).await;
            }
            let lost = answer.err();
            for reply in replies {
                let wrong = lost.as_ref().or(others.as_ref());
                let _ = reply.send(wrong.map_or(Ok(()), |error| Err(error.duplicate())));
            }
            if lost.is_some() {
                return lost;
            }
        }
    }

    /// Whether the marks of others are still there.
    async fn check_again(
        &self,
        session: &mut Session,
        others: &mut Option<LockError>,
    ) -> Result<(), LockError> {
        let checked = timeout(ANSWER_WITHIN, self.mark.check(&mut session.listener)).await;
        match checked.unwrap_or_else(|_| Err(LockError::unanswered())) {
            Ok(()) => {
                tracing::info!("no other process locks with another provider any more");
                *others = None;
                Ok(())
            }
            Err(error) if error.is_misconfigured() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Connects, again and again. `None` when nobody can ask any more.
    async fn reopen(&mut self, mut last: LockError) -> Option<Opened> {
        let mut backoff = BACKOFF.build();
        loop {
            let mut pause = pin!(sleep(backoff.next().unwrap_or(CONNECT_WITHIN)));
            loop {
                tokio::select! {
                    biased;
                    () = &mut pause => break,
                    reply = self.asked.recv() => {
                        let _ = reply?.send(Err(last.duplicate_as_unavailable()));
                    }
                }
            }
            match self.open().await {
                Ok(opened) => {
                    if let (_, Some(error)) = &opened {
                        // What is held stays held: only whoever starts is refused.
                        tracing::error!(%error, "the locks are held in two places");
                    }
                    return Some(opened);
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "no connection to the database"
                    );
                    last = error;
                }
            }
        }
    }
}

impl Link {
    fn until_heartbeat(&self) -> Duration {
        match self {
            Self::Marked(session) => session.until_heartbeat(),
            // Nothing is held, so that nothing is to be kept.
            Self::Plain(_) => Duration::from_secs(3600),
        }
    }

    /// Completes when the connection is gone, where that is noticed.
    async fn lost(&mut self) {
        match self {
            Self::Marked(session) => while session.notified().await.is_some() {},
            Self::Plain(_) => std::future::pending().await,
        }
    }

    async fn probe(&mut self) -> Result<(), LockError> {
        match self {
            Self::Marked(session) => {
                let answer = session
                    .run(&Board::default(), async |listener, marker| {
                        let beat =
                            sqlx::query_scalar::<_, Option<bool>>(sql::HEARTBEAT).bind(marker);
                        beat.fetch_all(listener).await
                    })
                    .await;
                match answer {
                    Ok(answer) if answer == [Some(true)] => Ok(()),
                    Err(Failed::Statement(error)) => Err(errors::statement(error, session.limits)),
                    Ok(_) | Err(Failed::Session(_)) => Err(errors::disconnected()),
                }
            }
            Self::Plain(connection) => {
                // Without a prepared statement, which such a proxy may not know.
                let asked = sqlx::raw_sql("SELECT 1").execute(&mut **connection);
                match timeout(ANSWER_WITHIN, asked).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(errors::disconnected().with_source(error)),
                    Err(_) => Err(LockError::unanswered()),
                }
            }
        }
    }
}
