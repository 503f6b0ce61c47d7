//! What the thread of a backend shares with the tasks that use it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::connections::Connections;
use super::direct::Direct;
use super::mark::RowMark;
use super::setup::{Setup, Table};
use super::waiters::{Client, Command, Commands, Release, TableKey, Waiters};
use crate::LockError;
use crate::backend::{BootClock, Clock};
use crate::entropy;
use crate::instance::Instance;
use crate::server::LeaseTerms;
use crate::server::driver::Users;
use crate::server::leased::{Held, KeyReleases, Owner};

/// What was chosen about a table.
pub(super) struct Chosen {
    pub(super) namespace: String,
    pub(super) token_epoch: u8,
    pub(super) terms: LeaseTerms,
    pub(super) setup: Setup,
    /// What tells other processes that locks are here, where configuration chose the table.
    pub(super) mark: Option<RowMark>,
}

pub(super) struct Shared {
    pub(super) chosen: Chosen,
    /// What this process is called in the rows that it writes.
    pub(super) holder: String,
    pub(super) connections: Connections,
    /// Where releases are heard of, if they are.
    pub(super) direct: Option<Direct>,
    is_listening: AtomicBool,
    pub(super) queues: Arc<Commands>,
    pub(super) held: Arc<Held<TableKey>>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) clock: Arc<dyn Clock>,
    /// Of this process, at random.
    identity: u64,
    owners: AtomicU64,
    requests: AtomicI64,
}

impl Shared {
    pub(super) fn new(
        chosen: Chosen,
        instance: &Instance,
        connections: Connections,
        direct: Option<Direct>,
    ) -> Result<Self, LockError> {
        Ok(Self {
            chosen,
            holder: instance.as_str().to_owned(),
            connections,
            direct,
            is_listening: AtomicBool::new(false),
            queues: Arc::default(),
            held: Arc::default(),
            waiters: Arc::default(),
            clock: Arc::new(BootClock),
            identity: u64::from_ne_bytes(entropy::bytes()?),
            owners: AtomicU64::new(0),
            requests: AtomicI64::new(0),
        })
    }

    /// For an acquire that is sent: at random for each, since copies of a virtual machine go on with the same
    /// numbers.
    pub(super) fn new_owner(&self) -> Owner {
        Owner {
            connection: entropy::bytes().map_or(self.identity, u64::from_ne_bytes),
            number: self.owners.fetch_add(1, Ordering::Relaxed),
            ..Owner::default()
        }
    }

    /// Whose the places of its writers are; not 0.
    pub(super) fn process(&self) -> u128 {
        u128::from(self.identity) << 64 | 1
    }

    /// Has the driver give up the place that the writers of this process had before readers. It ends by itself in a
    /// lease.
    pub(super) fn give_up_place(&self, key: TableKey) {
        let until = self.clock.now() + self.chosen.terms.lease();
        let release = Release::of_place(key, self.identity, until, None);
        self.queues.requests.push(Command::Release(release));
    }

    /// That of a request, which its answer repeats.
    pub(super) fn number(&self) -> i64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// What the driver shares with the tasks that use it.
    pub(super) fn users(&self, client: Weak<Client>) -> Users<Waiters> {
        Users {
            queues: Arc::clone(&self.queues),
            held: Arc::clone(&self.held),
            waiters: Arc::clone(&self.waiters),
            clock: Arc::clone(&self.clock),
            terms: self.chosen.terms,
            client,
        }
    }

    /// Whether releases are heard of now.
    pub(super) fn is_listening(&self) -> bool {
        self.is_listening.load(Ordering::Relaxed)
    }

    pub(super) fn set_listening(&self, listening: bool) {
        self.is_listening.store(listening, Ordering::Relaxed);
    }

    /// What users hold: dropped before the thread has answered, it ends the thread.
    pub(super) fn client(&self) -> Arc<Client> {
        self.queues.client(KeyReleases {
            held: Arc::clone(&self.held),
            clock: Arc::clone(&self.clock),
            terms: self.chosen.terms,
            store: "PostgreSQL",
        })
    }
}

/// What the tasks that use a backend know of it.
pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Arc<Client>,
    pub(super) table: Table,
    /// One list at a time.
    pub(super) listing: Arc<tokio::sync::Mutex<()>>,
}
