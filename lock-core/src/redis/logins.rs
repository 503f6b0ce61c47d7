//! With which user and password a connection is made: those of now.

use std::fmt;
use std::sync::Arc;

use ::redis::ConnectionInfo;

use super::connect::is_login_refused;
use crate::LockError;
use crate::credentials::{Asker, Credentials, Refusals};

/// Where user and password come from, and which ones were refused. As it is by default they are those of
/// the connection string.
#[derive(Clone, Default)]
pub(super) struct Logins {
    asker: Option<Asker>,
    /// By address.
    refusals: Arc<Refusals<Option<Credentials>>>,
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
        let mut info = info.clone();
        let with = match &self.asker {
            Some(asker) => Some(asker.ask().await?),
            None => None,
        };
        if let Some(credentials) = &with {
            let mut settings = info.redis_settings().clone();
            settings = settings.set_password(credentials.get_password());
            if let Some(user) = credentials.get_user() {
                settings = settings.set_username(user);
            }
            info = info.set_redis_settings(settings);
        }
        let place = info.addr().to_string();
        self.refusals.check(&place, &with)?;
        match open(info).await {
            Ok(opened) => {
                self.refusals.accepted(&place);
                Ok(opened)
            }
            Err(mut error) if is_login_refused(&error) => {
                if self.asker.is_some() {
                    error = error.with_advice("they came from the function given to `credentials`");
                }
                self.refusals.refused(&place, with, &error);
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logins").finish_non_exhaustive()
    }
}
