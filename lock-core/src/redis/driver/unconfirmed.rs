//! Grants and probes that wait for replicas to know of them.

use crate::LockError;
use crate::backend::Attempt;
use crate::redis::command::KeyGrant;
use crate::redis::command::{Probe, Reply};

/// What replicas are asked for.
pub(super) struct Unconfirmed {
    pub(super) of: For,
    pub(super) lane: usize,
}

pub(super) enum For {
    /// A lock that they may not know yet. Dropped, it is released.
    Grant(KeyGrant, Reply),
    /// Whether they would know one.
    Probe(Probe),
}

impl Unconfirmed {
    /// Enough replicas know of it.
    pub(super) fn give(self) {
        match self.of {
            For::Grant(grant, reply) => reply.send(Ok(Attempt::Granted(grant))),
            // Who asked may have left.
            For::Probe(probe) => drop(probe.send(Ok(()))),
        }
    }

    /// Too few do.
    pub(super) fn refuse(self) {
        let too_few =
            LockError::unavailable("too few replicas of the Redis server knew of the lock in time");
        match self.of {
            For::Grant(grant, reply) => {
                // Released before the answer, so that the next try finds it free.
                drop(grant);
                reply.send(Err(too_few));
            }
            For::Probe(probe) => drop(probe.send(Err(too_few))),
        }
    }
}
