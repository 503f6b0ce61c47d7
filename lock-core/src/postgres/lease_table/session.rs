//! Sends a request and reads its answer.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use sqlx::postgres::{PgConnection, PgDatabaseError, PgRow, PgSeverity};
use sqlx::{AssertSqlSafe, Error, Row};

use super::request::Request;
use super::sql::kind;
use super::statements::Form;
use crate::postgres::sqlstate::sqlstate;
use crate::{Holder, LockMode};

/// A place in what was asked, as answers have it.
pub(super) fn place(at: usize) -> i32 {
    i32::try_from(at).unwrap_or(i32::MAX)
}

/// What the server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// It has every row that was ever committed, or the time is over in which that mattered.
    Grants,
    /// Nothing is granted for so many milliseconds.
    Waits(i64),
    /// It is another one than its row says: nothing is granted before that is [noted](super::Ask::note).
    IsAnother,
}

/// What a request has led to. Each lock has its place in what was asked, from 0.
#[derive(Debug)]
pub struct Answer {
    /// The server's time when it began, or had waited for rows of readers, in microseconds.
    pub time: i64,
    /// What the server says of itself.
    pub server: Server,
    released: HashMap<i32, (i64, bool)>,
    renewed: HashSet<i32>,
    acquired: HashMap<i32, (Option<i64>, Option<i64>)>,
    /// Of those that were refused to writers, the ones that readers hold.
    read: HashSet<i32>,
    wanted: HashSet<i32>,
    met: HashSet<i32>,
    issued: HashMap<i32, i64>,
    /// In how many milliseconds, for a writer and for a reader.
    free: HashMap<i32, [i64; 2]>,
    marked: Option<i32>,
    holders: HashMap<i32, Holder>,
    swept: i64,
}

/// What became of a lock that was to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It was held, and is free.
    Free,
    /// This owner did not hold it any more.
    Missing,
    /// Another owner holds it.
    Taken,
}

/// What became of a lock that was to be acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// With this token.
    Granted(i64),
    /// Refused; in how many milliseconds its present lease ends, if it is known.
    Held(Option<i64>),
    /// Another client made the row at the same time, or swept it: nothing is decided.
    Met,
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum Failure {
    /// The server says so, and has done nothing: its transaction was rolled back.
    Refused(Error),
    /// It may have been done, or be done later.
    Unknown(Error),
    /// The answer is not that to this request.
    Nonsense,
}

impl Failure {
    fn of(error: Error) -> Self {
        // With its connection it has said nothing of the transaction.
        let is_refusal = match &error {
            Error::Database(database) => (database.try_downcast_ref::<PgDatabaseError>())
                .is_some_and(|error| error.severity() == PgSeverity::Error),
            _ => false,
        };
        match is_refusal {
            true => Self::Refused(error),
            false => Self::Unknown(error),
        }
    }
}

/// Sends a request over this connection, in one exchange; in another where the server was not taught what it names, and
/// has done nothing.
///
/// # Errors
///
/// Where there is no answer, with what that means.
///
/// # Cancel safety
///
/// Not cancel safe: what the request does is unknown then, and the connection is busy until it is answered.
pub async fn run(connection: &mut PgConnection, request: Request) -> Result<Answer, Failure> {
    let statements = request.table.statements();
    let first = statements.form();
    let mut form = first;
    loop {
        let refused = match send(connection, &request, form).await {
            Ok(answer) => {
                if form != first {
                    statements.has_helped(form);
                }
                return Ok(answer);
            }
            Err(Failure::Refused(error)) => error,
            Err(failure) => return Err(failure),
        };
        let code = sqlstate(&refused);
        match code.and_then(|code| statements.instead(form, &code)) {
            Some(other) => form = other,
            None => return Err(Failure::Refused(refused)),
        }
    }
}

async fn send(
    connection: &mut PgConnection,
    request: &Request,
    form: Form,
) -> Result<Answer, Failure> {
    let sent = sqlx::raw_sql(AssertSqlSafe(request.text(form)));
    let rows = sent.fetch_all(connection).await.map_err(Failure::of)?;
    Answer::read(request.number, &rows).ok_or(Failure::Nonsense)
}

