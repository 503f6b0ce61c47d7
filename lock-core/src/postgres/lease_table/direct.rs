//! The direct way to the server, past the pooler.

use sqlx::postgres::PgListener;

use crate::LockError;
use crate::postgres::connect::Target;
use crate::postgres::login::{listen, log_in};
use crate::postgres::login_options::LoginOptions;
use crate::postgres::steps::{Step, within};

/// Where releases are notified.
pub(super) struct Direct {
    target: Target,
    logins: LoginOptions,
}

impl Direct {
    pub(super) fn new(target: Target, logins: LoginOptions) -> Self {
        Self { target, logins }
    }

    /// A connection that listens to this channel.
    pub(super) async fn listen(&self, channel: &str) -> Result<PgListener, LockError> {
        let opened = self.logins.open(&self.target, async |target: &Target| {
            let login = log_in(&target.options, Step::LogIn).await?;
            // The listener has a connection of its own, which is made in the same way.
            drop(login.connection);
            listen(&login.way.options, login.took).await
        });
        let mut listener = opened.await?;
        listen_to(&mut listener, channel).await?;
        Ok(listener)
    }
}

/// Listens to a channel as well.
pub(super) async fn listen_to(listener: &mut PgListener, channel: &str) -> Result<(), LockError> {
    within(Step::Listen, async {
        let listening = listener.listen(channel).await;
        listening.map_err(|error| {
            LockError::unavailable("the server of `listen_url` does not LISTEN").with_source(error)
        })
    })
    .await
}
