//! Exchanges: how one is sent, and what its answer means, or none.

use std::future::Future;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;

use super::answers::{Answers, MOVED, pause, waits};
use super::calls::{Content, Exchange, Extra};
use super::places::Asked;
use super::{Effects, RedisProtocol};
use crate::LockError;
use crate::redis::command::{Acquire, Release};
use crate::redis::scripts::{EXCHANGE, Failure};
use crate::server::PATIENCE;
use crate::server::clock::Jump;
use crate::server::leased::Part;
use crate::server::protocol::{Acquired, Batch, Failed, Refusal, Released, Sent, Settling, Then};

/// Longer than masters mostly take to say what they are.
const SHORTLY: Duration = Duration::from_millis(20);

impl RedisProtocol {
    pub(super) fn send_exchange(
        &mut self,
        mut connection: MultiplexedConnection,
        sent: Sent,
        batch: &Batch<Self>,
    ) -> impl Future<Output = Result<Answers, Failure>> + Send + 'static {
        let settings = &self.shared.settings;
        let within = settings.answer_within();
        let exchange = Exchange {
            settings,
            server_key: &self.upkeep.nodes.lane(sent.lane).server_key,
            not_after: self.upkeep.nodes.not_after(sent, PATIENCE),
            newest: self.verdicts.newest(),
            is_cluster: self.upkeep.nodes.is_cluster(),
            now: sent.at,
        };
        let asked = Asked::by(&self.shared, &batch.acquires);
        let call = exchange.call(&Content {
            releases: &batch.releases,
            acquires: &batch.acquires,
            limit: batch.limit,
            is_probe: !batch.probes.is_empty(),
            extra: batch.extra.as_ref(),
            waiting: asked.positions(),
        });
        let locks = batch.locks();
        async move {
            let answer = EXCHANGE.invoke(&mut connection, call, within).await;
            let answer =
                answer.and_then(|values| Answers::read(values, locks).ok_or(Failure::Nonsense));
            if matches!(answer, Ok(_) | Err(Failure::Refused(_))) {
                asked.are_answered();
            }
            answer
        }
    }

    /// What an answer says of the server, before its locks are settled.
    pub(super) fn begin_to_settle(
        &mut self,
        sent: Sent,
        batch: &Batch<Self>,
        answers: &mut Answers,
        effects: &mut Effects,
    ) -> Settling {
        self.upkeep.nodes.answered(sent.link);
        let (lane, server) = (sent.lane, sent.link.server);
        let jump = self.upkeep.saw_time(sent, answers.time, effects);
        // What was on its way when the clock jumped was granted by the server without knowing of it.
        answers.has_jumped = jump == Some(Jump::Forward) || self.upkeep.nodes.was_before_jump(sent);
        let mut settling = Settling::Each;
        if answers.left.as_ref().is_err_and(|error| error == MOVED) {
            // Once it is known what became of the master before, which takes a moment.
            self.upkeep.moves.doubt(lane, server, true);
            settling = Settling::Later(SHORTLY);
            answers.left = Ok(0);
        }
        let Ok(left) = answers.left else {
            return settling;
        };
        if left != 0 {
            let settings = &self.shared.settings;
            let own = settings.quarantine.max(settings.lease);
            self.quarantine.tell(pause(left), own, left < 0);
            let is_asked = !batch.acquires.is_empty() || !batch.probes.is_empty();
            if left < 0 && is_asked {
                self.upkeep.moves.doubt(lane, server, false);
            }
        } else if (batch.extra.as_ref()).is_some_and(|extra| extra.proof.is_some()) {
            // The answer to them was to come back later.
            let bucket = self.upkeep.nodes.lane(lane).bucket;
            self.shared.waiting.wake_all_of(bucket);
        }
        settling
    }

    pub(super) fn settle_release(
        &self,
        release: &Release,
        place: usize,
        answers: &mut Answers,
    ) -> Released {
        match answers.of_release(place) {
            Ok(1) => Released::Free { is_awaited: false },
            Ok(heard @ 2..) => {
                let ours = i64::from(self.shared.waiting.is_subscribed(&release.key));
                Released::Free {
                    is_awaited: heard - 1 > ours,
                }
            }
            Ok(_) => Released::Missing,
            // Of a share: that it may not be given back, or not now.
            Err(said) => match self.verdicts.lacking_as_said(&said) {
                Some(lacking) => Released::Failed(lacking.with_source(said)),
                None => Released::Again,
            },
        }
    }

    pub(super) fn settle_acquire(
        &mut self,
        sent: Sent,
        acquire: &Acquire,
        place: usize,
        answers: &mut Answers,
    ) -> Acquired {
        let answer = answers.of_acquire(place);
        // Before all that may make the answer void: the place is there whatever it is worth.
        let waits = waits(&answer);
        if waits.is_some() {
            let connection = acquire.owner.connection;
            if self.shared.waiting.took_place(&acquire.key, connection) {
                self.shared
                    .give_back_place(acquire.key.clone(), connection, None);
            }
        }
        if answers.has_jumped {
            // Its holder may take it for held still.
            let retry_in = Some(self.shared.settings.quarantine);
            return Acquired::Void(Refusal::Held { retry_in });
        }
        if waits.is_some() {
            return Acquired::Refused(Refusal::Held { retry_in: waits });
        }
        let server_key = &self.upkeep.nodes.lane(sent.lane).server_key;
        let acquired = (self.verdicts).acquired(server_key, &acquire.key, answer, answers.time);
        if matches!(acquired, Acquired::Granted(_)) && !self.upkeep.mastery.may_grant() {
            return Acquired::Void(Refusal::Error(LockError::unanswered()));
        }
        if matches!(acquired, Acquired::Granted(_)) && acquire.part == Part::Whole {
            // With the release of the lock or before it: readers that come after that are not refused for it.
            for connection in self.shared.waiting.needs_no_place(&acquire.key) {
                self.shared
                    .give_back_place(acquire.key.clone(), connection, None);
            }
        }
        acquired
    }

    pub(super) fn settle_failure(
        &mut self,
        sent: Sent,
        extra: Option<Extra>,
        failure: &Failure,
        effects: &mut Effects,
    ) -> Failed {
        self.upkeep.nodes.failed(sent.link, failure);
        self.tell_read_only(sent, failure, effects);
        let failed = self.verdicts.failed(failure);
        if matches!(failed.then, Then::Again) {
            self.upkeep.nodes.look_for(sent.lane, failure, effects);
        }
        if let Some(extra) = extra {
            if extra.proof.is_some() {
                self.upkeep.moves.doubt(sent.lane, sent.link.server, true);
            }
            self.upkeep.nodes.lane_mut(sent.lane).jumped |= extra.jumped;
        }
        failed
    }
}
