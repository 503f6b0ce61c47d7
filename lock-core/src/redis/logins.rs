//! With which user and password a connection is made: those of now.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::redis::ConnectionInfo;

use super::refused::is_login_refused;
use crate::LockError;
use crate::credentials::{Asker, Credentials, GIVEN, Refusals};

/// An answer that led to no connection is used again for so long: while a server is gone there are some
/// attempts in each second, over two connections to each node.
const USED_AGAIN: Duration = Duration::from_secs(1);

type Answer = Result<Credentials, LockError>;

/// Where user and password come from, and which ones were refused. As it is by default they are those of
/// the connection string.
#[derive(Clone, Default)]
pub(super) struct Logins {
    asker: Option<Asker>,
    /// By address.
    refusals: Arc<Refusals<Option<Credentials>>>,
    /// The last answer that led to no connection, and when it was given.
    unused: Arc<Mutex<Option<(Instant, Answer)>>>,
    /// Those of the last connection that was made.
    used: Arc<Mutex<Option<Credentials>>>,
}

impl Logins {
    pub(super) fn new(asker: Option<Asker>) -> Self {
        Self {
            asker,
            ..Self::default()
        }
    }

    /// Opens something with the user and the password of now.
    ///
    /// # Errors
    ///
    /// Those of `open`, or why the credentials are not known.
    pub(super) async fn open<T, F>(
        &self,
        info: &ConnectionInfo,
        open: impl FnOnce(ConnectionInfo) -> F,
    ) -> Result<T, LockError>
    where
        F: Future<Output = Result<T, LockError>>,
    {
        let (asked, with) = match &self.asker {
            Some(asker) => self.ask(asker).await.map(|(at, given)| (at, Some(given)))?,
            None => (Instant::now(), None),
        };
        let place = info.addr().to_string();
        self.refusals.check(&place, &with)?;
        let opened = open(with_login(info, with.as_ref())).await;
        let is_refused = opened.as_ref().err().is_some_and(is_login_refused);
        *self.unused() = match (&opened, &with) {
            (Err(_), Some(given)) if !is_refused => Some((asked, Ok(given.clone()))),
            _ => None,
        };
        if opened.is_ok() {
            self.used().clone_from(&with);
        }
        let explained = |error: LockError| match &self.asker {
            Some(_) => error.with_advice(GIVEN),
            None => error,
        };
        self.refusals
            .settle(&place, with, opened, |_| is_refused, explained)
    }

    /// Opens something beside a connection that was just made, with the user and the password of that: they are
    /// asked for again only where the server refuses these, which were changed since then.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(super) async fn open_beside<T, F>(
        &self,
        info: &ConnectionInfo,
        open: impl Fn(ConnectionInfo) -> F,
    ) -> Result<T, LockError>
    where
        F: Future<Output = Result<T, LockError>>,
    {
        let used = self.used().clone();
        match open(with_login(info, used.as_ref())).await {
            Err(error) if self.asker.is_some() && is_login_refused(&error) => {
                self.open(info, open).await
            }
            opened => opened,
        }
    }

    fn used(&self) -> MutexGuard<'_, Option<Credentials>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unused(&self) -> MutexGuard<'_, Option<(Instant, Answer)>> {
        self.unused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credentials of now, and when they were given.
    async fn ask(&self, asker: &Asker) -> Result<(Instant, Credentials), LockError> {
        if let Some((at, answer)) = &*self.unused()
            && at.elapsed() < USED_AGAIN
        {
            return match answer {
                Ok(given) => Ok((*at, given.clone())),
                Err(error) => Err(error.duplicate()),
            };
        }
        let answer = asker.ask().await;
        let now = Instant::now();
        if let Err(error) = &answer {
            *self.unused() = Some((now, Err(error.duplicate())));
        }
        answer.map(|given| (now, given))
    }
}

fn with_login(info: &ConnectionInfo, with: Option<&Credentials>) -> ConnectionInfo {
    let Some(credentials) = with else {
        return info.clone();
    };
    let mut settings = info.redis_settings().clone();
    settings = settings.set_password(credentials.get_password());
    if let Some(user) = credentials.get_user() {
        settings = settings.set_username(user);
    }
    info.clone().set_redis_settings(settings)
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logins").finish_non_exhaustive()
    }
}
