//! What the answers of the scripts, or none, mean for the callers.

use std::sync::Arc;
use std::time::Duration;

use super::answers::{ANOTHER, BAD_NOTE, FOREIGN, UNBELIEVABLE, believable, pause};
use super::foreign::Foreign;
use crate::LockError;
use crate::redis::key::Key;
use crate::redis::not_now::because;
use crate::redis::rights::Asked;
use crate::redis::scripts::{Failure, says_moving};
use crate::redis::shared::Shared;
use crate::server::protocol::{Acquired, Failed, Refusal, Then};

/// Between calls for keys of a slot that is being moved.
const REST: Duration = Duration::from_millis(100);

/// How long the end of such a move is waited for before it is reported.
const MOVING_FOR: Duration = Duration::from_millis(500);

const IS_MOVING: &str = "the slot of the lock is being moved from one node of the Redis cluster to another, \
    and the move does not come to its end: finish it, or take it back";

const NOT_DONE: &str = "the Redis server did not execute the request";

pub(super) struct Verdicts {
    shared: Arc<Shared>,
    is_cluster: bool,
    foreign: Foreign,
    /// The newest token that we know of.
    newest: u64,
}

/// What the script says that issues a token.
pub(super) enum Token {
    New(u64),
    /// The lock is not held any more.
    None,
    /// The server key is of another server, or missing.
    Another,
    Failed(LockError),
}

impl Verdicts {
    pub(super) fn new(shared: Arc<Shared>, is_cluster: bool) -> Self {
        Self {
            shared,
            is_cluster,
            foreign: Foreign::default(),
            newest: 0,
        }
    }

    pub(super) const fn newest(&self) -> u64 {
        self.newest
    }

    /// What the scripts ask for.
    fn asked(&self) -> Asked<'_> {
        Asked::by_scripts(&self.shared.settings, self.is_cluster)
    }

    /// Of an acquire that was answered so, at this time of the server.
    pub(super) fn acquired(
        &mut self,
        server_key: &str,
        key: &Key,
        answer: Result<i64, String>,
        time: u64,
    ) -> Acquired {
        match answer.and_then(|answer| believable(answer, time)) {
            Ok(token @ 1..) => {
                let token = token.unsigned_abs();
                self.newest = self.newest.max(token);
                Acquired::Granted(token)
            }
            // By the server's clock, which we know now.
            Ok(0) => Acquired::Again,
            Ok(wait) => Acquired::Refused(Refusal::Held {
                retry_in: Some(pause(wait)),
            }),
            Err(said) if said == UNBELIEVABLE => {
                Acquired::Void(self.refusal(server_key, key, said))
            }
            Err(said) => Acquired::Refused(self.refusal(server_key, key, said)),
        }
    }

    /// What the script says of an acquire that is no number.
    fn refusal(&mut self, server_key: &str, key: &Key, said: String) -> Refusal {
        if let Some(lacking) = self.lacking_as_said(&said) {
            return Refusal::Error(lacking.with_source(said));
        }
        if said == BAD_NOTE {
            return Refusal::Error(bad_note(server_key));
        }
        if says_moving(&said) {
            // To be asked for where it is by then.
            let retry_in = Some(REST);
            return Refusal::Held { retry_in };
        }
        if said == FOREIGN {
            self.foreign.tell(key);
            return Refusal::Held {
                retry_in: Some(self.shared.settings.lease),
            };
        }
        let because = because(&said);
        let refused = format!("the Redis server refused to lock `{}`{because}", key.text);
        Refusal::Error(LockError::unavailable(refused).with_source(said))
    }

    /// Of a token that was asked for.
    pub(super) fn issued(
        &mut self,
        server_key: &str,
        answer: Result<i64, String>,
        time: u64,
    ) -> Token {
        match answer.and_then(|number| believable(number, time)) {
            Ok(issued @ 1..) => {
                self.newest = self.newest.max(issued.unsigned_abs());
                Token::New(issued.unsigned_abs())
            }
            Ok(_) => Token::None,
            Err(said) if said == ANOTHER => Token::Another,
            Err(said) if said == BAD_NOTE => Token::Failed(bad_note(server_key)),
            Err(said) => {
                let because = because(&said);
                let error = format!("the Redis server issued no fencing token{because}");
                Token::Failed(LockError::unavailable(error).with_source(said))
            }
        }
    }

    /// Of a batch without an answer.
    pub(super) fn failed(&self, failure: &Failure) -> Failed {
        let is_moving = failure.is_moving();
        let then = match failure {
            _ if is_moving => Then::Rest {
                pause: REST,
                patience: MOVING_FOR,
            },
            _ if failure.is_elsewhere() => Then::Again,
            Failure::Refused(_) => Then::Refuse,
            Failure::Unknown(_) | Failure::Nonsense => Then::Undo,
        };
        let not_done = || match is_moving {
            true => LockError::unavailable(IS_MOVING),
            false => LockError::unavailable(format!("{NOT_DONE}{}", because(failure.code()))),
        };
        Failed {
            then,
            error: self.lacking(failure).unwrap_or_else(not_done),
            reason: failure.to_string(),
        }
    }

    /// Why the server did not do what an entry of a call asks for, if these words say that rights or the command are
    /// lacking. An administrator may be about to give them back.
    pub(super) fn lacking_as_said(&self, said: &str) -> Option<LockError> {
        let lacking = self.asked().lacking(said)?;
        Some(lacking.duplicate_as_unavailable())
    }

    /// The same of a whole call.
    pub(super) fn lacking(&self, failure: &Failure) -> Option<LockError> {
        let lacking = failure.lacking(self.asked())?;
        Some(lacking.duplicate_as_unavailable())
    }
}

/// Whether locks can be granted, of which the script says this.
pub(super) fn probed(server_key: &str, left: &Result<i64, String>) -> Result<(), LockError> {
    match left {
        Ok(_) => Ok(()),
        Err(said) if said == BAD_NOTE => Err(bad_note(server_key)),
        Err(said) => {
            let error = format!("the Redis server cannot grant locks{}", because(said));
            Err(LockError::unavailable(error).with_source(said.clone()))
        }
    }
}

/// Nothing can be granted, and no retry mends it.
fn bad_note(server_key: &str) -> LockError {
    LockError::misconfigured(format!(
        "the Redis key `{server_key}` was written by another program, or the server's clock was put back by \
         more than a day: it names a quarantine of more than 24 h, or a token that is more than a \
         day ahead of the server's time. No lock is granted until it is deleted; before that, make \
         sure that the clock is right and that no storage has seen such a token"
    ))
}
