//! How the table is asked for locks: requests of the [driver](crate::server::driver), and their answers.

mod requests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::places::Places;
use super::request::Request;
use super::session::{self, Answer, Server, place};
use super::setup::Table;
use super::shared::Shared;
use super::unanswered::Unanswered;
use super::upkeep::{Done, Upkeep};
use super::waiters::{Acquire, Command, HeldLock, Release, TableKey, Token, Waiters, WhoHolds};
use super::watch::{Repair, Seen, Watch};
use crate::server::leased::{Given, Owner, Part};
use crate::server::link::LinkId;
use crate::server::protocol::{
    self, Acquired, Batch, Effect, Failed, Issued, Protocol, Refusal, Released, Renewal, Sent,
    Settling, Told,
};
use crate::{LockError, LossReason};

/// What metrics and health call the backend.
pub(super) const KIND: &str = "postgres-table";

/// Before acquires are sent again that had to wait for a note in the table.
const NOTED_WITHIN: Duration = Duration::from_millis(5);

/// Before leases are renewed again that had no answer.
const RENEW_SOON: Duration = Duration::from_millis(10);

/// How long no process is notified after notifications were held up.
const DEAF: Duration = Duration::from_secs(5);

pub(super) type Effects = protocol::Effects<TableProtocol>;

pub(super) struct TableProtocol {
    shared: Arc<Shared>,
    table: Table,
    watch: Watch,
    upkeep: Upkeep,
    places: Places,
    /// Until when no process is notified: a notification was held up by the commits of others.
    deaf_until: Option<Instant>,
}

/// The answer to an exchange.
pub(super) struct Answers {
    answer: Answer,
    releases: usize,
    is_claim: bool,
    not_after: i64,
    has_jumped: bool,
}

impl TableProtocol {
    pub(super) fn new(shared: Arc<Shared>, table: Table, seen: Seen) -> Self {
        Self {
            watch: Watch::new(Arc::clone(&shared), seen),
            upkeep: Upkeep::new(Arc::clone(&shared), table.clone()),
            places: Places::default(),
            shared,
            table,
            deaf_until: None,
        }
    }

    fn run(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Answer, Unanswered>> + Send + 'static + use<> {
        let shared = Arc::clone(&self.shared);
        async move { shared.connections.run(request).await }
    }

    /// Takes note of what an answer says of the server; whether its clock was put forward.
    fn saw(&mut self, sent: Sent, answer: &Answer, effects: &mut Effects) -> bool {
        let has_jumped = self.watch.saw(sent, answer);
        if has_jumped {
            effects.push(Effect::Lose {
                lanes: vec![0],
                reason: LossReason::Expired,
            });
        }
        has_jumped
    }

    /// Readers hold the lock that a writer asks for: whether a writer waits that has no place yet. It is sent again now,
    /// and takes it before its caller has an answer, so that one that goes on waiting has it.
    fn lacks_place(&mut self, acquire: &Acquire, has_place: bool) -> bool {
        let (key, lease) = (&acquire.key, self.shared.chosen.terms.lease());
        if has_place {
            // For one that has left meanwhile it is given up in a moment.
            self.places.taken(key, lease);
            return false;
        }
        self.shared.waiters.are_there(key, Part::Whole) && self.places.want(key, lease)
    }

    /// The token as users have it.
    fn token(&self, token: i64) -> u64 {
        (u64::from(self.shared.chosen.token_epoch) << 56).saturating_add(token.unsigned_abs())
    }
}

impl Protocol for TableProtocol {
    const KIND: &'static str = KIND;
    const IN_FLIGHT: usize = 2;
    const BATCH: usize = 256;
    const RENEWED: usize = 1_024;

    type Key = TableKey;
    type Waiters = Waiters;
    type Connection = ();
    type Extra = Repair;
    type Answers = Answers;
    type Renewed = (Answer, i64);
    type Issued = (Answer, i64);
    type Told = Answer;
    type Failure = Unanswered;
    type Done = Done;

    fn lanes(&self) -> usize {
        1
    }

    fn lane_of(&self, _: &TableKey) -> usize {
        0
    }

    fn refuses(&self) -> Option<LockError> {
        self.upkeep.refuses()
    }

    fn probed_lanes(&self) -> Vec<usize> {
        vec![0]
    }

    fn connection(&mut self, _: usize, _: &mut Effects) -> Option<((), LinkId)> {
        // The request makes one if there is none, unless that has failed a moment ago.
        match self.shared.connections.retry_at() {
            None => Some(((), LinkId::default())),
            Some(_) => None,
        }
    }

