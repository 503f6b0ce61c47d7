//! `dlock list`: what is held in the store.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use lock_core::{ListedLock, LockError, LockName, LockProvider};
use serde::Serialize;
use tokio::time::sleep;

use crate::cli::{List, Store};
use crate::connect::{close, connect};
use crate::ending::Ending;
use crate::holder::mode;
use crate::output;

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(2);

/// How many are looked through for those that begin as they were asked for.
const MOST: usize = 10_000;

pub(crate) async fn list(store: &Store, arguments: &List) -> Ending {
    let locks = match connect(store).await {
        Ok(locks) => locks,
        Err(error) => return Ending::failed(&error),
    };
    let ending = loop {
        let ending = match look(&locks, arguments).await {
            Ok(found) => Ending::of_output(print(&found, arguments)),
            // Also while it is watched: a table that is not of now is worse than none.
            Err(error) => Ending::failed(&error),
        };
        if ending != Ending::SUCCESS || !arguments.watch {
            break ending;
        }
        sleep(EVERY).await;
    };
    close(&locks).await;
    ending
}

/// The locks that were asked for, and whether there are more.
struct Found {
    locks: Vec<ListedLock>,
    is_complete: bool,
}

async fn look(locks: &LockProvider, arguments: &List) -> Result<Found, LockError> {
    let prefix = &*arguments.prefix;
    let most = if prefix.is_empty() {
        arguments.limit
    } else {
        MOST
    };
    let listing = locks.list(most).await?;
    let mut is_complete = listing.is_complete();
    let begins = |text: Option<&str>| text.is_some_and(|text| text.starts_with(prefix));
    let mut found: Vec<_> = listing.locks().to_vec();
    found.retain(|lock| {
        let name = lock.name().map(LockName::as_str);
        begins(name) || begins(Some(lock.key())) || begins(lock.holder().instance())
    });
    is_complete &= found.len() <= arguments.limit;
    found.truncate(arguments.limit);
    // Those that are held longest first, then in an order that stays.
    found.sort_by(|one, other| {
        let of = |lock: &ListedLock| (lock.holder().since(), lock.key().to_owned());
        of(one).cmp(&of(other))
    });
    Ok(Found {
        locks: found,
        is_complete,
    })
}

fn print(found: &Found, arguments: &List) -> io::Result<()> {
    if arguments.json {
        return output::json(&Json {
            locks: found.locks.iter().map(Row::of).collect(),
            complete: found.is_complete,
        });
    }
    if arguments.watch && io::stdout().is_terminal() {
        // The screen, from its first line.
        write!(io::stdout().lock(), "\x1b[H\x1b[2J")?;
    }
    let rows: Vec<_> = found.locks.iter().map(cells).collect();
    output::table(
        ["NAME OR KEY", "INSTANCE", "HELD FOR", "MODE", "AWAITED"],
        &rows,
    )?;
    if !found.is_complete {
        output::say("there are more: --limit shows them");
    }
    Ok(())
}

const UNKNOWN: &str = "-";

fn cells(lock: &ListedLock) -> [String; 5] {
    let holder = lock.holder();
    let name = lock.name().map_or(lock.key(), |name| name.as_str());
    let awaited = match lock.is_awaited() {
        Some(true) => "yes",
        Some(false) => "no",
        None => UNKNOWN,
    };
    [
        name.to_owned(),
        holder.instance().unwrap_or(UNKNOWN).to_owned(),
        holder
            .since()
            .map_or_else(|| UNKNOWN.to_owned(), output::age),
        mode(holder).to_owned(),
        awaited.to_owned(),
    ]
}

#[derive(Serialize)]
struct Json<'a> {
    locks: Vec<Row<'a>>,
    /// Whether these are all.
    complete: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    name: Option<&'a str>,
    key: &'a str,
    instance: Option<&'a str>,
    since: Option<String>,
    /// When it opens, if it was released already.
    until: Option<String>,
    mode: &'static str,
    awaited: Option<bool>,
}

impl<'a> Row<'a> {
    fn of(lock: &'a ListedLock) -> Self {
        Self {
            name: lock.name().map(LockName::as_str),
            key: lock.key(),
            instance: lock.holder().instance(),
            since: lock.holder().since().map(output::time),
            until: lock.holder().until().map(output::time),
            mode: mode(lock.holder()),
            awaited: lock.is_awaited(),
        }
    }
}
