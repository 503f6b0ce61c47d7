//! Of many locks those that are free, up to a limit.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio::time::Instant;

use super::{Driver, State};
use crate::hand_over::HAND_OVER;
use crate::postgres::held::PostgresGrant;
use crate::postgres::key::Keys;
use crate::postgres::session::{Failed, Session, value};
use crate::postgres::shared::Request;
use crate::postgres::statement::Statement;
use crate::postgres::{errors, sql};
use crate::server::Reply;

impl Driver {
    /// Answers the oldest claim. Tells whether there was one. One that is new waits for the end of the windows that
    /// there are: what is left to others can be free by then.
    pub(super) async fn run_claim(&mut self, session: &mut Session) -> Result<bool, Failed> {
        let now = Instant::now();
        let is_left = |keys: &Keys| self.handed_over.get(&keys.lock).is_some();
        let is_due = |request: &Request| match request {
            Request::Claim { keys, asked, .. } => {
                *asked + HAND_OVER <= now || !keys.iter().any(is_left)
            }
            _ => false,
        };
        let Some(position) = self.backlog.iter().position(is_due) else {
            return Ok(false);
        };
        let Request::Claim {
            keys,
            limit,
            asked,
            reply,
        } = self.backlog.remove(position)
        else {
            return Ok(false);
        };
        self.claim(session, (keys, limit, asked), reply).await?;
        Ok(true)
    }

    async fn claim(
        &mut self,
        session: &mut Session,
        (keys, limit, asked): (Vec<Keys>, usize, Instant),
        reply: Reply<Vec<(usize, PostgresGrant)>>,
    ) -> Result<(), Failed> {
        let cap = self.cap(session);
        let room = cap.saturating_sub(self.keys.len());
        if room == 0 {
            let _ = reply.send(Err(errors::full(cap, self.keys.len())));
            return Ok(());
        }
        // Of names that share a key the first; the others are held by it.
        let mut free: HashMap<i64, (usize, Keys)> = HashMap::with_capacity(keys.len());
        let (mut tried, mut pairs) = (Vec::with_capacity(keys.len()), Vec::new());
        for (position, keys) in keys.iter().enumerate() {
            let key = keys.lock;
            let is_taken = self.keys.contains_key(&key) || self.handed_over.get(&key).is_some();
            if !is_taken && let Entry::Vacant(place) = free.entry(key) {
                place.insert((position, *keys));
                tried.push(key);
                pairs.push(keys.is_pair);
            }
        }
        self.keys
            .extend(tried.iter().map(|key| (*key, State::Trying)));
        let at_most = i64::try_from(limit.min(room)).unwrap_or(i64::MAX);
        let has_pairs = pairs.contains(&true);
        let statement = match has_pairs {
            false => const { Statement::new(sql::CLAIM) },
            true => const { Statement::new(sql::CLAIM_WITH_PAIRS) },
        };
        let answer = session
            .run(&*self.shared, statement, |claim| {
                let claim = claim.bind(&tried).bind(at_most);
                if has_pairs { claim.bind(&pairs) } else { claim }
            })
            .await;
        let rows = match answer {
            Ok(rows) => rows,
            Err(Failed::Statement(error)) => {
                let recovered = self.recover(session, Some(Vec::new())).await;
                self.forget_keys(&tried);
                let _ = reply.send(Err(errors::statement(error, session.limits)));
                return recovered;
            }
            Err(lost) => {
                let again = Request::Claim {
                    keys,
                    limit,
                    asked,
                    reply,
                };
                self.backlog.insert(0, again);
                return Err(lost);
            }
        };
        self.forget_keys(&tried);
        let granted: Vec<i64> = match rows.first() {
            Some(row) => value(row, 1)?,
            None => Vec::new(),
        };
        self.was_refused |= granted.len() < tried.len().min(limit).min(room);
        let grants = granted.into_iter().filter_map(|key| {
            let (position, keys) = free.remove(&key)?;
            Some((position, self.grant(session, keys)?))
        });
        let grants = grants.collect();
        let _ = reply.send(Ok(grants));
        Ok(())
    }

    /// Keys that were tried and are not held.
    fn forget_keys(&mut self, keys: &[i64]) {
        for key in keys {
            self.keys.remove(key);
        }
    }
}
