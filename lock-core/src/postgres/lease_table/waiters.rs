//! Locks by their rows, and the callers that wait for them.

use std::borrow::Borrow;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::key::RowKey;
use crate::backend::LockRequest;
use crate::server::leased::{self, KeyGrant, Part, WaiterTable};
use crate::server::{self, Queues};
use crate::{LockMode, LockName};

/// What the driver knows a lock by: its row, and the name that is written into it.
#[derive(Clone, Debug)]
pub struct TableKey {
    pub(super) row: RowKey,
    pub(super) name: LockName,
}

impl TableKey {
    pub(super) fn new(namespace: &str, name: &LockName) -> Self {
        Self {
            row: RowKey::new(namespace, name),
            name: name.clone(),
        }
    }
}

impl PartialEq for TableKey {
    fn eq(&self, other: &Self) -> bool {
        self.row == other.row
    }
}

impl Eq for TableKey {}

impl Hash for TableKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.row.hash(state);
    }
}

/// Equal keys have equal rows, and hash as these do.
impl Borrow<RowKey> for TableKey {
    fn borrow(&self) -> &RowKey {
        &self.row
    }
}

type Table = server::Waiters<TableKey, (), KeyGrant<TableKey>>;

/// The callers that wait, by the locks that they wait for.
pub(super) struct Waiters {
    writers: Arc<Table>,
    /// Nothing is parked for these: they are woken together.
    readers: Arc<Table>,
}

impl Default for Waiters {
    fn default() -> Self {
        let table = || Arc::new(Table::new(Arc::default()));
        Self {
            writers: table(),
            readers: table(),
        }
    }
}

impl Waiters {
    /// Completes when the lock may be free for one of this mode. Registered when this returns.
    pub(super) fn register(
        &self,
        key: TableKey,
        mode: LockMode,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.of(mode.into()).register(key, ())
    }

    fn of(&self, part: Part) -> &Arc<Table> {
        match part {
            Part::Share => &self.readers,
            Part::Whole | Part::Place => &self.writers,
        }
    }

    /// Whether a caller waits for this part of a lock.
    pub(super) fn are_there(&self, key: &TableKey, part: Part) -> bool {
        self.of(part).is_waited_for(key)
    }

    /// What was acquired for the waiters, is still held, and serves this request.
    pub(super) fn take_for(
        &self,
        key: &TableKey,
        request: &LockRequest,
    ) -> Option<KeyGrant<TableKey>> {
        match request.mode() {
            LockMode::Exclusive => self.writers.take_for(key, request),
            LockMode::Shared => None,
        }
    }

    /// The readers that wait for this are to try.
    pub(super) fn wake_readers(&self, key: &TableKey) {
        self.readers.wake(key);
    }

    /// Something of this lock was released: its readers are to try, and the driver for the writers of which the key is
    /// given.
    pub(super) fn released(&self, row: &RowKey) -> Option<TableKey> {
        if let Some(key) = self.readers.waited_key(row) {
            self.readers.wake(&key);
        }
        self.writers.waited_key(row)
    }

    /// The locks that callers wait for.
    pub(super) fn keys(&self) -> Vec<TableKey> {
        let mut keys = self.writers.keys();
        let readers = self.readers.keys().into_iter();
        keys.extend(readers.filter(|key| !self.writers.is_waited_for(key)));
        keys
    }

    /// The locks that writers wait for, once all readers are to try.
    pub(super) fn all(&self) -> Vec<TableKey> {
        self.readers.wake_all();
        self.writers.keys()
    }

    /// Releases what was parked for writers that did not take it in time. Nothing is kept for those that have left.
    pub(super) fn sweep(&self) {
        self.writers.sweep();
        drop((self.writers.take_left(), self.readers.take_left()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writers.is_empty() && self.readers.is_empty()
    }
}

impl WaiterTable for Waiters {
    type Key = TableKey;

    fn is_waited_for(&self, key: &TableKey) -> bool {
        self.writers.is_waited_for(key)
    }

    fn park(&self, key: &TableKey, grant: KeyGrant<TableKey>) {
        // Without a waiter it is dropped, which releases it.
        drop(self.writers.park(key, grant));
    }

    fn wake_waiters(&self, key: &TableKey) {
        self.writers.wake(key);
        self.readers.wake(key);
    }

    fn wake_all(&self) {
        self.writers.wake_all();
        self.readers.wake_all();
    }
}

/// A lock that is held as a row. Dropping it starts the release.
pub type LeaseTableGrant = KeyGrant<TableKey>;
pub(super) type Command = leased::Command<Waiters>;
pub(super) type Acquire = leased::Acquire<Waiters>;
pub(super) type Claim = leased::Claim<Waiters>;
pub(super) type Client = leased::Client<TableKey>;
pub(super) type HeldLock = leased::HeldLock<TableKey>;
pub(super) type Release = leased::Release<TableKey>;
pub(super) type Token = leased::Token<TableKey>;
pub(super) type WhoHolds = leased::WhoHolds<TableKey>;
pub(super) type Commands = Queues<Command, leased::HoldCommand<TableKey>>;
