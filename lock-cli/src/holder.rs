//! `dlock holder`: who holds a lock.

use std::io::{self, Write};
use std::time::SystemTime;

use lock_core::{Holder as Found, LockError, LockMode, LockName, LockProvider};
use serde::Serialize;

use crate::cli::{Holder, Store};
use crate::connect::{close, connect};
use crate::ending::{Ending, UNAVAILABLE};
use crate::events::granting_nothing;
use crate::output;
use crate::telling::say;

/// The exit status where the lock is free, as of grep(1) where nothing was found.
const FREE: u8 = 1;

pub(crate) async fn holder(store: &Store, arguments: &Holder) -> Ending {
    let locks = match connect(store).await {
        Ok(locks) => locks,
        Err(error) => return Ending::failed(&error),
    };
    let found = ask(&locks, arguments).await;
    let is_free = |found: &[Asked]| found.iter().all(|(_, holder)| holder.is_none());
    if found.as_deref().is_ok_and(is_free) {
        // A store that grants nothing says so when it is asked for a lock, and not of one that is held.
        locks.health().await;
    }
    close(&locks).await;
    let found = match found {
        Ok(found) => found,
        Err(error) => return Ending::failed(&error),
    };
    if is_free(&found)
        && let Some(why) = granting_nothing()
    {
        say(&why);
        return Ending::Status(UNAVAILABLE);
    }
    let printed = match (arguments.json, arguments.permits, &found[..]) {
        (true, None, [(_, holder)]) => output::json(&holder.as_ref().map(Row::of)),
        (true, ..) => output::json(&found.iter().map(Slot::of).collect::<Vec<_>>()),
        (false, ..) => print(&found),
    };
    match Ending::of_output(printed) {
        Ending::SUCCESS if is_free(&found) => Ending::Status(FREE),
        ending => ending,
    }
}

/// A lock, and who holds it.
type Asked = (LockName, Option<Found>);

/// Asks for the lock, or for each slot of its permits.
async fn ask(locks: &LockProvider, arguments: &Holder) -> Result<Vec<Asked>, LockError> {
    let names = match arguments.permits {
        Some(permits) => {
            let lock = locks.lock(&arguments.name)?.permits(permits.into());
            lock.slots().collect()
        }
        None => vec![arguments.name.clone()],
    };
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let holder = locks.holder(&name).await?;
        found.push((name, holder));
    }
    Ok(found)
}

fn print(found: &[Asked]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, holder) in found {
        match holder {
            Some(holder) => writeln!(out, "{name} is {}", in_words(holder))?,
            None => writeln!(out, "{name} is free")?,
        }
    }
    Ok(())
}

/// Held by whom, for how long, and how; or kept, after its release.
pub(crate) fn in_words(holder: &Found) -> String {
    let instance = holder.instance().unwrap_or("an unnamed process");
    if let Some(until) = holder.until() {
        let left = until.duration_since(SystemTime::now()).unwrap_or_default();
        let left = output::in_seconds(left);
        return format!("kept closed for {left} more, released by {instance}");
    }
    let mut words = format!("held by {instance}");
    if let Some(since) = holder.since() {
        words.push_str(&format!(" for {}", output::age(since)));
    }
    if holder.mode() != LockMode::Exclusive {
        words.push_str(", shared with others that read");
    }
    words
}

/// The same for one that is refused or waits. Readers are in the way of a reader when a writer waits for them.
pub(crate) fn in_the_way(holder: &Found, is_reader: bool) -> String {
    let mut words = in_words(holder);
    if is_reader && holder.mode() == LockMode::Shared {
        words.push_str(", and one that waits for them to hold it alone is first");
    }
    words
}

/// How it is held, as machines read it.
pub(crate) fn mode(holder: &Found) -> &'static str {
    match holder.mode() {
        LockMode::Shared => "shared",
        _ => "exclusive",
    }
}

/// A holder in JSON.
#[derive(Serialize)]
struct Row<'a> {
    instance: Option<&'a str>,
    since: Option<String>,
    /// When it opens, if it was released already.
    until: Option<String>,
    mode: &'static str,
}

impl<'a> Row<'a> {
    fn of(holder: &'a Found) -> Self {
        Self {
            instance: holder.instance(),
            since: holder.since().map(output::time),
            until: holder.until().map(output::time),
            mode: mode(holder),
        }
    }
}

/// A slot in JSON.
#[derive(Serialize)]
struct Slot<'a> {
    name: &'a str,
    holder: Option<Row<'a>>,
}

impl<'a> Slot<'a> {
    fn of((name, holder): &'a Asked) -> Self {
        Self {
            name: name.as_str(),
            holder: holder.as_ref().map(Row::of),
        }
    }
}
