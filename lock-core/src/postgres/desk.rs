//! Where callers and the driver meet: commands one way, answers back.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::backend::PostgresGrant;
use super::errors;
use super::transaction::DatabaseIdentity;
use crate::LockError;
use crate::backend::Attempt;
use crate::name::key::PostgresKeys;
use crate::panics::catch;
use crate::server::{Board, Host, Inbox, Stop};

pub(super) type Reply<T> = oneshot::Sender<Result<T, LockError>>;

/// A command for the driver.
pub(super) enum Command {
    Try {
        keys: PostgresKeys,
        reply: Reply<Attempt<PostgresGrant>>,
    },
    /// Of these keys as many as are free, up to the limit; positions and grants.
    Claim {
        keys: Vec<PostgresKeys>,
        limit: usize,
        reply: Reply<Vec<(usize, PostgresGrant)>>,
    },
    Release {
        hold: Hold,
        reply: Option<Reply<()>>,
    },
    Token {
        hold: Hold,
        reply: Reply<u64>,
    },
    Health {
        reply: Reply<()>,
    },
}

/// One acquisition of one lock. The number is never used twice, so that what is left of an earlier
/// hold, or of an earlier session, does not touch a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) keys: PostgresKeys,
    pub(super) owner: u64,
}

/// What callers and the driver share.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) inbox: Inbox<Command>,
    pub(super) board: Board<Handle>,
    /// Where the session is, while there is one.
    home: Mutex<Option<DatabaseIdentity>>,
    pub(super) stop: Stop,
}

impl Desk {
    /// Where the locks are; `None` while there is no session.
    pub(super) fn home(&self) -> Option<DatabaseIdentity> {
        let home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        home.clone()
    }

    pub(super) fn set_home(&self, home: Option<DatabaseIdentity>) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = home;
    }

    /// The driver is gone: whoever waits hears it.
    pub(super) fn abandon(&self) {
        // Each runs wakers, which are the application's and can panic.
        let _ = catch(|| self.inbox.abandon());
        let _ = catch(|| self.board.wake_all());
        self.stop.done();
    }

    /// Why there is no session, or no answer.
    pub(super) fn gone(&self) -> LockError {
        if self.stop.is_asked() {
            LockError::closed()
        } else {
            errors::disconnected()
        }
    }
}

/// What keeps the driver going: the backend, its grants, those who wait. The drop of the last one
/// ends the driver, after the releases that are under way.
pub(super) struct Handle(Arc<Desk>);

impl Handle {
    pub(super) fn new(desk: Arc<Desk>) -> Arc<Self> {
        Arc::new(Self(desk))
    }

    /// Ends the driver, also while others use it; completes when its session is closed.
    pub(super) async fn close(&self) {
        self.stop.ask();
        self.inbox.close();
        self.stop.finished().await;
    }
}

impl Host for Handle {
    type Key = i64;
    type About = PostgresKeys;
    type Grant = PostgresGrant;

    fn board(&self) -> &Board<Self> {
        &self.0.board
    }

    fn left(&self) {
        // Whoever left may have been registered on the server.
        self.0.inbox.ring();
    }
}

impl Deref for Handle {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.inbox.close();
    }
}
