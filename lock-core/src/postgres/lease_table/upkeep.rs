//! What is asked of the table without a caller: whether awaited locks are free, old rows, the mark.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::mark::RowMark;
use super::poll::{Poll, SOON};
use super::session::{Answer, place};
use super::setup::Table;
use super::shared::Shared;
use super::unanswered::Unanswered;
use super::waiters::{Command, TableKey};
use crate::LockError;
use crate::server::leased::{Part, WaiterTable};
use crate::settings::ProviderKind;

/// Between sweeps of one process, on average.
const SWEEP: Duration = Duration::from_secs(300);

pub(super) struct Upkeep {
    shared: Arc<Shared>,
    table: Table,
    poll: Poll,
    next_sweep: Instant,
    /// When the mark of this process is renewed, unless that is under way.
    next_mark: Option<Instant>,
    /// Another provider, which holds locks of the same names.
    other: Option<ProviderKind>,
}

/// What was asked, and has an answer.
pub(super) enum Done {
    /// Of these, waited for, which are free.
    Polled {
        keys: Vec<TableKey>,
        answer: Result<Answer, Unanswered>,
    },
    Swept,
    Marked(Result<Answer, Unanswered>),
}

impl Upkeep {
    pub(super) fn new(shared: Arc<Shared>, table: Table) -> Self {
        let is_marked = shared.chosen.mark.is_some();
        Self {
            shared,
            table,
            poll: Poll::new(),
            next_sweep: Instant::now() + SWEEP.mul_f64(fastrand::f64() * 2.0),
            next_mark: is_marked.then(|| Instant::now() + RowMark::RENEWED),
            other: None,
        }
    }

    /// Why no lock is granted now: another provider has them.
    pub(super) fn refuses(&self) -> Option<LockError> {
        let refusal = self.shared.chosen.mark.as_ref()?.refusal(self.other?);
        Some(refusal.duplicate_as_unavailable())
    }

    /// A lock was released here, or refused, which ends so soon if that is known: those who wait are looked after
    /// soon.
    pub(super) fn hurry(&mut self, end: Option<Duration>) {
        self.poll.hurry(end);
    }

    /// When something is due.
    pub(super) fn next(&self) -> Instant {
        let is_waited = !self.shared.waiters.is_empty();
        let poll = self.poll.next().filter(|_| is_waited);
        [poll, self.next_mark]
            .into_iter()
            .flatten()
            .fold(self.next_sweep, Instant::min)
    }

    /// What is due of these, as futures that the driver runs.
    pub(super) fn due(&mut self) -> Vec<impl Future<Output = Done> + Send + 'static + use<>> {
        let mut due = Vec::new();
        if self.poll.is_due() {
            due.extend(self.look());
        }
        if self.next_sweep <= Instant::now() {
            self.next_sweep = Instant::now() + SWEEP.mul_f64(0.5 + fastrand::f64());
            due.push(Asked::Sweep);
        }
        if self.next_mark.is_some_and(|at| at <= Instant::now()) {
            self.next_mark = None;
            due.push(Asked::Mark);
        }
        let asking = due.into_iter();
        let asking = asking.map(|asked| asked.run(Arc::clone(&self.shared), self.table.clone()));
        asking.collect()
    }

    /// Looks which of the locks are free that callers wait for.
    fn look(&mut self) -> Option<Asked> {
        let waiters = &self.shared.waiters;
        waiters.sweep();
        let keys = waiters.keys();
        if keys.is_empty() {
            self.poll.ended(None);
            return None;
        }
        self.poll.begun();
        Some(Asked::Look(keys))
    }

    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Polled { keys, answer } => self.polled(keys, answer),
            Done::Marked(answer) => self.marked(answer.ok()),
            Done::Swept => {}
        }
    }

    fn polled(&mut self, keys: Vec<TableKey>, answer: Result<Answer, Unanswered>) {
        let first_end = answer.as_ref().ok().and_then(Answer::first_end);
        self.poll.ended(first_end);
        match answer {
            Ok(answer) => {
                for (at, key) in keys.into_iter().enumerate() {
                    self.looked_at(key, &answer, place(at));
                }
            }
            // They try for themselves, and are given the error.
            Err(_) => self.shared.waiters.wake_all(),
        }
    }

    /// Readers try for themselves. A writer is tried for where the lock is free, and where readers hold it and may come:
    /// it has no place then, or has it no more, and takes it with its try.
    fn looked_at(&self, key: TableKey, answer: &Answer, place: i32) {
        let (waiters, is_readable) = (&self.shared.waiters, answer.is_readable(place));
        let is_for_writers = is_readable || answer.is_free(place);
        if is_for_writers && waiters.are_there(&key, Part::Whole) {
            let command = Command::AcquireForWaiting(key.clone());
            self.shared.queues.requests.push(command);
        }
        if is_readable {
            waiters.wake_readers(&key);
        }
    }

    /// The mark was renewed and others were looked for, if there is an answer.
    fn marked(&mut self, answer: Option<Answer>) {
        let Some(mark) = &self.shared.chosen.mark else {
            return;
        };
        let (before, is_known) = (self.other, answer.is_some());
        if let Some(answer) = answer {
            self.other = mark.other(answer.marked());
        }
        let again = match self.other {
            None if is_known => RowMark::RENEWED,
            _ => RowMark::LOOKED,
        };
        self.next_mark = Some(Instant::now() + again);
        match (before, self.other) {
            (None, Some(other)) => tracing::error!(
                error = %mark.refusal(other),
                "another provider holds locks of the same names: none is granted while it does"
            ),
            (Some(other), None) => tracing::info!(
                %other,
                "no other provider holds the locks any more: they are granted again"
            ),
            _ => {}
        }
    }
}

/// What is to be asked.
enum Asked {
    Look(Vec<TableKey>),
    Sweep,
    Mark,
}

impl Asked {
    async fn run(self, shared: Arc<Shared>, table: Table) -> Done {
        let number = shared.number();
        match self {
            Self::Look(keys) => {
                let rows: Vec<_> = keys.iter().map(|key| key.row).collect();
                let answer = shared
                    .connections
                    .run(table.look(number, &rows, SOON))
                    .await;
                Done::Polled { keys, answer }
            }
            Self::Sweep => {
                // The next one does it otherwise.
                let _ = shared.connections.run(table.sweep(number)).await;
                Done::Swept
            }
            Self::Mark => match &shared.chosen.mark {
                Some(mark) => {
                    let marking = table.mark(number, mark, &shared.holder);
                    Done::Marked(shared.connections.run(marking).await)
                }
                None => Done::Swept,
            },
        }
    }
}
