//! How the table is asked for locks: requests of the [driver](crate::server::driver), and their answers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::connections::Unanswered;
use super::request::{Ask, Hold, Request, Wish};
use super::session::{self, Answer, Failure, Server, place};
use super::setup::Table;
use super::shared::Shared;
use super::sql::Lease;
use super::upkeep::{Done, Upkeep};
use super::waiters::{Acquire, HeldLock, Release, TableKey, Token, Waiters, WhoHolds};
use crate::outage::Repeated;
use crate::server::PATIENCE;
use crate::server::clock::{Jump, ServerClock};
use crate::server::leased::{Given, Owner};
use crate::server::link::LinkId;
use crate::server::protocol::{
    self, Acquired, Batch, Effect, Failed, Issued, Protocol, Refusal, Released, Renewal, Sent,
    Settling, Then, Told,
};
use crate::{LockError, LossReason};

/// What metrics and health call the backend.
pub(super) const KIND: &str = "postgres-table";

/// Before acquires are sent again that had to wait for a note in the table.
const NOTED_WITHIN: Duration = Duration::from_millis(5);

/// Before leases are renewed again that had no answer.
const RENEW_SOON: Duration = Duration::from_millis(10);

/// Between notes that a quarantine is too long, and by how much it is then.
const SHORTENED: Duration = Duration::from_secs(1);

/// How long no process is notified after notifications were held up.
const DEAF: Duration = Duration::from_secs(5);

pub(super) type Effects = protocol::Effects<TableProtocol>;

pub(super) struct TableProtocol {
    shared: Arc<Shared>,
    table: Table,
    clock: ServerClock,
    /// What is to be noted in the table before locks are granted again.
    note: Option<Note>,
    upkeep: Upkeep,
    /// When a quarantine that is too long can be noted again.
    next_shortened: Instant,
    /// Until when no process is notified: a notification was held up by the commits of others.
    deaf_until: Option<Instant>,
}

/// A time of the server, and when it was read by our clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) sent: Duration,
    pub(super) received: Duration,
    pub(super) time: i64,
}

/// What a request notes in the row of the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
    has_jumped: bool,
}

/// The answer to an exchange.
pub(super) struct Answers {
    answer: Answer,
    releases: usize,
    not_after: i64,
    has_jumped: bool,
}

impl TableProtocol {
    pub(super) fn new(shared: Arc<Shared>, table: Table, seen: Seen) -> Self {
        let mut clock = ServerClock::default();
        // The first: it is no jump.
        let time = seen.time.unsigned_abs();
        clock.observe(seen.sent, seen.received, time, shared.chosen.terms.margin());
        Self {
            upkeep: Upkeep::new(Arc::clone(&shared), table.clone()),
            shared,
            table,
            clock,
            note: None,
            next_shortened: Instant::now(),
            deaf_until: None,
        }
    }

    /// A request, and until when the server does it.
    fn request(&self, sent: Duration, ask: Ask<'_>) -> (Request, i64) {
        let not_after = self.clock.not_after(sent, PATIENCE);
        let not_after = i64::try_from(not_after).unwrap_or(i64::MAX);
        let lease = Lease {
            length: self.shared.chosen.terms.lease(),
            not_after,
            holder: &self.shared.holder,
        };
        (self.table.ask(self.shared.number(), ask, lease), not_after)
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
        let received = self.shared.clock.now();
        let time = answer.time.unsigned_abs();
        let jump = (self.clock).observe(sent.at, received, time, self.shared.chosen.terms.margin());
        let has_jumped = jump == Some(Jump::Forward);
        if has_jumped {
            tracing::error!(
                "the clock of the PostgreSQL server was put forward: its locks are lost"
            );
            effects.push(Effect::Lose {
                lanes: vec![0],
                reason: LossReason::Expired,
            });
        }
        if has_jumped || answer.server == Server::IsAnother {
            let noted = self.note.is_some_and(|note| note.has_jumped);
            self.note = Some(Note {
                has_jumped: has_jumped || noted,
            });
        }
        if let Server::Waits(left) = answer.server {
            self.shorten(left);
            static WAITS: Repeated = Repeated::new();
            WAITS.happened("", |times| {
                tracing::warn!(
                    left_ms = left, times,
                    "the PostgreSQL server may lack locks that it had granted, or its clock has jumped: none is \
                     granted until all of them have ended"
                );
            });
        }
        has_jumped
    }

    /// The clock was put back during a quarantine, or after one: it is over a lease from now, as the server sees to
    /// when it is noted. A client that does not know the longest lease of all notes it for nothing.
    fn shorten(&mut self, left: i64) {
        let lease = self.shared.chosen.terms.lease();
        let is_too_long = Duration::from_millis(left.unsigned_abs()) > lease + SHORTENED;
        let now = Instant::now();
        if is_too_long && self.next_shortened <= now && self.note.is_none() {
            self.next_shortened = now + SHORTENED;
            self.note = Some(Note { has_jumped: false });
        }
    }

    /// The token as users have it.
    fn token(&self, token: i64) -> u64 {
        (u64::from(self.shared.chosen.token_epoch) << 56).saturating_add(token.unsigned_abs())
    }
}

