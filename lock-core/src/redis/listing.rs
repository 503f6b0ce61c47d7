//! Which locks the servers have, over connections for that one question.
//!
//! Others can write to all keys. So nothing is read whole that is theirs: a key is sent that can be one of a lock, of a value
//! or of a member no more than ours have, and of members no more than are asked for.

use std::collections::HashSet;
use std::mem;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, ConnectionInfo, Value, from_redis_value, pipe};
use tokio::time::timeout;

use super::about::time_of;
use super::connect::{open, unanswered};
use super::key::{self, Key, PATTERN};
use super::not_now::because;
use super::rights::{Asked, LIST_KEYS, LIST_READERS};
use super::scripts::{self, Failure, Lua, has_moved};
use super::settings::Settings;
use super::topology::Topology;
use super::value::{self, Moment};
use crate::{Holder, ListedLock, Listing, LockError, LockMode};

/// How many keys the server looks at in one call, which takes it less than a millisecond.
const STEP: usize = 1_000;

/// How many readers of a lock are listed at most.
const READERS: usize = 1_000;

/// The readers of how many locks are asked for in one call.
const SETS: usize = 64;

/// What a lock has and more.
const LONGEST: usize = 127;

/// What PTTL answers where there is no key.
const GONE: i64 = -2;

const UNEXPECTED: &str =
    "the Redis server returned an unexpected reply to a question for its locks";

const REFUSED: &str = "the Redis server did not tell its locks";

pub(super) async fn list(
    topology: &Topology,
    settings: &Settings,
    limit: usize,
) -> Result<Listing, LockError> {
    let (mut held, mut has_missed) = (Vec::new(), false);
    for (place, node) in topology.nodes.iter().enumerate() {
        if topology.has(place) && held.len() <= limit {
            let mut look = Look::open(node, settings, topology.is_cluster).await?;
            look.run(limit, &mut held).await?;
            has_missed |= look.has_missed;
        }
    }
    let listing = Listing::new(held, limit);
    Ok(if has_missed {
        listing.incomplete()
    } else {
        listing
    })
}

/// A look at one server.
struct Look<'a> {
    connection: MultiplexedConnection,
    settings: &'a Settings,
    is_cluster: bool,
    /// All times of this server are by it.
    now: Option<Moment>,
    /// Whether a key could be that of a lock, and was on its way to another node of the cluster.
    has_missed: bool,
}

/// A lock that readers hold.
struct Shared {
    key: Key,
    /// After which time its shares last, as ZRANGE takes it.
    after: String,
    is_awaited: Option<bool>,
}

impl<'a> Look<'a> {
    async fn open(
        node: &ConnectionInfo,
        settings: &'a Settings,
        is_cluster: bool,
    ) -> Result<Self, LockError> {
        Ok(Self {
            connection: open(node, settings, None).await?,
            settings,
            is_cluster,
            now: None,
            has_missed: false,
        })
    }

    async fn run(&mut self, limit: usize, held: &mut Vec<ListedLock>) -> Result<(), LockError> {
        let (mut cursor, mut seen) = (0_u64, HashSet::new());
        loop {
            let mut keys = self.scan(&mut cursor).await?;
            // A key can come twice.
            keys.retain(|key| seen.insert(key.clone()));
            let shared = self.values(keys, held).await?;
            self.readers(shared, limit, held).await?;
            if held.len() > limit || cursor == 0 {
                return Ok(());
            }
        }
    }

    /// Some of the keys; the cursor is zero after the last.
    async fn scan(&mut self, cursor: &mut u64) -> Result<Vec<Key>, LockError> {
        let mut call = scripts::KEYS.call(0, 4);
        call.arg(*cursor).arg(PATTERN).arg(STEP).arg(key::LONGEST);
        let answer = self.call(&scripts::KEYS, call, LIST_KEYS).await?;
        let mut answer = answer.map_err(|moved| self.refused(&moved, LIST_KEYS))?;
        let next = answer.next();
        *cursor = (next.and_then(|next| from_redis_value(next).ok()))
            .ok_or_else(|| LockError::unavailable(UNEXPECTED))?;
        let keys = answer.filter_map(|key| match key {
            Value::BulkString(key) => key::lock_of(&key),
            _ => None,
        });
        Ok(keys.collect())
    }

