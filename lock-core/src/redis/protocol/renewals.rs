//! Renewals: how they are sent, and what their answers mean.

use std::future::Future;
use std::time::Duration;

use ::redis::Value;
use ::redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::calls::renew;
use super::{Effects, RedisProtocol};
use crate::LossReason;
use crate::redis::command::HeldLock;
use crate::redis::scripts::{Failure, RENEW};
use crate::server::clock::Jump;
use crate::server::leased::Part;
use crate::server::protocol::{Effect, Renewal, Sent};

/// Before a renewal that had no answer is sent over another connection.
const RENEW_SOON: Duration = Duration::from_millis(10);

impl RedisProtocol {
    pub(super) fn send_renewals(
        &mut self,
        connection: MultiplexedConnection,
        sent: Sent,
        locks: &[HeldLock],
    ) -> impl Future<Output = Result<Vec<Value>, Failure>> + Send + 'static {
        let settings = &self.shared.settings;
        let within = settings.answer_within();
        let not_after = self.upkeep.nodes.not_after(sent, within);
        let server_key = &self.upkeep.nodes.lane(sent.lane).server_key;
        let call = renew(server_key, not_after, settings, sent.at, locks);
        // The time alone: it came too late.
        RENEW.invoke_for(connection, call, within, [1, locks.len() + 1])
    }

    pub(super) fn settle_renewals(
        &mut self,
        sent: Sent,
        locks: &[HeldLock],
        answer: Result<Vec<Value>, Failure>,
        effects: &mut Effects,
    ) -> Vec<Renewal> {
        let link = sent.link;
        // Of all of them: the driver sends the parts apart.
        let part = locks.first().map_or(Part::Whole, |lock| lock.owner.part);
        let values = match answer {
            Ok(values) => values,
            Err(failure) => {
                self.upkeep.nodes.failed(link, &failure);
                let reason = failure.to_string();
                (self.upkeep.nodes).not_renewed(link.node, locks.len(), part, &reason);
                if failure.is_elsewhere() {
                    self.upkeep.nodes.look_for(sent.lane, &failure, effects);
                }
                if matches!(failure, Failure::Unknown(_)) {
                    // Its connection was left: this makes another.
                    effects.push(Effect::RenewBy(Instant::now() + RENEW_SOON));
                }
                self.tell_read_only(sent, &failure, effects);
                return Vec::new();
            }
        };
        self.upkeep.nodes.answered(link);
        let mut values = values.into_iter();
        let Some(Value::Int(time)) = values.next() else {
            return Vec::new();
        };
        if self.upkeep.saw_time(sent, time.unsigned_abs(), effects) == Some(Jump::Forward) {
            let lost = locks.iter().map(|_| Renewal::Lost(LossReason::Expired));
            return lost.collect();
        }
        let is_of_master = self.upkeep.is_of_master(link);
        // Of shares: what is wrong with one, and with how many something is.
        let (mut wrong, mut number) = (None, 0);
        let renewed = locks.iter().map(|lock| match values.next() {
            // Of a master that was left: it means nothing.
            Some(Value::Int(0)) if !is_of_master => Renewal::Again,
            Some(Value::Int(1)) if !self.upkeep.mastery.carries_over(lock, link.server) => {
                Renewal::Lost(LossReason::Expired)
            }
            Some(Value::Int(0)) => Renewal::Lost(LossReason::Revoked),
            Some(Value::Int(1)) => Renewal::Extended,
            Some(Value::BulkString(said)) => {
                (wrong, number) = (Some(said), number + 1);
                Renewal::Again
            }
            // Too late by the server's clock, which we know now; or nothing that says that it was
            // renewed.
            _ => Renewal::Again,
        });
        let renewed: Vec<_> = renewed.collect();
        let is_extended = |renewal: &Renewal| matches!(renewal, Renewal::Extended);
        if let Some(said) = wrong {
            let said = String::from_utf8_lossy(&said).into_owned();
            let lacking = self.verdicts.lacking_as_said(&said);
            let said = lacking.map_or(said, |lacking| lacking.to_string());
            (self.upkeep.nodes).not_renewed(link.node, number, part, &said);
        } else if renewed.iter().any(is_extended) {
            self.upkeep.nodes.has_renewed(link.node, part);
        }
        renewed
    }
}
