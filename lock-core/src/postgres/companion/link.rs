//! The connection to a database that does not hold the locks, and its mark.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use backon::ExponentialBuilder;
use sqlx::PgConnection;
use tokio::time::{sleep, timeout};

use crate::LockError;
use crate::postgres::connect::Target;
use crate::postgres::errors;
use crate::postgres::mark::Mark;
use crate::postgres::session::{Failed, Session};
use crate::server::BackOff;
use crate::settings::ProviderKind;

/// How long a connection without a lease may be silent before it is replaced.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Between looks whether a database that could keep no mark now can: each takes two connections for
/// some seconds.
const LOOK_AGAIN: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_secs(5))
    .with_max_delay(Duration::from_secs(60))
    .with_jitter();

/// How the database is reached.
pub(super) enum Link {
    /// By a session of ours, which holds the mark.
    Marked(Box<Session>),
    /// By a connection that can hold nothing, through a proxy that shares sessions or to a standby,
    /// until a session can be opened there: the standby may be promoted.
    Plain(Box<PgConnection>, Pin<Box<dyn Future<Output = Marked>>>),
}

/// A session with our mark, and the other one that the database has, if it has one.
pub(super) type Marked = (Box<Session>, Option<ProviderKind>);

/// Takes the mark in this session, and looks for another.
pub(super) async fn marked(mut session: Session, mark: &Mark) -> Result<Marked, LockError> {
    mark.take(session.wire()).await?;
    let other = mark.check(session.wire()).await?;
    Ok((Box::new(session), other))
}

/// A session with the mark, as soon as there can be one.
pub(super) async fn session_in_time(target: Target, mark: Mark) -> Marked {
    let mut pauses = BackOff::new(LOOK_AGAIN);
    loop {
        sleep(pauses.pause()).await;
        let opened = async { marked(target.open(None).await?.session, &mark).await };
        if let Ok(marked) = opened.await {
            return marked;
        }
    }
}

impl Link {
    pub(super) fn until_heartbeat(&self) -> Duration {
        match self {
            Self::Marked(session) => session.until_heartbeat(),
            // Nothing is held, so that nothing is to be kept.
            Self::Plain(..) => Duration::from_secs(3600),
        }
    }

    /// Completes when the connection is gone, where that is noticed, or when there is a better one.
    pub(super) async fn changed(&mut self) -> Option<Marked> {
        match self {
            Self::Marked(session) => {
                while session.notified(&()).await.is_some() {}
                None
            }
            Self::Plain(_, session) => Some(session.await),
        }
    }

    pub(super) async fn probe(&mut self) -> Result<(), LockError> {
        match self {
            Self::Marked(session) => {
                // No lock is waited for here, and a session that listens is woken for what it does not need.
                if session.is_listening
                    && let Err(Failed::Session(_)) = session.unlisten(&()).await
                {
                    return Err(errors::disconnected());
                }
                match session.beat(&()).await {
                    Ok(()) => Ok(()),
                    Err(Failed::Statement(error)) => Err(errors::statement(error, session.limits)),
                    Err(Failed::Session(_)) => Err(errors::disconnected()),
                }
            }
            Self::Plain(connection, _) => {
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
