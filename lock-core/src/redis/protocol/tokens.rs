//! Questions for tokens: how they are sent, and what their answers mean.

use std::future::Future;

use ::redis::Value;
use ::redis::aio::MultiplexedConnection;

use super::answers::number;
use super::calls::issue;
use super::{Effects, RedisProtocol, verdicts};
use crate::redis::command::Token;
use crate::redis::scripts::{Failure, TOKEN};
use crate::server::protocol::{Effect, Issued, Sent};

impl RedisProtocol {
    pub(super) fn send_tokens(
        &mut self,
        connection: MultiplexedConnection,
        sent: Sent,
        tokens: &[Token],
    ) -> impl Future<Output = Result<Vec<Value>, Failure>> + Send + 'static {
        let within = self.shared.settings.answer_within();
        let server_key = &self.upkeep.nodes.lane(sent.lane).server_key;
        let call = issue(server_key, self.verdicts.newest(), tokens);
        TOKEN.invoke_for(connection, call, within, [tokens.len() + 1])
    }

    pub(super) fn settle_tokens(
        &mut self,
        sent: Sent,
        tokens: &[Token],
        answer: Result<Vec<Value>, Failure>,
        effects: &mut Effects,
    ) -> Vec<Issued> {
        match &answer {
            Ok(_) => self.upkeep.nodes.answered(sent.link),
            Err(failure) => self.upkeep.nodes.failed(sent.link, failure),
        }
        let answer = answer.and_then(|values| {
            let mut values = values.into_iter();
            let time = number(values.next()).map_err(|_| Failure::Nonsense)?;
            Ok((time.unsigned_abs(), values))
        });
        let (time, mut values) = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                let Some(lacking) = self.not_answered(sent, &failure, effects) else {
                    return Vec::new();
                };
                let failed = tokens.iter().map(|_| {
                    let lacking = lacking.duplicate();
                    Issued::Failed(lacking.with_source(failure.to_string()))
                });
                return failed.collect();
            }
        };
        self.upkeep.saw_time(sent, time, effects);
        let server_key = &self.upkeep.nodes.lane(sent.lane).server_key;
        let is_present = self.upkeep.nodes.is_present(sent.link);
        let issued = tokens.iter().map(|_| {
            match (self.verdicts).issued(server_key, number(values.next()), time) {
                verdicts::Token::New(token) => Issued::Token(token),
                // Of a server that was left since: the one that there is now can have the lock.
                verdicts::Token::None if !is_present => Issued::Again,
                verdicts::Token::None => Issued::Lost,
                verdicts::Token::Another => {
                    // A probe has the other script write the key.
                    effects.push(Effect::Probe(sent.lane));
                    Issued::Again
                }
                verdicts::Token::Failed(error) => Issued::Failed(error),
            }
        });
        issued.collect()
    }
}
