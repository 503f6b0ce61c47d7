//! What is held in the database: what `pg_locks` and `pg_stat_activity` say. Of locks that are held shared they do not
//! say which are readers: the keys of waiters and of leases are held so as well.

use sqlx::AssertSqlSafe;

use super::Driver;
use crate::postgres::errors;
use crate::postgres::session::{Failed, Session, value};
use crate::postgres::shared::Request;
use crate::postgres::sql;
use crate::{Holder, ListedLock, LockMode};

/// What `pg_locks` calls a key that is one number (`objsubid`).
const BIGINT: i16 = 1;

impl Driver {
    /// Answers those who have asked, each with a statement. Tells whether there were any.
    pub(super) async fn run_listings(&mut self, session: &mut Session) -> Result<bool, Failed> {
        let is_question = |request: &mut Request| matches!(request, Request::List { .. });
        let asked: Vec<_> = self.backlog.extract_if(.., is_question).take(1).collect();
        let Some(Request::List { limit, reply }) = asked.into_iter().next() else {
            return Ok(false);
        };
        if reply.is_closed() {
            return Ok(true);
        }
        let statement = AssertSqlSafe(sql::listing(
            limit.saturating_add(1),
            self.config.target.terms.look_ms(),
        ));
        let answer = self.look(session, statement).await;
        let answer = match answer {
            Ok(rows) => {
                let mut locks = Vec::with_capacity(rows.len());
                for row in &rows {
                    let (high, low): (i64, i64) = (value(row, 0)?, value(row, 1)?);
                    let key = key(high, low, value(row, 2)?);
                    let name: Option<&str> = value(row, 3)?;
                    let instance = self
                        .config
                        .target
                        .name
                        .instance_in(name.unwrap_or_default());
                    let holder = Holder::new(LockMode::Exclusive).with_instance(instance);
                    locks.push(ListedLock::new(key, holder));
                }
                Ok(locks)
            }
            Err(Failed::Statement(error)) => Err(errors::look(error, session.limits)),
            // The reply is dropped, and the caller learns that the connection is gone.
            Err(lost) => return Err(lost),
        };
        let _ = reply.send(answer);
        Ok(true)
    }
}

/// The key as arguments of the functions for advisory locks, from its halves, each of 32 bits: one number, or
/// two.
fn key(high: i64, low: i64, kind: i16) -> String {
    let half = |half: i64| half as i32;
    match kind {
        BIGINT => (high << 32 | low).to_string(),
        _ => format!("{}, {}", half(high), half(low)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_one_number_or_two() {
        const MOST: i64 = 0xffff_ffff;
        assert_eq!(key(0, 42, 1), "42");
        assert_eq!(key(MOST, MOST, 1), "-1");
        assert_eq!(key(0x8000_0000, 0, 1), i64::MIN.to_string());
        assert_eq!(key(3, MOST, 2), "3, -1");
    }
}
