//! With which options a session is opened: those of now.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use super::connect::Target;
use super::errors;
use crate::LockError;
use crate::credentials::{Asker, Credentials, GIVEN, Refusals};

/// Where user and password come from, and which ones were refused. As it is by default they are those of
/// the connection string.
#[derive(Default)]
pub(super) struct LoginOptions {
    pool: Option<PgPool>,
    asker: Option<Asker>,
    refusals: Refusals<With>,
}

/// What a login was made with, as far as it can change.
struct With {
    options: Option<Arc<PgConnectOptions>>,
    credentials: Option<Credentials>,
}

impl PartialEq for With {
    fn eq(&self, other: &Self) -> bool {
        // A pool whose options are set has another `Arc`.
        let of_pool = |with: &Self| with.options.as_ref().map(Arc::as_ptr);
        of_pool(self) == of_pool(other) && self.credentials == other.credentials
    }
}

impl LoginOptions {
    pub(super) fn new(pool: Option<PgPool>, asker: Option<Asker>) -> Self {
        Self {
            pool,
            asker,
            refusals: Refusals::default(),
        }
    }

    /// After how long without a session a command makes for another attempt; where each attempt asks the
    /// application, none does.
    pub(super) fn eager_after(&self, usual: Duration) -> Duration {
        self.asker.as_ref().map_or(usual, |_| Duration::MAX)
    }

    /// Opens something with the options of now.
    ///
    /// # Errors
    ///
    /// Those of `open`, or why the credentials are not known.
    pub(super) async fn open<T>(
        &self,
        target: &Target,
        open: impl AsyncFnOnce(&Target) -> Result<T, LockError>,
    ) -> Result<T, LockError> {
        let (target, with) = self.present(target).await?;
        let checked = self.refusals.check("", &with);
        checked.map_err(|error| error.with_source(errors::RefusedBefore))?;
        let opened = open(&target).await;
        let explained = |error| self.explained(error);
        self.refusals
            .settle("", with, opened, errors::is_login_refused, explained)
    }

    async fn present(&self, target: &Target) -> Result<(Target, With), LockError> {
        let with = With {
            options: self.pool.as_ref().map(PgPool::connect_options),
            credentials: match &self.asker {
                Some(asker) => Some(asker.ask().await?),
                None => None,
            },
        };
        let mut target = match &with.options {
            Some(options) => target.at(options.as_ref().clone()),
            None => target.clone(),
        };
        if let Some(credentials) = &with.credentials {
            let mut options = target.options.password(credentials.get_password());
            if let Some(user) = credentials.get_user() {
                options = options.username(user);
            }
            target.options = options;
        }
        Ok((target, with))
    }

    /// Where the user and the password came from.
    fn explained(&self, error: LockError) -> LockError {
        match (&self.asker, &self.pool) {
            (Some(_), _) => error.with_advice(GIVEN),
            (None, Some(_)) => error.with_advice("they are the present ones of the pool"),
            (None, None) => error,
        }
    }
}
