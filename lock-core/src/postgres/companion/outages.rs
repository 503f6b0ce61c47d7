//! What the log says of a database that does not hold the locks.

use crate::LockError;
use crate::outage::{Outage, SoFar};

/// What the log says, and of what.
pub(super) struct Outages {
    server: String,
    /// There is no connection.
    away: Outage,
    /// There is one that can keep no mark.
    unfit: Outage,
    /// The database has the mark of another provider.
    other: Outage,
    panics: Outage,
}

impl Outages {
    pub(super) fn new(server: String) -> Self {
        Self {
            server,
            away: Outage::new(),
            unfit: Outage::new(),
            other: Outage::new(),
            panics: Outage::new(),
        }
    }

    pub(super) fn is_away(&mut self, error: &LockError) {
        self.away.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                server = self.server,
                error = error as &dyn std::error::Error,
                failures,
                lasting,
                "cannot connect to the database, which does not hold the locks; retrying"
            );
        });
    }

    pub(super) fn is_back(&mut self) {
        self.away.over(|lasted| {
            tracing::info!(
                server = self.server,
                ?lasted,
                "connected to the database again"
            );
        });
    }

    pub(super) fn is_unfit(&mut self, error: &LockError) {
        self.unfit.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                server = self.server,
                error = error as &dyn std::error::Error,
                failures,
                lasting,
                "cannot detect instances that use another lock provider"
            );
        });
    }

    pub(super) fn is_fit(&mut self) {
        self.unfit.over(|lasted| {
            tracing::info!(
                server = self.server,
                ?lasted,
                "instances that use another lock provider can be detected again"
            );
        });
    }

    pub(super) fn is_marked(&mut self, error: &LockError) {
        self.other.failed(|SoFar { failures, lasting }| {
            tracing::error!(
                server = self.server, %error, failures, lasting,
                "instances of this service use different lock providers and do NOT exclude each other"
            );
        });
    }

    pub(super) fn is_unmarked(&mut self) {
        self.other.over(|lasted| {
            tracing::info!(
                server = self.server,
                ?lasted,
                "no instance uses another lock provider any more"
            );
        });
    }

    pub(super) fn panicked(&mut self, reason: &str) {
        self.panics.failed(|SoFar { failures, lasting }| {
            tracing::error!(
                server = self.server,
                reason,
                failures,
                lasting,
                "the connection to the database panicked, and is made again"
            );
        });
    }
}
