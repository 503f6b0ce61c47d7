//! Where callers and the driver meet: commands one way, answers back.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::backend::PostgresGrant;
use super::board::Board;
use super::transaction::DatabaseIdentity;
use crate::LockError;
use crate::backend::Attempt;
use crate::name::key::PostgresKeys;

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
    inbox: Mutex<Inbox>,
    bell: Notify,
    pub(super) board: Board,
    /// Where the session is, while there is one.
    home: Mutex<Option<DatabaseIdentity>>,
}

#[derive(Default)]
struct Inbox {
    commands: Vec<Command>,
    /// Whether the driver waits for the bell; awake it looks by itself.
    is_asleep: bool,
    /// No handle is left, so that no command will come.
    is_closed: bool,
    /// The driver is gone, so that no command will be answered.
    is_abandoned: bool,
}

impl Desk {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the locks are; `None` while there is no session.
    pub(super) fn home(&self) -> Option<DatabaseIdentity> {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_home(&self, home: Option<DatabaseIdentity>) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = home;
    }

    /// Hands a command to the driver. One that nobody will answer is dropped, which its caller sees.
    pub(super) fn send(&self, command: Command) {
        let mut inbox = self.inbox();
        if inbox.is_abandoned {
            drop(inbox);
            drop(command);
            return;
        }
        inbox.commands.push(command);
        let is_asleep = std::mem::take(&mut inbox.is_asleep);
        drop(inbox);
        if is_asleep {
            self.ring();
        }
    }

    /// Has the driver look at what has changed.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Completes when a command has come, or something else may have changed.
    pub(super) async fn rung(&self) {
        {
            let mut inbox = self.inbox();
            if !inbox.commands.is_empty() {
                return;
            }
            inbox.is_asleep = true;
        }
        self.bell.notified().await;
    }

    pub(super) fn has_commands(&self) -> bool {
        !self.inbox().commands.is_empty()
    }

    /// Moves all commands to `backlog`, oldest first. Tells whether more can come.
    pub(super) fn take(&self, backlog: &mut impl Extend<Command>) -> bool {
        let mut inbox = self.inbox();
        inbox.is_asleep = false;
        backlog.extend(inbox.commands.drain(..));
        !inbox.is_closed
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inbox().is_closed
    }

    fn close(&self) {
        self.inbox().is_closed = true;
        self.ring();
    }

    /// The driver is gone: whoever waits hears it.
    pub(super) fn abandon(&self) {
        let mut inbox = self.inbox();
        inbox.is_abandoned = true;
        let commands = std::mem::take(&mut inbox.commands);
        drop(inbox);
        drop(commands);
        self.board.wake_all();
    }
}

/// What keeps the driver going: the backend, its grants, those who wait. The drop of the last one
/// ends the driver, after the releases that are under way.
pub(super) struct Handle(Arc<Desk>);

impl Handle {
    pub(super) fn new(desk: Arc<Desk>) -> Arc<Self> {
        Arc::new(Self(desk))
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
        self.0.close();
    }
}
