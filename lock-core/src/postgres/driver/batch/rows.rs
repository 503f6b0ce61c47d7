//! The rows of one statement, and how they are sent.

use std::collections::HashMap;

use crate::backend::Attempt;
use crate::postgres::held::{Hold, PostgresGrant};
use crate::postgres::key::Keys;
use crate::postgres::sql::{self, Step};
use crate::postgres::statement::{Bound, Statement};
use crate::server::Reply;

/// How many rows one statement has at most.
const ROWS: usize = 4_096;

/// Rows of one statement, and what is to be done with the answer of each. A key is in it once.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) steps: Vec<i16>,
    pub(super) locks: Vec<i64>,
    pub(super) waits: Vec<i64>,
    /// Which of the locks are pairs.
    pairs: Vec<bool>,
    has_pairs: bool,
    pub(super) rows: Vec<Row>,
    pub(super) releases: usize,
    pub(super) tries: usize,
    /// Where the row of a key is that is tried for readers.
    pub(super) reads: HashMap<i64, usize>,
    /// Whether it has a try of a waiter, who waits on if it is refused.
    pub(super) is_for_waiting: bool,
    /// Whether there was no room for the try of a caller.
    pub(super) has_put_off: bool,
}

pub(super) enum Row {
    Release(Hold, Option<Reply<()>>),
    Try(Keys, Reply<Attempt<PostgresGrant>>),
    /// For a waiter.
    Watched(Keys),
    Read(Readers),
    /// Registers a process whose readers wait for this key.
    RegisterReaders(i64),
    Want(Keys),
    Unwant(i64),
    Unregister,
    RegisterForEverything,
    TellEverybody,
}

/// All readers of this process that ask for a key together.
pub(super) struct Readers {
    pub(super) keys: Keys,
    /// Whether the session has the lock already.
    pub(super) is_joining: bool,
    pub(super) replies: Vec<Reply<Attempt<PostgresGrant>>>,
    /// Whether one of them waits.
    pub(super) is_watched: bool,
}

impl Batch {
    pub(super) fn push(&mut self, step: Step, keys: Keys, row: Row) {
        self.steps.push(step as i16);
        self.locks.push(keys.lock);
        self.waits.push(keys.wait);
        self.pairs.push(keys.is_pair);
        self.has_pairs |= keys.is_pair;
        self.rows.push(row);
    }

    /// A step that has to do with the key of waiters alone.
    pub(super) fn push_wait(&mut self, step: Step, wait: i64, row: Row) {
        let keys = Keys {
            lock: 0,
            is_pair: false,
            wait,
            want: 0,
        };
        self.push(step, keys, row);
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= ROWS
    }
}

/// How a batch is sent: what is alone in a cheaper form.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Release,
    ReleaseRead,
    Read,
    Join,
    Try,
    RegisterAndTry,
    TryRegistered,
    Any,
    WithPairs,
}

impl Batch {
    pub(super) fn form(&self) -> Form {
        match self.rows.as_slice() {
            _ if self.has_pairs => Form::WithPairs,
            [Row::Release(hold, _), Row::TellEverybody] => match hold.is_shared {
                true => Form::ReleaseRead,
                false => Form::Release,
            },
            [Row::Read(readers)] => match readers.is_joining {
                true => Form::Join,
                false => Form::Read,
            },
            [_] if self.steps[0] == Step::Try as i16 => Form::Try,
            [_] if self.steps[0] == Step::RegisterAndTry as i16 => Form::RegisterAndTry,
            [_] if self.steps[0] == Step::TryRegistered as i16 => Form::TryRegistered,
            _ => Form::Any,
        }
    }

    pub(super) fn bind<'q>(&self, form: Form, query: Bound<'q>) -> Bound<'q> {
        let (lock, wait) = (self.locks[0], self.waits[0]);
        match form {
            Form::Try => query.bind(lock),
            Form::Join => query.bind(wait),
            Form::Read | Form::RegisterAndTry | Form::TryRegistered => query.bind(lock).bind(wait),
            Form::Release | Form::ReleaseRead => query.bind(lock).bind(wait).bind(sql::EVERYTHING),
            Form::Any | Form::WithPairs => {
                let rows = query.bind(&self.steps).bind(&self.locks).bind(&self.waits);
                let rows = rows.bind(sql::EVERYTHING);
                match form {
                    Form::WithPairs => rows.bind(&self.pairs),
                    _ => rows,
                }
            }
        }
    }
}

impl Form {
    pub(super) fn statement(self) -> Statement {
        match self {
            Self::Release => const { Statement::new(sql::RELEASE) },
            Self::ReleaseRead => const { Statement::new(sql::RELEASE_READ) },
            Self::Read => const { Statement::new(sql::READ) },
            Self::Join => const { Statement::new(sql::JOIN) },
            Self::Try => const { Statement::new(sql::TRY) },
            Self::RegisterAndTry => const { Statement::new(sql::REGISTER_AND_TRY) },
            Self::TryRegistered => const { Statement::new(sql::TRY_REGISTERED) },
            Self::Any => const { Statement::new(sql::BATCH) },
            Self::WithPairs => const { Statement::new(sql::BATCH_WITH_PAIRS) },
        }
    }
}