fn hold(key: &TableKey, owner: Owner, kept: Option<Duration>) -> Hold {
    Hold {
        key: key.row,
        owner: u128::from(owner.connection) << 64 | u128::from(owner.number),
        kept,
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
    type Extra = Note;
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
        let releases = batch.releases.iter();
        let releases: Vec<_> = releases
            .map(|release| hold(&release.key, release.owner, release.kept_for(sent.at)))
            .collect();
        let namespace = self.shared.chosen.namespace.clone();
        let acquires = batch.acquires.iter();
        let acquires: Vec<_> = acquires.map(|acquire| wish(&namespace, acquire)).collect();
        let (request, not_after) = self.request(
            sent.at,
            Ask {
                releases: &releases,
                acquires: &acquires,
                limit: batch.limit,
                note: batch.extra.map(|note| note.has_jumped),
                listens: self.shared.is_listening(),
                are_deaf: (self.deaf_until).is_some_and(|until| until > Instant::now()),
                ..Ask::default()
            },
        );
        let (running, releases) = (self.run(request), releases.len());
        async move {
            Ok(Answers {
                answer: running.await?,
                releases,
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
            self.upkeep.hurry();
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

    fn acquired(&mut self, _: Sent, _: &Acquire, place: usize, answers: &mut Answers) -> Acquired {
        let answer = &answers.answer;
        let acquired = answer.acquired(session::place(place - 1 - answers.releases));
        if answers.has_jumped {
            // Its holder may count on it still.
            let retry_in = Some(self.shared.chosen.terms.lease());
            return Acquired::Void(Refusal::Held { retry_in });
        }
        let left = match (acquired, answer.server) {
            (session::Acquired::Granted(token), _) => return Acquired::Granted(self.token(token)),
            // By the server's clock, which we know now.
            _ if answer.time > answers.not_after => return Acquired::TooLate,
            (_, Server::Waits(left)) => Some(left),
            (session::Acquired::Held(left), _) => left,
        };
        self.upkeep.hurry();
        Acquired::Refused(Refusal::Held {
            retry_in: left.map(|left| Duration::from_millis(left.unsigned_abs())),
        })
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
        extra: Option<Note>,
        failure: Unanswered,
        _: &mut Effects,
    ) -> Failed {
        self.note = self.note.or(extra);
        if failure.was_held_up() {
            self.deaf_until = Some(Instant::now() + DEAF);
        }
        let (then, error, reason) = match failure {
            Unanswered::NotSent(error) => {
                let reason = error.to_string();
                (Then::Refuse, error.duplicate_as_unavailable(), reason)
            }
            Unanswered::Failed(Failure::Refused(error)) => {
                (Then::Refuse, not_done(), error.to_string())
            }
            Unanswered::Failed(Failure::Unknown(error)) => {
                (Then::Undo, not_done(), error.to_string())
            }
            Unanswered::Failed(Failure::Nonsense) => (
                Then::Undo,
                not_done(),
                "an answer that means nothing".to_owned(),
            ),
            Unanswered::Late => (Then::Undo, not_done(), "no answer in time".to_owned()),
        };
        Failed {
            then,
            error,
            reason,
        }
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
        let holds: Vec<_> = locks
            .iter()
            .map(|lock| hold(&lock.key, lock.owner, lock.kept_for(sent.at)))
            .collect();
        let renewals = &holds;
        let (request, not_after) = self.request(
            sent.at,
            Ask {
                renewals,
                ..Ask::default()
            },
        );
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
        let Ok((answer, not_after)) = answer else {
            let again = self.shared.connections.retry_at();
            let again = again.unwrap_or_else(|| Instant::now() + RENEW_SOON);
            effects.push(Effect::RenewBy(again));
            return Vec::new();
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
        let holds: Vec<_> = tokens
            .iter()
            .map(|token| hold(&token.key, token.owner, None))
            .collect();
        let tokens = &holds;
        let (request, not_after) = self.request(
            sent.at,
            Ask {
                tokens,
                ..Ask::default()
            },
        );
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
            Err(Unanswered::Failed(Failure::Refused(_))) => Told::Failed(not_done()),
            Err(_) => Told::Again,
        };
        let told = (0..questions.len()).map(told).collect();
        if let Ok(answer) = &answer {
            self.saw(sent, answer, effects);
        }
        told
    }

    fn has_extra(&self, _: usize) -> bool {
        self.note.is_some()
    }

    fn take_extra(&mut self, _: usize) -> Option<Note> {
        self.note.take()
    }

    fn work(&mut self, _: impl Fn(usize) -> bool, effects: &mut Effects) {
        effects.extend(self.upkeep.due().into_iter().map(Effect::call));
    }

    fn next_work(&self, _: impl Fn(usize) -> bool) -> Option<Instant> {
        Some(self.upkeep.next())
    }

    fn done(&mut self, done: Done, _: &mut Effects) {
        self.upkeep.done(done);
    }
}

fn not_done() -> LockError {
    LockError::unavailable("the PostgreSQL server did not do it")
}

fn wish<'a>(namespace: &'a str, acquire: &'a Acquire) -> Wish<'a> {
    Wish {
        hold: hold(&acquire.key, acquire.owner, acquire.at_least),
        namespace,
        name: acquire.key.name.as_str(),
    }
}
