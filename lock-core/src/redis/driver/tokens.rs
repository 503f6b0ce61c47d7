//! Tokens of those to whom a lock was handed over: the token that came with the grant is its first holder's.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use ::redis::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::answers::number;
use super::exchange::{BAD_NOTE, believable, taken_away};
use super::nodes::Via;
use super::{Done, Driver};
use crate::LockError;
use crate::lease::LossReason;
use crate::redis::command::Command;
use crate::redis::command::Token;
use crate::redis::scripts::{Failure, TOKEN};

/// What the script says where the server key is of another server, or missing.
const ANOTHER: &str = "another";

/// How many tokens one call issues.
const MAX_BATCH: usize = 128;

/// Before what had no answer is asked for again, or what had no connection.
const SOON: Duration = Duration::from_millis(10);

impl Driver {
    /// Asks for the tokens that are wanted.
    pub(super) fn issue_tokens(&mut self) {
        let mut of_lanes: BTreeMap<usize, Vec<Token>> = BTreeMap::new();
        for token in mem::take(&mut self.tokens) {
            if token.until <= self.shared.clock.now() {
                let _ = token.reply.send(Err(LockError::unanswered()));
            } else if !token.reply.is_closed() {
                let lane = self.lane_of(token.key.bucket);
                of_lanes.entry(lane).or_default().push(token);
            }
        }
        for (lane, mut tokens) in of_lanes {
            while !tokens.is_empty() {
                let some = tokens.split_off(tokens.len().saturating_sub(MAX_BATCH));
                self.issue(lane, some);
            }
        }
    }

    fn issue(&mut self, lane: usize, tokens: Vec<Token>) {
        let Some((mut connection, via)) = self.connection(lane) else {
            return self.issue_again(tokens);
        };
        let within = self.shared.settings.answer_within();
        let sent = self.shared.clock.now();
        let mut call = TOKEN.call(1 + tokens.len(), 1 + tokens.len());
        call.arg(self.lanes[lane].server_key.as_str());
        for token in &tokens {
            call.arg(&*token.key.text);
        }
        call.arg(self.newest);
        for token in &tokens {
            call.arg(&token.owner.text()[..]);
        }
        self.calls.push(Box::pin(async move {
            let answer = TOKEN.invoke(&mut connection, call, within).await;
            let answer = answer.and_then(|values| match values.len() == tokens.len() + 1 {
                true => Ok(values),
                false => Err(Failure::Nonsense),
            });
            Done::Issued {
                lane,
                via,
                sent,
                tokens,
                answer,
            }
        }));
    }

    pub(super) fn issued(
        &mut self,
        lane: usize,
        via: Via,
        sent: Duration,
        tokens: Vec<Token>,
        answer: Result<Vec<Value>, Failure>,
    ) {
        let values = match answer {
            Ok(values) => values,
            Err(failure) => return self.not_issued(lane, tokens, &failure),
        };
        let mut values = values.into_iter();
        let Ok(time) = number(values.next()) else {
            return self.not_issued(lane, tokens, &Failure::Nonsense);
        };
        let time = time.unsigned_abs();
        self.saw_time(via, sent, time);
        for token in tokens {
            let answer = match number(values.next()).and_then(|number| believable(number, time)) {
                Ok(issued @ 1..) => {
                    self.newest = self.newest.max(issued.unsigned_abs());
                    Ok(issued.unsigned_abs())
                }
                Ok(_) => {
                    token.lease.lose(LossReason::Revoked);
                    Err(taken_away())
                }
                Err(error) if error == ANOTHER => {
                    // A probe has the other script write the key.
                    let (probe, _) = mpsc::unbounded_channel();
                    self.lanes[lane].probes.push(probe);
                    self.issue_again(vec![token]);
                    continue;
                }
                Err(error) if error == BAD_NOTE => Err(self.bad_note(lane)),
                Err(error) => Err(LockError::unavailable(
                    "the Redis server issued no fencing token",
                )
                .with_source(error)),
            };
            // It may not be waited for any more.
            let _ = token.reply.send(answer);
        }
    }

    /// Asked for again, elsewhere perhaps: a token that was issued and did not arrive is never used.
    fn not_issued(&mut self, lane: usize, tokens: Vec<Token>, failure: &Failure) {
        if failure.is_elsewhere() && !failure.is_moving() {
            self.look_for_nodes(lane, failure);
        }
        let Some(lacking) = failure.lacking(self.asked()) else {
            return self.issue_again(tokens);
        };
        for token in tokens {
            let lacking = lacking.duplicate_as_unavailable();
            let _ = token
                .reply
                .send(Err(lacking.with_source(failure.to_string())));
        }
    }

    fn issue_again(&mut self, tokens: Vec<Token>) {
        let at = Instant::now() + SOON;
        for token in tokens {
            self.parked.put(at, Command::Token(token));
        }
    }
}