    fn retry_at(&self, _: usize) -> Option<Instant> {
        self.shared.connections.retry_at()
    }

    fn new_owner(&mut self, _: LinkId) -> Owner {
        self.shared.new_owner()
    }

    fn exchange(
        &mut self,
        (): (),
        sent: Sent,
        batch: &Batch<Self>,
    ) -> impl Future<Output = Result<Answers, Unanswered>> + Send + 'static {
        let (request, not_after) = self.exchange_request(sent, batch);
        let running = self.run(request);
        let (releases, is_claim) = (batch.releases.len(), batch.limit.is_some());
        async move {
            Ok(Answers {
                answer: running.await?,
                releases,
                is_claim,
                not_after,
                has_jumped: false,
            })
        }
    }

    fn answered(
        &mut self,
        sent: Sent,
        batch: &Batch<Self>,
        answers: &mut Answers,
        effects: &mut Effects,
    ) -> Settling {
        answers.has_jumped = self.saw(sent, &answers.answer, effects);
        if !batch.releases.is_empty() {
            self.upkeep.hurry(None);
        }
        match answers.answer.server {
            Server::IsAnother => Settling::Later(NOTED_WITHIN),
            Server::Grants | Server::Waits(_) => Settling::Each,
        }
    }

    fn released(&self, _: &Release, place: usize, answers: &mut Answers) -> Released {
        match answers.answer.released(session::place(place - 1)) {
            session::Released::Free => Released::Free {
                is_awaited: answers.answer.is_awaited(session::place(place - 1)),
            },
            session::Released::Missing => Released::Missing,
            session::Released::Taken => Released::Taken,
        }
    }

    fn acquired(
        &mut self,
        _: Sent,
        acquire: &Acquire,
        place: usize,
        answers: &mut Answers,
    ) -> Acquired {
        let answer = &answers.answer;
        let place = session::place(place - 1 - answers.releases);
        let acquired = answer.acquired(place);
        if answers.has_jumped {
            // Its holder may count on it still.
            let retry_in = Some(self.shared.chosen.terms.lease());
            return Acquired::Void(Refusal::Held { retry_in });
        }
        let left = match (acquired, answer.server) {
            (session::Acquired::Granted(token), _) => {
                if acquire.part == Part::Whole {
                    self.places.granted(&acquire.key);
                }
                return Acquired::Granted(self.token(token));
            }
            // By the server's clock, which we know now.
            _ if answer.time > answers.not_after => return Acquired::Again,
            (_, Server::Waits(left)) => Some(left),
            (session::Acquired::Met, _) => return Acquired::Again,
            (session::Acquired::Held(left), _) => left,
        };
        let is_read = answer.is_read(place) && !answers.is_claim;
        // Not of one that is too late to be asked for again: its answer is known.
        let is_in_time = acquire.until > self.shared.clock.now();
        if is_read && is_in_time && self.lacks_place(acquire, answer.has_place(place)) {
            return Acquired::Again;
        }
        if answer.ends_too_late(place) {
            self.watch.ends_too_late(acquire.key.row);
        }
        let retry_in = left.map(|left| Duration::from_millis(left.unsigned_abs()));
        self.upkeep.hurry(retry_in);
        Acquired::Refused(Refusal::Held { retry_in })
    }

    fn probed(&self, _: Sent, _: &Answers) -> Result<(), LockError> {
        Ok(())
    }

    fn give(&mut self, _: Sent, given: Given<Waiters>) {
        given.give();
    }

    fn failed(
        &mut self,
        _: Sent,
        batch: &mut Batch<Self>,
        failure: Unanswered,
        _: &mut Effects,
    ) -> Failed {
        self.watch.put_back(batch.extra.take());
        // Without a release nothing was to be notified: the rows of others were in the way.
        if failure.was_held_up() && !batch.releases.is_empty() {
            self.deaf_until = Some(Instant::now() + DEAF);
        }
        failure.failed()
    }

    fn valid_until(&self, sent: Sent) -> Duration {
        self.shared.chosen.terms.valid_until(sent.at)
    }

    fn renew(
        &mut self,
        (): (),
        sent: Sent,
        locks: &[HeldLock],
    ) -> impl Future<Output = Result<(Answer, i64), Unanswered>> + Send + 'static {
        let (request, not_after) = self.renewal_request(sent, locks);
        let running = self.run(request);
        async move { Ok((running.await?, not_after)) }
    }

    fn renewing(&mut self, _: impl Fn(usize) -> bool) {}

    fn renewed(
        &mut self,
        sent: Sent,
        locks: &[HeldLock],
        answer: Result<(Answer, i64), Unanswered>,
        effects: &mut Effects,
    ) -> Vec<Renewal> {
        let (answer, not_after) = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                if failure.only_reads() {
                    // Until they are renewed, if the address leads to the primary in time.
                    effects.push(Effect::EndAs {
                        lanes: vec![0],
                        reason: LossReason::ReadOnly,
                    });
                }
                let again = self.shared.connections.retry_at();
                let again = again.unwrap_or_else(|| Instant::now() + RENEW_SOON);
                effects.push(Effect::RenewBy(again));
                return Vec::new();
            }
        };
        let has_jumped = self.saw(sent, &answer, effects);
        let is_late = answer.time > not_after;
        let renewed = (0..locks.len()).map(|at| match answer.is_renewed(place(at)) {
            _ if has_jumped => Renewal::Lost(LossReason::Expired),
            true => Renewal::Extended,
            false if is_late => Renewal::Again,
            false => Renewal::Lost(LossReason::Revoked),
        });
        renewed.collect()
    }

    fn issue(
        &mut self,
        (): (),
        sent: Sent,
        tokens: &[Token],
    ) -> impl Future<Output = Result<(Answer, i64), Unanswered>> + Send + 'static {
        let (request, not_after) = self.tokens_request(sent, tokens);
        let running = self.run(request);
        async move { Ok((running.await?, not_after)) }
    }

    fn issued(
        &mut self,
        sent: Sent,
        tokens: &[Token],
        answer: Result<(Answer, i64), Unanswered>,
        effects: &mut Effects,
    ) -> Vec<Issued> {
        let Ok((answer, not_after)) = answer else {
            return Vec::new();
        };
        self.saw(sent, &answer, effects);
        // Another server issues none before that is noted.
        let again = answer.time > not_after || answer.server == Server::IsAnother;
        let issued = (0..tokens.len()).map(|at| match answer.issued(place(at)) {
            Some(token) => Issued::Token(self.token(token)),
            None if again => Issued::Again,
            None => Issued::Lost,
        });
        issued.collect()
    }

    fn ask_holders(
        &mut self,
        (): (),
        _: Sent,
        questions: &[WhoHolds],
    ) -> impl Future<Output = Result<Answer, Unanswered>> + Send + 'static {
        let rows: Vec<_> = questions.iter().map(|asked| asked.key.row).collect();
        self.run(self.table.who_holds(self.shared.number(), &rows))
    }

    fn told(
        &mut self,
        sent: Sent,
        questions: &[WhoHolds],
        answer: Result<Answer, Unanswered>,
        effects: &mut Effects,
    ) -> Vec<Told> {
        let told = |at| match &answer {
            Ok(answer) => Told::Holder(answer.holder(place(at)).cloned()),
            // What the server says of a look it says again.
            Err(failure) if failure.is_refusal() => {
                Told::Failed(failure.error().with_source(failure.reason()))
            }
            Err(_) => Told::Again,
        };
        let told = (0..questions.len()).map(told).collect();
        if let Ok(answer) = &answer {
            self.saw(sent, answer, effects);
        }
        told
    }

    fn has_extra(&self, _: usize) -> bool {
        self.watch.repairs()
    }

    fn take_extra(&mut self, _: usize) -> Option<Repair> {
        self.watch.take_repair()
    }

    /// Its places are given up.
    fn is_done(&self) -> bool {
        self.places.is_empty()
    }

    fn work(&mut self, _: impl Fn(usize) -> bool, effects: &mut Effects) {
        let shared = &self.shared;
        let is_waited = |key: &TableKey| shared.waiters.are_there(key, Part::Whole);
        for key in self.places.left(is_waited) {
            shared.give_up_place(key);
        }
        let due = self.places.due(shared.chosen.terms.lease()).into_iter();
        shared
            .queues
            .requests
            .push_all(due.map(Command::AcquireForWaiting));
        effects.extend(self.upkeep.due().into_iter().map(Effect::call));
    }

    fn next_work(&self, _: impl Fn(usize) -> bool) -> Option<Instant> {
        let next = self.upkeep.next();
        Some(self.places.next().map_or(next, |places| places.min(next)))
    }

    fn done(&mut self, done: Done, _: &mut Effects) {
        self.upkeep.done(done);
    }
}
