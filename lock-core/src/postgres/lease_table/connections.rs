//! Two connections to the server, made when they are needed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::ExponentialBuilder;
use sqlx::postgres::PgConnection;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::request::Request;
use super::session::{Answer, Failure, run};
use super::unanswered::Unanswered;
use crate::LockError;
use crate::outage::{Outage, SoFar};
use crate::postgres::connect::Target;
use crate::postgres::login::{LoggedIn, log_in};
use crate::postgres::login_options::LoginOptions;
use crate::postgres::place::place;
use crate::postgres::steps::Step;
use crate::server::{BackOff, PATIENCE};

/// How many there are: one for acquires and releases, and one for what must not wait behind them.
const CONNECTIONS: usize = 2;

/// Between attempts to connect, and after connections that were made and answered nothing.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(10))
    .with_max_delay(Duration::from_secs(1))
    .with_jitter();

/// How the server is reached, and the connections that nothing is under way on.
pub(super) struct Connections {
    target: Target,
    logins: LoginOptions,
    idle: Mutex<Vec<PgConnection>>,
    places: Semaphore,
    state: Mutex<State>,
}

/// What the last attempts came to.
struct State {
    backoff: BackOff,
    /// Until when no connection is made.
    down_until: Option<Instant>,
    outage: Outage,
}

impl Connections {
    pub(super) fn new(target: Target, logins: LoginOptions) -> Self {
        Self {
            target,
            logins,
            idle: Mutex::default(),
            places: Semaphore::new(CONNECTIONS),
            state: Mutex::new(State {
                backoff: BackOff::new(BACKOFF),
                down_until: None,
                outage: Outage::new(),
            }),
        }
    }

    /// A connection, which was not used yet.
    pub(super) async fn open(&self) -> Result<PgConnection, LockError> {
        let log_in = async |target: &Target| log_in(&target.options, Step::LogIn).await;
        let LoggedIn { connection, .. } = self.logins.open(&self.target, log_in).await?;
        Ok(connection)
    }

    /// Keeps a connection that nothing is under way on.
    pub(super) fn keep(&self, connection: PgConnection) {
        self.idle().push(connection);
    }

    /// Closes all that are not in use.
    pub(super) fn close(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a request can be sent again, if none can now.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        let until = self.state().down_until?;
        (until > Instant::now()).then_some(until)
    }

    /// Sends a request, and reads its answer. A connection whose answer has not come is closed.
    pub(super) async fn run(&self, request: Request) -> Result<Answer, Unanswered> {
        // It is never closed.
        let _place = self.places.acquire().await;
        let idle = self.idle().pop();
        let is_new = idle.is_none();
        let opened = match idle {
            Some(connection) => Ok(connection),
            None => self.open().await.map_err(Unanswered::NotSent),
        };
        let answer = match opened {
            Ok(mut connection) => {
                let answer = match timeout(PATIENCE, run(&mut connection, request)).await {
                    Ok(answer) => answer.map_err(Unanswered::Failed),
                    Err(_) => Err(Unanswered::Late),
                };
                if matches!(answer, Ok(_) | Err(Unanswered::Failed(Failure::Refused(_)))) {
                    self.keep(connection);
                }
                answer
            }
            Err(error) => Err(error),
        };
        self.note(is_new, answer.as_ref().err());
        answer
    }

    /// What an attempt came to. A server, or a pooler, that lets everyone in and answers nothing is not asked
    /// again at full speed.
    fn note(&self, is_new: bool, failure: Option<&Unanswered>) {
        let mut state = self.state();
        let Some(failure) = failure else {
            state.backoff.reset();
            state.down_until = None;
            state.outage.over(|lasted| {
                let server = place(&self.target.options);
                tracing::info!(
                    server,
                    ?lasted,
                    "PostgreSQL answers for the lease table again"
                );
            });
            return;
        };
        if is_new && !failure.is_refusal() {
            let pause = state.backoff.pause();
            state.down_until = Some(Instant::now() + pause);
        }
        state.outage.failed(|SoFar { failures, lasting }| {
            let (server, reason) = (place(&self.target.options), failure.reason());
            tracing::warn!(
                server, reason, failures, lasting,
                "PostgreSQL did not do what the lease table was asked for: its locks are neither granted nor \
                 renewed until it does"
            );
        });
    }
}