impl Answer {
    /// Reads the rows, each a kind, a place and two numbers; the first is the head.
    fn read(number: i64, rows: &[PgRow]) -> Option<Self> {
        let (head, rows) = rows.split_first()?;
        if head.try_get::<i32, _>(0).ok()? != kind::HEAD
            || head.try_get::<i64, _>(1).ok()? != number
        {
            return None;
        }
        let now = SystemTime::now();
        let server = match head.try_get(3).ok()? {
            0 => Server::Grants,
            left @ 1.. => Server::Waits(left),
            _ => Server::IsAnother,
        };
        let mut answer = Self {
            time: head.try_get(2).ok()?,
            server,
            released: HashMap::new(),
            renewed: HashSet::new(),
            acquired: HashMap::new(),
            read: HashSet::new(),
            wanted: HashSet::new(),
            met: HashSet::new(),
            issued: HashMap::new(),
            free: HashMap::new(),
            marked: None,
            holders: HashMap::new(),
            swept: 0,
        };
        for row in rows {
            let place: i32 = row.try_get(1).ok()?;
            let (one, other): (Option<i64>, Option<i64>) =
                (row.try_get(2).ok()?, row.try_get(3).ok()?);
            match row.try_get(0).ok()? {
                kind::RELEASED => {
                    answer.released.insert(place, (one?, other.is_some()));
                }
                kind::RENEWED => drop(answer.renewed.insert(place)),
                kind::ACQUIRED => drop(answer.acquired.insert(place, (one, other))),
                kind::READ => {
                    answer.acquired.insert(place, (None, other));
                    answer.read.insert(place);
                }
                kind::WANTED => drop(answer.wanted.insert(place)),
                kind::MET => drop(answer.met.insert(place)),
                kind::FREE => drop(answer.free.insert(place, [one?, other?])),
                kind::MARKED => answer.marked = Some(place),
                kind::NOTIFIED => {}
                kind::SWEPT => answer.swept = one?,
                // By this time what follows was in time or late: it has waited for rows.
                kind::GATHERED => answer.time = answer.time.max(other?),
                is @ (kind::HELD_BY | kind::READ_BY) => {
                    let mode = match is {
                        kind::READ_BY => LockMode::Shared,
                        _ => LockMode::Exclusive,
                    };
                    let holder = holder(mode, row.try_get(4).ok()?, one, other, now);
                    answer.holders.insert(place, holder);
                }
                kind::ISSUED => drop(answer.issued.insert(place, one?)),
                _ => return None,
            }
        }
        Some(answer)
    }

    /// What became of the release at this place.
    #[must_use]
    pub fn released(&self, place: i32) -> Released {
        match self.released.get(&place) {
            Some((1, _)) => Released::Free,
            Some((2, _)) => Released::Taken,
            _ => Released::Missing,
        }
    }

    /// Whether other processes were notified of the release at this place.
    #[must_use]
    pub fn is_awaited(&self, place: i32) -> bool {
        matches!(self.released.get(&place), Some((_, true)))
    }

    /// Which of the keys of others a session holds, counted from 1.
    pub(super) fn marked(&self) -> Option<i32> {
        self.marked
    }

    /// How many rows were removed.
    #[must_use]
    pub const fn swept(&self) -> i64 {
        self.swept
    }

    /// Whether the lease at this place was renewed: otherwise it is lost, or the request came too late.
    #[must_use]
    pub fn is_renewed(&self, place: i32) -> bool {
        self.renewed.contains(&place)
    }

    /// What became of the acquire at this place.
    #[must_use]
    pub fn acquired(&self, place: i32) -> Acquired {
        match self.acquired.get(&place) {
            Some((Some(token), _)) => Acquired::Granted(*token),
            _ if self.met.contains(&place) => Acquired::Met,
            Some((None, left)) => Acquired::Held(left.filter(|left| *left > 0)),
            None => Acquired::Held(None),
        }
    }

    /// Whether the row of the acquire at this place, which was refused, was written before the clock of the server
    /// went back, and ends too late.
    #[must_use]
    pub fn ends_too_late(&self, place: i32) -> bool {
        matches!(self.acquired.get(&place), Some((None, Some(..0))))
    }

    /// Whether the acquire at this place, of a writer, was refused because readers hold the lock.
    #[must_use]
    pub fn is_read(&self, place: i32) -> bool {
        self.read.contains(&place)
    }

    /// Whether the writer of the acquire at this place has a place now before readers that come later.
    #[must_use]
    pub fn has_place(&self, place: i32) -> bool {
        self.wanted.contains(&place)
    }

    /// The token that was issued at this place, if the lock is held.
    #[must_use]
    pub fn issued(&self, place: i32) -> Option<i64> {
        self.issued.get(&place).copied()
    }

    /// Who held the lock at this place when it was looked at, if any client did.
    #[must_use]
    pub fn holder(&self, place: i32) -> Option<&Holder> {
        self.holders.get(&place)
    }

    /// Whether the lock at this place was free for a writer when it was looked at.
    #[must_use]
    pub fn is_free(&self, place: i32) -> bool {
        self.free.get(&place).is_some_and(|[left, _]| *left == 0)
    }

    /// Whether it was free for a reader: no writer held it or had a place before readers.
    #[must_use]
    pub fn is_readable(&self, place: i32) -> bool {
        self.free.get(&place).is_some_and(|[_, left]| *left == 0)
    }

    /// When the first of the locks ends that were looked at and will be free soon.
    #[must_use]
    pub fn first_end(&self) -> Option<Duration> {
        let ends = (self.free.values().flatten()).filter(|left| **left > 0);
        ends.min()
            .map(|left| Duration::from_millis(left.unsigned_abs()))
    }
}

/// A holder, as its row names it, that was granted the lock so many microseconds before this time; the lock opens in so
/// many milliseconds, if it is kept closed after its release.
pub(super) fn holder(
    mode: LockMode,
    instance: &str,
    age: Option<i64>,
    left: Option<i64>,
    now: SystemTime,
) -> Holder {
    let mut holder = Holder::new(mode).with_instance(instance);
    // A clock that was put back is no reason to say that it was granted in the future.
    let age = age.map(|age| Duration::from_micros(age.max(0).unsigned_abs()));
    if let Some(since) = age.and_then(|age| now.checked_sub(age)) {
        holder = holder.with_since(since);
    }
    match left {
        Some(left) => holder.opening_after(now, Duration::from_millis(left.max(0).unsigned_abs())),
        None => holder,
    }
}