    /// Lists those of these which writers hold, or are kept, and gives those that readers hold.
    async fn values(
        &mut self,
        keys: Vec<Key>,
        held: &mut Vec<ListedLock>,
    ) -> Result<Vec<Shared>, LockError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut questions = pipe();
        questions.cmd("TIME");
        for key in &keys {
            questions
                .cmd("GETRANGE")
                .arg(&*key.text)
                .arg(0)
                .arg(LONGEST);
            questions.cmd("PTTL").arg(&*key.text);
        }
        let within = self.settings.connect_timeout();
        let asking = (self.connection).send_packed_commands(&questions, 0, questions.len());
        let answers = timeout(within, asking)
            .await
            .map_err(|_| unanswered(within))?;
        let answers =
            answers.map_err(|error| LockError::unavailable(UNEXPECTED).with_source(error))?;
        let mut answers = answers.into_iter();
        let time = answers.next().unwrap_or(Value::Nil).extract_error();
        let time = time.map_err(|error| self.refused(&Failure::Refused(error), "TIME"))?;
        let time = time_of(time).map_err(|_| LockError::unavailable(UNEXPECTED))?;
        let now = self.now.get_or_insert_with(|| Moment::of(time)).later(time);
        let answers: Vec<_> = answers.collect();
        let mut shared = Vec::new();
        for (key, answers) in keys.into_iter().zip(answers.chunks(2)) {
            let (value, left) = match answers {
                [Value::BulkString(value), Value::Int(left)] => (value, left),
                answers => {
                    self.excuse(answers)?;
                    continue;
                }
            };
            if *left == GONE {
                continue;
            }
            let is_awaited = value::is_awaited(value);
            if value::is_shared(value) {
                let after = match value::is_by_several_clocks(value) {
                    true => "(0".to_owned(),
                    false => time.to_string(),
                };
                shared.push(Shared {
                    key,
                    after,
                    is_awaited,
                });
                continue;
            }
            let holder = match value::is_kept(value) {
                true => {
                    let left = Duration::from_millis((*left).max(0).unsigned_abs());
                    value::kept_by(value, left, now)
                }
                false => value::holder(value, now),
            };
            held.push(listed(&key, holder, is_awaited));
        }
        Ok(shared)
    }

    /// Refuses answers that are errors, but for those of keys that moved, or are of another type by now.
    fn excuse(&mut self, answers: &[Value]) -> Result<(), LockError> {
        for answer in answers {
            let Err(error) = answer.clone().extract_error() else {
                continue;
            };
            if has_moved(&error) {
                self.has_missed = true;
            } else if error.code() != Some("WRONGTYPE") {
                return Err(self.refused(&Failure::Refused(error), "GETRANGE"));
            }
        }
        Ok(())
    }

    /// Lists the readers that hold these, a lock as often as it has readers.
    async fn readers(
        &mut self,
        mut shared: Vec<Shared>,
        limit: usize,
        held: &mut Vec<ListedLock>,
    ) -> Result<(), LockError> {
        // Those of one slot together.
        shared.sort_unstable_by_key(|lock| lock.key.bucket);
        let mut sets = SETS;
        while held.len() <= limit && !shared.is_empty() {
            let bucket = shared[0].key.bucket;
            let is_of_call = |lock: &&Shared| !self.is_cluster || lock.key.bucket == bucket;
            let together = shared.iter().take(sets).take_while(is_of_call).count();
            let rest = shared.split_off(together);
            let mut locks = mem::replace(&mut shared, rest);
            let most = READERS.min((limit - held.len()).saturating_add(1));
            let mut call = scripts::READERS.call(locks.len(), locks.len() + 2);
            for lock in &locks {
                call.arg(key::readers(&lock.key.text));
            }
            call.arg(most).arg(value::READER + 1);
            for lock in &locks {
                call.arg(&lock.after);
            }
            let Ok(answer) = self.call(&scripts::READERS, call, LIST_READERS).await? else {
                // One set that moved fails the call for all.
                match locks.len() {
                    1 => self.has_missed = true,
                    _ => {
                        sets = 1;
                        locks.append(&mut shared);
                        shared = locks;
                    }
                }
                continue;
            };
            for (lock, members) in locks.iter().zip(answer) {
                let Value::Array(members) = members else {
                    continue;
                };
                let holders = members.iter().filter_map(|member| match member {
                    Value::BulkString(member) => value::reader(member),
                    _ => None,
                });
                let mut holders: Vec<_> = holders.collect();
                // Held as well, by what none of ours is called.
                if holders.is_empty() && !members.is_empty() {
                    holders.push(Holder::new(LockMode::Shared));
                }
                let readers = holders.into_iter();
                held.extend(readers.map(|holder| listed(&lock.key, holder, lock.is_awaited)));
            }
        }
        Ok(())
    }

    /// Calls a script; gives what follows the time in its answer, or says that keys are not on this node, or not all.
    async fn call(
        &mut self,
        script: &Lua,
        call: Cmd,
        command: &str,
    ) -> Result<Result<impl Iterator<Item = Value> + use<>, Failure>, LockError> {
        let within = self.settings.connect_timeout();
        match script.invoke(&mut self.connection, call, within).await {
            Ok(answer) => Ok(Ok(answer.into_iter().skip(1))),
            Err(Failure::Unknown(None)) => Err(unanswered(within)),
            Err(moved) if moved.is_elsewhere() => Ok(Err(moved)),
            Err(failure) => Err(self.refused(&failure, command)),
        }
    }

    /// Why the server did not do what was asked by this command.
    fn refused(&self, failure: &Failure, command: &str) -> LockError {
        let asked = Asked {
            settings: self.settings,
            is_cluster: Some(self.is_cluster),
            command,
        };
        failure.lacking(asked).unwrap_or_else(|| {
            let because = because(failure.code());
            LockError::unavailable(format!("{REFUSED}{because}")).with_source(failure.to_string())
        })
    }
}

fn listed(key: &Key, holder: Holder, is_awaited: Option<bool>) -> ListedLock {
    let lock = ListedLock::new(&*key.text, holder);
    match is_awaited {
        Some(is_awaited) => lock.with_awaited(is_awaited),
        None => lock,
    }
}
