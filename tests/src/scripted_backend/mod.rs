//! A backend on strings: the test decides how each question is answered, and when.
//!
//! It keeps locks truthfully, as a server would, and plays tricks with the answers: they come late,
//! are lost, are errors, or stay out until they are let go. Time is tokio's, so that it works under
//! a paused clock.

mod backend;
mod play;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lock_core::{LockName, LockProvider, LossReason};
use tokio::sync::watch;

pub use backend::{ScriptedBackendBackend, ScriptedBackendGrant};
pub use play::Play;

use self::play::Script;
use self::table::Table;

/// The strings; clones pull the same scripted backend.
#[derive(Clone, Debug, Default)]
pub struct ScriptedBackend(Arc<Stage>);

#[derive(Debug)]
struct Stage {
    table: Table,
    tries: Script,
    releases: Script,
    tokens: Script,
    health: Script,
    /// Whether a grant can serve another holder.
    hands_over: AtomicBool,
    /// How often answers that hang were let go.
    curtain: watch::Sender<u64>,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            table: Table::default(),
            tries: Script::default(),
            releases: Script::default(),
            tokens: Script::default(),
            health: Script::default(),
            hands_over: AtomicBool::new(false),
            curtain: watch::Sender::new(0),
        }
    }
}

impl ScriptedBackend {
    /// A scripted backend that answers everything immediately, without any locks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A connection.
    #[must_use]
    pub fn backend(&self) -> ScriptedBackendBackend {
        ScriptedBackendBackend::new(Arc::clone(&self.0))
    }

    /// A provider over a connection of its own.
    #[must_use]
    pub fn client(&self) -> LockProvider {
        LockProvider::new(self.backend())
    }

    /// The same with a response timeout.
    #[must_use]
    pub fn client_with(&self, response_timeout: Duration) -> LockProvider {
        LockProvider::builder(self.backend())
            .response_timeout(response_timeout)
            .build()
    }

    /// How the next tries are answered; those after them immediately.
    pub fn tries(&self, plays: impl IntoIterator<Item = Play>) {
        self.0.tries.add(plays);
    }

    /// How all tries are answered for which nothing else was said.
    pub fn every_try(&self, play: Play) {
        self.0.tries.otherwise(play);
    }

    /// From now on everything is answered immediately, as if nothing had been said.
    pub fn behave(&self) {
        for script in [
            &self.0.tries,
            &self.0.releases,
            &self.0.tokens,
            &self.0.health,
        ] {
            script.clear();
        }
    }

    /// How all releases are answered.
    pub fn every_release(&self, play: Play) {
        self.0.releases.otherwise(play);
    }

    /// How all questions for a token are answered.
    pub fn every_token(&self, play: Play) {
        self.0.tokens.otherwise(play);
    }

    /// How all questions for the health are answered.
    pub fn every_health(&self, play: Play) {
        self.0.health.otherwise(play);
    }

    /// From now on a grant can serve one holder after the other.
    pub fn hand_over(&self) {
        self.0.hands_over.store(true, Ordering::Relaxed);
    }

    /// Lets go whatever [hangs](Play::Hang) now.
    pub fn let_go(&self) {
        self.0.curtain.send_modify(|times| *times += 1);
    }

    /// Takes a lock away from its holder, of several readers the first, which is notified.
    pub fn lose(&self, name: &LockName, reason: LossReason) {
        self.0.table.lose(name, reason);
    }

    /// Ends the lease of a lock; the store keeps it for its holder all the same, for a while.
    pub fn expire(&self, name: &LockName) {
        self.0.table.lease_of(name).lose(LossReason::Expired);
    }

    /// Changes are not told any more; who waits asks again after this long.
    pub fn fall_silent(&self, retry_in: Duration) {
        self.0.table.fall_silent(retry_in);
    }

    /// Tells of a change where there is none, or none any more.
    pub fn rumour(&self) {
        self.0.table.rumour();
    }

    /// How many locks are held, by one holder each.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.table.held()
    }

    /// How many tries of this name there were.
    #[must_use]
    pub fn tried(&self, name: &LockName) -> u32 {
        self.0.table.tried(name)
    }

    /// How many tries of this name are under way.
    #[must_use]
    pub fn under_way(&self, name: &LockName) -> u32 {
        self.0.table.under_way(name)
    }

    /// The most tries of one name by one connection that ever were under way together.
    #[must_use]
    pub fn most_under_way(&self) -> u32 {
        self.0.table.most_under_way()
    }
}
