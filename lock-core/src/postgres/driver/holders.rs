//! Who holds a lock: what `pg_locks` and `pg_stat_activity` say.

use std::collections::HashMap;

use sqlx::AssertSqlSafe;

use super::Driver;
use crate::postgres::errors;
use crate::postgres::session::{Failed, Session, value};
use crate::postgres::shared::Request;
use crate::postgres::sql;
use crate::{Holder, LockMode};

/// How many are asked for in one statement.
const TOGETHER: usize = 256;

impl Driver {
    /// Answers all who have asked, with one statement. Tells whether there were any.
    ///
    /// It is none of those that prove the session, and whichever session answers, it is one of the same
    /// database.
    pub(super) async fn run_holders(&mut self, session: &mut Session) -> Result<bool, Failed> {
        let is_question = |request: &mut Request| matches!(request, Request::Holder { .. });
        let asked: Vec<_> = (self.backlog.extract_if(.., is_question))
            .filter_map(|request| match request {
                Request::Holder { keys, reply } => (!reply.is_closed()).then_some((keys, reply)),
                _ => None,
            })
            .take(TOGETHER)
            .collect();
        if asked.is_empty() {
            return Ok(false);
        }
        let keys: HashMap<_, _> = asked
            .iter()
            .map(|(keys, _)| ((keys.lock, keys.is_pair), ()))
            .collect();
        let statement = AssertSqlSafe(sql::holders(
            keys.into_keys(),
            self.config.target.terms.look_ms(),
        ));
        let answer = self.look(session, statement).await;
        let answer = match answer {
            Ok(rows) => {
                let mut holders = HashMap::new();
                for row in &rows {
                    let key: (i64, bool) = (value(row, 0)?, value(row, 1)?);
                    let mode = match value::<bool>(row, 2)? {
                        true => LockMode::Exclusive,
                        false => LockMode::Shared,
                    };
                    let name: Option<&str> = value(row, 3)?;
                    let instance = self
                        .config
                        .target
                        .name
                        .instance_in(name.unwrap_or_default());
                    let holder = Holder::new(mode).with_instance(instance);
                    holders.insert(key, holder);
                }
                Ok(holders)
            }
            Err(Failed::Statement(error)) => Err(errors::look(error, session.limits)),
            // The replies are dropped, and who has asked learns that the connection is gone.
            Err(lost) => return Err(lost),
        };
        for (keys, reply) in asked {
            let _ = reply.send(match &answer {
                Ok(holders) => Ok(holders.get(&(keys.lock, keys.is_pair)).cloned()),
                Err(error) => Err(error.duplicate()),
            });
        }
        Ok(true)
    }
}
