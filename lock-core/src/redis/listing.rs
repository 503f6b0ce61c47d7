//! Which locks the servers have, over connections for that one question.

use std::collections::HashSet;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, Value, cmd, from_redis_value, pipe};
use tokio::time::timeout;

use super::connect::{ask, open};
use super::key;
use super::settings::Settings;
use super::topology::Topology;
use super::value;
use crate::{ListedLock, LockError};

/// The keys of locks, of each namespace: what tells those apart is in the hash. The braces mean themselves.
const KEYS: &str = "lock:{b*}:v1-*";

/// How many keys the server looks at in one call, which takes it less than a millisecond.
const STEP: usize = 1_000;

/// How many readers of a lock are listed at most.
const READERS: usize = 1_000;

/// What a lock has and more; others can write to the key.
const LONGEST: usize = 127;

/// Up to one more than `limit`, if there are so many.
pub(super) async fn list(
    topology: &Topology,
    settings: &Settings,
    limit: usize,
) -> Result<Vec<ListedLock>, LockError> {
    let mut held = Vec::new();
    for (place, node) in topology.nodes.iter().enumerate() {
        if !topology.has(place) {
            continue;
        }
        let mut connection = open(node, settings, None).await?;
        let (mut cursor, mut seen) = (0_u64, HashSet::new());
        loop {
            let keys = scan(&mut connection, &mut cursor, settings).await?;
            // A key can come twice.
            let keys: Vec<_> = keys
                .into_iter()
                .filter(|key| seen.insert(key.clone()))
                .collect();
            held.extend(look(&mut connection, keys, settings).await?);
            if held.len() > limit {
                return Ok(held);
            }
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(held)
}

/// Some of the keys; the cursor is zero after the last.
async fn scan(
    connection: &mut MultiplexedConnection,
    cursor: &mut u64,
    settings: &Settings,
) -> Result<Vec<String>, LockError> {
    let mut scan = cmd("SCAN");
    scan.arg(*cursor);
    scan.arg("MATCH").arg(KEYS).arg("COUNT").arg(STEP);
    scan.arg("TYPE").arg("string");
    let within = settings.connect_timeout();
    let answer = ask(connection, &scan, settings, within).await?;
    let (next, keys) = from_redis_value(answer).map_err(|error| {
        LockError::unavailable("the Redis server returned an unexpected reply to SCAN")
            .with_source(error)
    })?;
    *cursor = next;
    Ok(keys)
}

/// Sends these, and gives the answers.
async fn ask_all(
    connection: &mut MultiplexedConnection,
    questions: &Pipeline,
    settings: &Settings,
) -> Result<Vec<Value>, LockError> {
    let within = settings.connect_timeout();
    let asking = connection.send_packed_commands(questions, 0, questions.len());
    let answers = timeout(within, asking)
        .await
        .map_err(|_| LockError::unanswered())?;
    answers.map_err(|error| {
        LockError::unavailable("the Redis server did not tell its locks").with_source(error)
    })
}

/// The readers that hold these, whose shares end after that time, each with its lock; a lock is listed as often.
async fn readers(
    connection: &mut MultiplexedConnection,
    shared: Vec<(String, String, Option<bool>)>,
    settings: &Settings,
) -> Result<Vec<ListedLock>, LockError> {
    if shared.is_empty() {
        return Ok(Vec::new());
    }
    let mut questions = pipe();
    for (key, after, _) in &shared {
        questions
            .cmd("ZRANGE")
            .arg(key::readers(key))
            .arg(after)
            .arg("+inf");
        questions.arg("BYSCORE").arg("LIMIT").arg(0).arg(READERS);
    }
    let answers = ask_all(connection, &questions, settings).await?;
    let mut listed = Vec::new();
    for ((key, _, is_awaited), answer) in shared.into_iter().zip(answers) {
        let Value::Array(members) = answer else {
            continue;
        };
        for member in members {
            if let Value::BulkString(member) = member {
                let lock = ListedLock::new(&*key, value::reader(&member));
                listed.push(match is_awaited {
                    Some(is_awaited) => lock.with_awaited(is_awaited),
                    None => lock,
                });
            }
        }
    }
    Ok(listed)
}

/// Those of these which are still there.
async fn look(
    connection: &mut MultiplexedConnection,
    keys: Vec<String>,
    settings: &Settings,
) -> Result<Vec<ListedLock>, LockError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut questions = pipe();
    questions.cmd("TIME");
    for key in &keys {
        questions.cmd("GETRANGE").arg(key).arg(0).arg(LONGEST);
        questions.cmd("PTTL").arg(key);
    }
    let answers = ask_all(connection, &questions, settings).await?;
    let mut answers = answers.into_iter();
    let time = answers.next().and_then(|time| from_redis_value(time).ok());
    let (seconds, micros): (u64, u64) = time.ok_or_else(LockError::unanswered)?;
    let time = seconds.saturating_mul(1_000_000).saturating_add(micros);
    let answers: Vec<_> = answers.collect();
    let mut shared = Vec::new();
    let locks =
        keys.into_iter()
            .zip(answers.chunks(2))
            .filter_map(|(key, answers)| match answers {
                [Value::BulkString(value), _] if value::is_shared(value) => {
                    let since = if value::is_by_several_clocks(value) {
                        "(0".to_owned()
                    } else {
                        time.to_string()
                    };
                    shared.push((key, since, value::is_awaited(value)));
                    None
                }
                [Value::BulkString(value), Value::Int(left)] if !value.is_empty() => {
                    let mut holder = value::holder(value, time);
                    if value::is_kept(value) {
                        holder = holder
                            .opening_after(Duration::from_millis(left.max(&0).unsigned_abs()));
                    }
                    let lock = ListedLock::new(key, holder);
                    Some(match value::is_awaited(value) {
                        Some(is_awaited) => lock.with_awaited(is_awaited),
                        None => lock,
                    })
                }
                // Released since, or moved to another node.
                _ => None,
            });
    let mut locks: Vec<_> = locks.collect();
    locks.extend(readers(connection, shared, settings).await?);
    Ok(locks)
}
