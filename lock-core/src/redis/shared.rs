//! What the thread of a backend shares with the tasks that use it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::command::{Client, Command, Release};
use super::key::Key;
use super::sentinel::Sentinels;
use super::servers::Servers;
use super::settings::Settings;
use super::split::Split;
use super::waiting::Waiting;
use crate::backend::{BootClock, Clock};
use crate::server::Queues;
use crate::server::driver::Users;
use crate::server::leased::{Held, HoldCommand, KeyReleases, Owner};

pub(super) struct Shared {
    pub(super) settings: Settings,
    /// Which say what server it is.
    pub(super) sentinels: Option<Sentinels>,
    pub(super) queues: Arc<Queues<Command, HoldCommand<Key>>>,
    pub(super) held: Arc<Held<Key>>,
    pub(super) waiting: Arc<Waiting>,
    pub(super) servers: Servers,
    pub(super) split: Split,
    pub(super) clock: Arc<dyn Clock>,
    /// The slot of each bucket, once a cluster has told it.
    pub(super) slots: OnceLock<Vec<u16>>,
    owners: AtomicU64,
}

impl Shared {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            sentinels: Sentinels::of(&settings),
            settings,
            queues: Arc::default(),
            held: Arc::default(),
            waiting: Arc::default(),
            servers: Servers::default(),
            split: Split::default(),
            clock: Arc::new(BootClock),
            slots: OnceLock::new(),
            owners: AtomicU64::new(0),
        }
    }

    /// What users hold: dropped before the thread has answered, it ends the thread.
    pub(super) fn client(&self) -> Arc<Client> {
        self.queues.client(KeyReleases {
            held: Arc::clone(&self.held),
            clock: Arc::clone(&self.clock),
            terms: self.settings.terms(),
            store: "Redis",
        })
    }

    /// What the driver shares with the tasks that use it.
    pub(super) fn users(&self, client: Weak<Client>) -> Users<Waiting> {
        Users {
            queues: Arc::clone(&self.queues),
            held: Arc::clone(&self.held),
            waiters: Arc::clone(&self.waiting),
            clock: Arc::clone(&self.clock),
            terms: self.settings.terms(),
            client,
        }
    }

    /// For an acquire that is sent over the connection of this identity.
    pub(super) fn new_owner(&self, connection: u64) -> Owner {
        Owner {
            connection,
            number: self.owners.fetch_add(1, Ordering::Relaxed),
            ..Owner::default()
        }
    }

    /// Has the driver give back the place that a writer had before readers, which was taken over this connection. It
    /// ends by itself in a lease. `ghost` is until when the server may take it yet, where the try was not answered.
    pub(super) fn give_back_place(&self, key: Key, connection: u64, ghost: Option<Duration>) {
        let until = self.clock.now() + self.settings.lease;
        let release = Release::of_place(key, connection, until, ghost);
        self.queues.requests.push(Command::Release(release));
    }

    /// Gives back the places of all writers, of which none waits any longer: no caller is left.
    pub(super) fn give_back_places(&self) {
        for (key, connection) in self.waiting.take_places() {
            self.give_back_place(key, connection, None);
        }
    }
}
