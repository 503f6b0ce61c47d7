//! Granted locks, and what they ask of the driver.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use super::errors;
use super::key::{AdvisoryKey, Keys};
use crate::LockError;
use crate::backend::{Grant, Lease};
use crate::server::{self, Releases, Reply, ServerGrant};

/// One acquisition of one lock. The number is never used twice, so that what is left of an earlier
/// hold, or of an earlier session, does not touch a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) keys: Keys,
    pub(super) owner: u64,
    /// Whether others hold the lock as well.
    pub(super) is_shared: bool,
}

/// What a grant asks of the driver.
pub(super) enum HoldCommand {
    Release {
        hold: Hold,
        reply: Option<Reply<()>>,
    },
    Token {
        hold: Hold,
        reply: Reply<u64>,
    },
}

/// What keeps the driver going: the backend and its grants. The drop of the last one ends the driver,
/// after the releases that are under way.
pub(super) type Client = server::Client<SessionReleases>;

/// A lock is released on its session, by the number of its hold.
pub(super) struct SessionReleases;

impl Releases for SessionReleases {
    type Hold = Hold;
    type Command = HoldCommand;

    fn release(&self, hold: &Hold, _: &Lease, reply: Option<Reply<()>>) -> HoldCommand {
        HoldCommand::Release { hold: *hold, reply }
    }

    fn disconnected(&self) -> LockError {
        errors::disconnected()
    }
}

/// A lock that is held in PostgreSQL.
pub struct PostgresGrant(ServerGrant<SessionReleases>);

impl PostgresGrant {
    pub(super) fn new(client: Arc<Client>, hold: Hold, lease: Lease) -> Self {
        Self(ServerGrant::new(client, hold, lease))
    }

    /// What it holds on the server.
    pub(super) fn key(&self) -> AdvisoryKey {
        self.0.hold().keys.key()
    }
}

impl Grant for PostgresGrant {
    fn lease(&self) -> &Lease {
        self.0.lease()
    }

    async fn release(self) -> Result<(), LockError> {
        self.0.release().await
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        let (client, hold) = (Arc::clone(self.0.client()), *self.0.hold());
        async move {
            let token = |reply| HoldCommand::Token { hold, reply };
            client.ask(token).await
        }
    }

    /// Each token is of a transaction of its own, which begins after it was asked for.
    fn hand_over(&mut self) -> bool {
        self.0.is_of_this_process()
    }
}

impl fmt::Debug for PostgresGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresGrant").finish_non_exhaustive()
    }
}
