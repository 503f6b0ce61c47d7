//! Questions for holders: how they are sent, and what their answers mean.

use std::future::Future;
use std::time::Duration;

use ::redis::Value;
use ::redis::aio::MultiplexedConnection;

use super::calls::ask_holders;
use super::{Effects, RedisProtocol};
use crate::redis::command::WhoHolds;
use crate::redis::scripts::{Failure, HOLDERS};
use crate::redis::value::{self, Moment};
use crate::server::protocol::{Sent, Told};
use crate::{Holder, LockMode};

impl RedisProtocol {
    pub(super) fn send_questions(
        &mut self,
        connection: MultiplexedConnection,
        questions: &[WhoHolds],
    ) -> impl Future<Output = Result<Vec<Value>, Failure>> + Send + 'static {
        let within = self.shared.settings.answer_within();
        let call = ask_holders(questions);
        HOLDERS.invoke_for(connection, call, within, [questions.len() + 1])
    }

    pub(super) fn settle_holders(
        &mut self,
        sent: Sent,
        questions: &[WhoHolds],
        answer: Result<Vec<Value>, Failure>,
        effects: &mut Effects,
    ) -> Vec<Told> {
        let values = match answer {
            Ok(values) => values,
            Err(failure) => {
                self.upkeep.nodes.failed(sent.link, &failure);
                let Some(lacking) = self.not_answered(sent, &failure, effects) else {
                    return Vec::new();
                };
                let failed = (questions.iter()).map(|_| Told::Failed(lacking.duplicate()));
                return failed.collect();
            }
        };
        self.upkeep.nodes.answered(sent.link);
        // Another server is the master now.
        if !self.upkeep.is_of_master(sent.link) {
            return Vec::new();
        }
        let mut values = values.into_iter();
        let Some(Value::Int(time)) = values.next() else {
            return Vec::new();
        };
        let now = Moment::of(time.unsigned_abs());
        let told = values.map(|value| match value {
            Value::BulkString(value) => Told::Holder(Some(value::holder(&value, now))),
            Value::Int(0) => Told::Holder(None),
            // Held by this reader and others, or released, and closed for so long.
            Value::Array(kept) => match &kept[..] {
                [Value::BulkString(_), Value::BulkString(reader)] => {
                    let reader = value::reader(reader);
                    Told::Holder(Some(reader.unwrap_or(Holder::new(LockMode::Shared))))
                }
                [Value::BulkString(value), Value::Int(left)] => {
                    let left = Duration::from_millis(left.unsigned_abs());
                    Told::Holder(Some(value::kept_by(value, left, now)))
                }
                _ => Told::Again,
            },
            _ => Told::Again,
        });
        told.collect()
    }
}
