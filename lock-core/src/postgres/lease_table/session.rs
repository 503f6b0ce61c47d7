//! Sends a request and reads its answer.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use sqlx::postgres::{PgConnection, PgDatabaseError, PgRow, PgSeverity};
use sqlx::{AssertSqlSafe, Error, Row};

use super::request::Request;
use super::sql::kind;
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
    /// The server's time when it began, in microseconds.
    pub time: i64,
    /// What the server says of itself.
    pub server: Server,
    released: HashMap<i32, (i64, bool)>,
    renewed: HashSet<i32>,
    acquired: HashMap<i32, (Option<i64>, Option<i64>)>,
    issued: HashMap<i32, i64>,
    free: HashSet<i32>,
    opens: Option<Duration>,
    marked: Option<i32>,
    holders: HashMap<i32, Holder>,
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

/// Sends a request over this connection, in one exchange.
///
/// # Errors
///
/// Where there is no answer, with what that means.
///
/// # Cancel safety
///
/// Not cancel safe: what the request does is unknown then, and the connection is busy until it is answered.
pub async fn run(connection: &mut PgConnection, request: Request) -> Result<Answer, Failure> {
    let Request { number, text } = request;
    let sent = sqlx::raw_sql(AssertSqlSafe(text));
    let rows = sent.fetch_all(connection).await.map_err(Failure::of)?;
    Answer::read(number, &rows).ok_or(Failure::Nonsense)
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
            issued: HashMap::new(),
            free: HashSet::new(),
            opens: None,
            marked: None,
            holders: HashMap::new(),
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
                kind::FREE => match one {
                    None => drop(answer.free.insert(place)),
                    Some(left) => {
                        let left = Duration::from_millis(left.max(0).unsigned_abs());
                        answer.opens = answer.opens.into_iter().chain([left]).min();
                    }
                },
                kind::MARKED => answer.marked = Some(place),
                kind::NOTIFIED => {}
                kind::HELD_BY => {
                    let holder = holder(row.try_get(4).ok()?, one, other);
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
            Some((None, left)) => Acquired::Held(left.filter(|left| *left > 0)),
            None => Acquired::Held(None),
        }
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

    /// After how long the first of the locks opens that were looked at and are kept.
    pub(super) fn opens(&self) -> Option<Duration> {
        self.opens
    }

    /// Whether the lock at this place was free when it was looked at.
    #[must_use]
    pub fn is_free(&self, place: i32) -> bool {
        self.free.contains(&place)
    }
}

/// A holder, as its row names it, that was granted the lock so many microseconds ago, and whose lock opens in so many
/// milliseconds if it was released.
fn holder(instance: &str, age: Option<i64>, left: Option<i64>) -> Holder {
    let mut holder = Holder::new(LockMode::Exclusive).with_instance(instance);
    if let Some(left) = left {
        holder = holder.opening_after(Duration::from_millis(left.max(0).unsigned_abs()));
    }
    // A clock that was put back is no reason to say that it was granted in the future.
    let age = age.map(|age| Duration::from_micros(age.max(0).unsigned_abs()));
    match age.and_then(|age| SystemTime::now().checked_sub(age)) {
        Some(since) => holder.with_since(since),
        None => holder,
    }
}
