//! What is asked of the table without a caller: whether awaited locks are free, old rows, the mark.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::mark::RowMark;
use super::poll::{Poll, SOON};
use super::session::{Answer, place};
use super::setup::Table;
use super::shared::Shared;
use super::sweeps::Sweeps;
use super::unanswered::Unanswered;
use super::waiters::{Command, TableKey};
use crate::LockError;
use crate::server::leased::{Part, WaiterTable};
use crate::settings::ProviderKind;

pub(super) struct Upkeep {
    shared: Arc<Shared>,
    table: Table,
    poll: Poll,
    sweeps: Sweeps,
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
    /// So many rows, which were free for long, if there is an answer.
    Swept(Option<i64>),
    Marked(Result<Answer, Unanswered>),
}

impl Upkeep {
    pub(super) fn new(shared: Arc<Shared>, table: Table) -> Self {
        let is_marked = shared.chosen.mark.is_some();
        Self {
            shared,
            table,
            poll: Poll::new(),
            sweeps: Sweeps::new(),
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
            .fold(self.sweeps.next(), Instant::min)
    }

    /// What is due of these, as futures that the driver runs.
    pub(super) fn due(&mut self) -> Vec<impl Future<Output = Done> + Send + 'static + use<>> {
        let mut due = Vec::new();
        if self.poll.is_due() {
            due.extend(self.look());
        }
        if self.sweeps.is_due() {
            self.sweeps.begun();
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
            Done::Swept(Some(removed)) => self.sweeps.ended(removed),
            // A later one does it.
            Done::Swept(None) => {}
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
                let swept = shared.connections.run(table.sweep(number)).await;
                Done::Swept(swept.ok().map(|answer| answer.swept()))
            }
            Self::Mark => match &shared.chosen.mark {
                Some(mark) => {
                    let marking = table.mark(number, mark, &shared.holder);
                    Done::Marked(shared.connections.run(marking).await)
                }
                None => Done::Swept(None),
            },
        }
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use sqlx::postgres::PgConnectOptions;

    use super::*;
    use crate::instance::Instance;
    use crate::postgres::connect::Target;
    use crate::postgres::lease_table::connections::Connections;
    use crate::postgres::lease_table::identity::Identity;
    use crate::postgres::lease_table::setup::Setup;
    use crate::postgres::lease_table::shared::Chosen;
    use crate::postgres::lease_table::sql::SWEPT;
    use crate::postgres::login_options::LoginOptions;
    use crate::postgres::session_name::SessionName;
    use crate::postgres::terms::Terms;

    /// That of a process which connects to no server.
    fn upkeep() -> Upkeep {
        let terms = Terms::new(Duration::from_secs(30)).unwrap();
        let options = PgConnectOptions::new_without_pgpass();
        let target = Target::new(options, SessionName::without_instance("test"), terms, None);
        let chosen = Chosen {
            namespace: String::new(),
            token_epoch: 0,
            terms: terms.lease(),
            setup: Setup::new("leases", false).unwrap(),
            mark: None,
        };
        let connections = Connections::new(target, LoginOptions::new(None, None));
        let instance = Instance::of("here:1").unwrap();
        let shared = Shared::new(chosen, &instance, connections, None).unwrap();
        let table = Table::new("public.leases".to_owned(), Identity::Timeline);
        Upkeep::new(Arc::new(shared), table)
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_that_was_full_is_soon_followed_by_another() {
        let mut upkeep = upkeep();
        for (removed, is_soon) in [
            (Some(SWEPT), true),
            (Some(SWEPT), true),
            (Some(0), false),
            (None, false),
        ] {
            tokio::time::advance(upkeep.next() - Instant::now()).await;
            assert_eq!(upkeep.due().len(), 1);
            upkeep.done(Done::Swept(removed));
            let pause = upkeep.next() - Instant::now();
            assert_eq!(pause < Duration::from_secs(2), is_soon, "{removed:?}");
        }
    }
}
