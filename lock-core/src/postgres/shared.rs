//! What callers and the driver share: requests one way, replies and parked grants back.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::held::{HoldCommand, PostgresGrant};
use super::key::Keys;
use super::session::KeyWaiters;
use super::transaction::DatabaseIdentity;
use crate::backend::Attempt;
use crate::panics::catch;
use crate::server::{self, Queues, Reply};
use crate::{Holder, ListedLock};

/// What the backend asks of the driver.
pub(super) enum Request {
    Try {
        keys: Keys,
        reply: Reply<Attempt<PostgresGrant>>,
    },
    /// A try of a reader.
    Read {
        keys: Keys,
        reply: Reply<Attempt<PostgresGrant>>,
    },
    /// Of these keys as many as are free, up to the limit; positions and grants.
    Claim {
        keys: Vec<Keys>,
        limit: usize,
        asked: Instant,
        reply: Reply<Vec<(usize, PostgresGrant)>>,
    },
    Holder {
        keys: Keys,
        reply: Reply<Option<Holder>>,
    },
    /// What is held: up to one more than the limit.
    List {
        limit: usize,
        reply: Reply<Vec<ListedLock>>,
    },
    Health {
        reply: Reply<()>,
    },
}

/// The callers that wait, by the keys of their locks.
pub(super) type Waiters = server::Waiters<i64, Keys, PostgresGrant>;

/// What callers and the driver share.
pub(super) struct Shared {
    pub(super) queues: Queues<Request, HoldCommand>,
    /// Those that wait for a lock that they alone are to hold.
    pub(super) waiters: Arc<Waiters>,
    /// Those that wait for a lock to hold it with others.
    pub(super) readers: Arc<Waiters>,
    /// Where the session is, while there is one.
    home: Mutex<Option<DatabaseIdentity>>,
}

impl Default for Shared {
    fn default() -> Self {
        let queues = Queues::default();
        // A waiter that leaves may have been registered on the server.
        let waiters = || Arc::new(Waiters::new(queues.signal.bell()));
        Self {
            waiters: waiters(),
            readers: waiters(),
            queues,
            home: Mutex::default(),
        }
    }
}

impl Shared {
    /// Where the locks are; `None` while there is no session.
    pub(super) fn home(&self) -> Option<DatabaseIdentity> {
        let home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        home.clone()
    }

    pub(super) fn set_home(&self, home: Option<DatabaseIdentity>) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = home;
    }

    /// The driver is gone: requests are not answered, and waiters are woken to see that.
    pub(super) fn abandon(&self) {
        self.queues.abandon();
        // It runs wakers, which are the application's and can panic.
        let _ = catch(|| self.wake_all());
        self.queues.stop.done();
    }
}

/// Of both kinds.
impl KeyWaiters for Shared {
    fn is_empty(&self) -> bool {
        self.waiters.is_empty() && self.readers.is_empty()
    }

    fn are_for(&self, key: i64) -> bool {
        self.waiters.is_waited_for(&key) || self.readers.is_waited_for(&key)
    }

    fn wake_all(&self) {
        self.waiters.wake_all();
        self.readers.wake_all();
    }
}
