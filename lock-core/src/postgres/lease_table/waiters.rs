//! Locks by their rows, and the callers that wait for them.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::key::RowKey;
use crate::LockName;
use crate::server::leased::{self, KeyGrant, WaiterTable};
use crate::server::{self, Queues};

/// What the driver knows a lock by: its row, and the name that is written into it.
#[derive(Clone, Debug)]
pub(super) struct TableKey {
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
pub(super) struct Waiters(pub(super) Arc<Table>);

impl Default for Waiters {
    fn default() -> Self {
        Self(Arc::new(Table::new(Arc::default())))
    }
}

impl WaiterTable for Waiters {
    type Key = TableKey;

    fn is_waited_for(&self, key: &TableKey) -> bool {
        self.0.is_waited_for(key)
    }

    fn park(&self, key: &TableKey, grant: KeyGrant<TableKey>) {
        // Without a waiter it is dropped, which releases it.
        drop(self.0.park(key, grant));
    }

    fn wake_waiters(&self, key: &TableKey) {
        self.0.wake(key);
    }

    fn wake_all(&self) {
        self.0.wake_all();
    }
}

pub(super) type Command = leased::Command<Waiters>;
pub(super) type Acquire = leased::Acquire<Waiters>;
pub(super) type Claim = leased::Claim<Waiters>;
pub(super) type Client = leased::Client<TableKey>;
pub(super) type HeldLock = leased::HeldLock<TableKey>;
pub(super) type Release = leased::Release<TableKey>;
pub(super) type Token = leased::Token<TableKey>;
pub(super) type WhoHolds = leased::WhoHolds<TableKey>;
pub(super) type Commands = Queues<Command, leased::HoldCommand<TableKey>>;
