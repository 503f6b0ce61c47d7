//! What is to be sent, by the keys that can share a call, and the calls that are made of it.

use std::collections::VecDeque;

use ::redis::Cmd;
use tokio::time::Instant;

use super::moves::{Doubt, Proof};
use crate::redis::command::Release;
use crate::redis::command::{Acquire, Claim, Probe};
use crate::redis::key::{millis, prefix};
use crate::redis::scripts::EXCHANGE;
use crate::redis::settings::Settings;

/// How many locks one call releases or acquires.
const MAX_BATCH: usize = 128;

/// Keys that can share a call: all of a server, or a bucket of a cluster.
pub(super) struct Lane {
    pub(super) server_key: String,
    /// In a cluster, that of its keys.
    pub(super) bucket: u8,
    pub(super) node: usize,
    pub(super) releases: VecDeque<Release>,
    pub(super) acquires: VecDeque<Acquire>,
    pub(super) claims: VecDeque<Claim>,
    pub(super) probes: Vec<Probe>,
    /// The server is to be told that its clock jumped.
    pub(super) jumped: bool,
    /// Whether the slot was moved, or its master has ended.
    pub(super) doubt: Option<Doubt>,
    /// Which of them, as far as that is known.
    pub(super) proof: Option<Proof>,
    /// Until when nothing is sent: the slot is being moved.
    pub(super) rests_until: Option<Instant>,
    /// How many calls are not answered yet.
    pub(super) in_flight: usize,
    /// Whether the last call was for a claim: they take turns with acquires.
    claimed: bool,
}

impl Lane {
    pub(super) fn new(server_key: String, bucket: u8, node: usize) -> Self {
        Self {
            server_key,
            bucket,
            node,
            releases: VecDeque::new(),
            acquires: VecDeque::new(),
            claims: VecDeque::new(),
            probes: Vec::new(),
            jumped: false,
            doubt: None,
            proof: None,
            rests_until: None,
            in_flight: 0,
            claimed: false,
        }
    }

    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.releases.is_empty()
            && self.acquires.is_empty()
            && self.claims.is_empty()
            && self.probes.is_empty()
            && !self.jumped
            && self.proof.is_none()
    }

    /// Whether there is nothing to send and nothing to hear of.
    pub(super) fn is_idle(&self) -> bool {
        self.is_empty() && self.in_flight == 0
    }

    /// Whether nothing is sent for now.
    pub(super) fn rests(&mut self) -> bool {
        let rests = self.rests_until.is_some_and(|until| until > Instant::now());
        if !rests {
            self.rests_until = None;
        }
        rests
    }

    /// What goes into the next call.
    pub(super) fn take(&mut self) -> Batch {
        let releases = self.releases.len().min(MAX_BATCH);
        let mut batch = Batch {
            releases: self.releases.drain(..releases).collect(),
            acquires: Vec::new(),
            limit: None,
            probes: std::mem::take(&mut self.probes),
            jumped: std::mem::take(&mut self.jumped),
            proof: self.proof.take().filter(Proof::counts),
        };
        let is_turn = !self.claimed || self.acquires.is_empty();
        let claim = self.claims.pop_front_if(|_| is_turn);
        self.claimed = claim.is_some();
        if let Some(claim) = claim {
            batch.limit = Some(claim.limit);
            batch.acquires = claim.acquires;
            return batch;
        }
        while batch.releases.len() + batch.acquires.len() < MAX_BATCH {
            match self.acquires.pop_front() {
                // Nobody waits for it.
                Some(acquire) if acquire.reply.is_closed() => {}
                Some(acquire) => batch.acquires.push(acquire),
                None => break,
            }
        }
        batch
    }
}

/// What travels in one call.
#[derive(Default)]
pub(in crate::redis) struct Batch {
    pub(super) releases: Vec<Release>,
    pub(super) acquires: Vec<Acquire>,
    /// How many of the acquires are to be granted at most, if they are a claim.
    pub(super) limit: Option<usize>,
    pub(super) probes: Vec<Probe>,
    pub(super) jumped: bool,
    pub(super) proof: Option<Proof>,
}

impl Batch {
    /// Asks whether locks could be granted.
    pub(in crate::redis) fn probe(probe: Probe) -> Self {
        Self {
            probes: vec![probe],
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.releases.is_empty()
            && self.acquires.is_empty()
            && self.probes.is_empty()
            && !self.jumped
            && self.proof.is_none()
    }

    pub(in crate::redis) fn call(
        &self,
        settings: &Settings,
        server_key: &str,
        not_after: u64,
        newest: u64,
        is_cluster: bool,
    ) -> Cmd {
        let locks = || {
            let releases = self.releases.iter().map(|r| (&r.key, r.owner));
            releases.chain(self.acquires.iter().map(|a| (&a.key, a.owner)))
        };
        let count = self.releases.len() + self.acquires.len();
        let mut call = EXCHANGE.call(1 + count, 11 + count);
        call.arg(server_key);
        locks().for_each(|(key, _)| {
            call.arg(&*key.text);
        });
        call.arg(not_after)
            .arg(millis(settings.lease))
            .arg(millis(settings.quarantine))
            .arg(newest)
            // In a cluster the message stays on the node of the lock.
            .arg(if is_cluster { "SPUBLISH" } else { "PUBLISH" })
            .arg(self.releases.len())
            .arg(u8::from(self.jumped))
            .arg(u8::from(!self.probes.is_empty()))
            .arg(self.limit.unwrap_or(self.acquires.len()));
        match &self.proof {
            Some(proof) => call.arg(&proof.server).arg(millis(proof.age)),
            None => call.arg("").arg(0),
        };
        locks().for_each(|(_, owner)| {
            call.arg(&prefix(owner)[..]);
        });
        call
    }

    /// Notes that this server may take the releases later.
    pub(super) fn mark_sent(&mut self, server: u64) {
        for release in &mut self.releases {
            release.sent_to.get_or_insert(server);
        }
    }
}
