//! What the log says of the second connection of a node.

use std::error::Error;

use ::redis::ConnectionInfo;

use crate::outage::{Outage, SoFar};

/// What the log says of one node.
pub(super) struct Outages {
    server: String,
    /// There is no connection.
    away: Outage,
    /// There is one, and the server does not subscribe.
    refused: Outage,
    /// It does not say what its replicas know.
    silent: Outage,
}

impl Outages {
    pub(super) fn new(node: &ConnectionInfo) -> Self {
        Self {
            server: node.addr().to_string(),
            away: Outage::new(),
            refused: Outage::new(),
            silent: Outage::new(),
        }
    }

    pub(super) fn is_away(&mut self, error: &dyn Error) {
        self.away.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                server = %self.server, %error, failures, lasting,
                "cannot subscribe to releases in Redis: waiters poll until the connection is back"
            );
        });
    }

    pub(super) fn is_back(&mut self) {
        self.away.over(|lasted| {
            tracing::info!(server = %self.server, ?lasted, "subscribed to releases in Redis again");
        });
    }

    pub(super) fn is_refused(&mut self, error: &dyn Error) {
        self.refused.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                server = %self.server, %error, failures, lasting,
                "the Redis server refuses a subscription: waiters poll until it accepts one"
            );
        });
    }

    pub(super) fn is_taken(&mut self) {
        self.refused.over(|lasted| {
            tracing::info!(server = %self.server, ?lasted, "the Redis server accepts subscriptions again");
        });
    }

    pub(super) fn is_silent(&mut self, error: &dyn Error) {
        self.silent.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                server = %self.server, %error, failures, lasting,
                "the Redis server does not report what its replicas have acknowledged: no lock is granted"
            );
        });
    }

    pub(super) fn speaks(&mut self) {
        self.silent.over(|lasted| {
            tracing::info!(server = %self.server, ?lasted, "the Redis server reports again what its replicas have acknowledged");
        });
    }
}
