//! One question for many names, which is asked to the end also when its caller has left.

use std::time::Duration;

use super::exchange::{detach, settle};
use super::{Shared, Turn};
use crate::LockError;
use crate::backend::{Granted, LockRequest, ManyCommand};

/// A command for many names, with their turns; as an `Exchange` it is asked to the end.
pub(super) struct Claim {
    command: Option<ManyCommand>,
    pub(super) turns: Vec<Option<Turn>>,
    response_timeout: Duration,
}

impl Claim {
    pub(super) fn begin(
        shared: &Shared,
        requests: Vec<LockRequest>,
        turns: Vec<Turn>,
        limit: usize,
    ) -> Self {
        Self {
            command: Some(shared.backend.begin_many(requests, limit)),
            turns: turns.into_iter().map(Some).collect(),
            response_timeout: shared.response_timeout,
        }
    }

    pub(super) async fn answer(&mut self) -> Result<Vec<(usize, Granted)>, LockError> {
        let Some(command) = &mut self.command else {
            return Ok(Vec::new());
        };
        let answer = command.await;
        self.command = None;
        answer
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(command) = self.command.take() else {
            return;
        };
        let response_timeout = self.response_timeout;
        let mut turns = std::mem::take(&mut self.turns);
        detach(async move {
            for (position, granted) in command.await.unwrap_or_default() {
                if let Some(turn) = turns.get_mut(position).and_then(Option::take) {
                    detach(settle(granted, turn, response_timeout));
                }
            }
        });
    }
}
