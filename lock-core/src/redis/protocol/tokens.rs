//! What the answers to questions for tokens mean.

use ::redis::Value;

use super::answers::number;
use super::{Effects, RedisProtocol, verdicts};
use crate::redis::command::Token;
use crate::redis::scripts::Failure;
use crate::server::protocol::{Effect, Issued, Sent};

impl RedisProtocol {
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
