//! `dlock list`: what is held in the store.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use lock_core::{Holder, ListedLock, LockError, LockName, LockProvider};
use serde::Serialize;
use tokio::time::sleep;

use crate::cli::{List, Store};
use crate::connect::{close, connect};
use crate::ending::Ending;
use crate::holder::mode;
use crate::output;
use crate::telling::say;

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(2);

/// How many are looked through for those that were asked for, and are held longest.
const MOST: usize = 10_000;

pub(crate) async fn list(store: &Store, arguments: &List) -> Ending {
    let locks = match connect(store).await {
        Ok(locks) => locks,
        Err(error) => return Ending::failed(&error),
    };
    let ending = loop {
        let printed = match look(&locks, arguments).await {
            Ok(found) => print(&found, arguments),
            // Also while it is watched: a table that is not of now is worse than none.
            Err(error) => break Ending::failed(&error),
        };
        // A reader that has gone watches no more.
        if printed.is_err() || !arguments.watch {
            break Ending::of_output(printed);
        }
        sleep(EVERY).await;
    };
    close(&locks).await;
    ending
}

/// The locks that were asked for.
struct Found {
    locks: Vec<ListedLock>,
    /// How many were found and are not shown.
    more: usize,
    /// Whether the store was looked through to its end.
    is_all: bool,
}

impl Found {
    fn is_complete(&self) -> bool {
        self.is_all && self.more == 0
    }
}

async fn look(locks: &LockProvider, arguments: &List) -> Result<Found, LockError> {
    let prefix = &*arguments.prefix;
    let listing = locks.list(MOST.max(arguments.limit)).await?;
    let begins = |text: Option<&str>| text.is_some_and(|text| text.starts_with(prefix));
    let mut found: Vec<_> = listing.locks().to_vec();
    found.retain(|lock| {
        let name = lock.name().map(LockName::as_str);
        begins(name) || begins(Some(lock.key())) || begins(lock.holder().instance())
    });
    // Those that are held longest first, then in an order that stays.
    found.sort_by(|one, other| {
        let of = |lock: &ListedLock| (lock.holder().since(), lock.key().to_owned());
        of(one).cmp(&of(other))
    });
    let more = found.len().saturating_sub(arguments.limit);
    found.truncate(arguments.limit);
    Ok(Found {
        locks: found,
        more,
        is_all: listing.is_complete(),
    })
}

fn print(found: &Found, arguments: &List) -> io::Result<()> {
    if arguments.json {
        return output::json(&Json {
            locks: found.locks.iter().map(Row::of).collect(),
            complete: found.is_complete(),
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
    match (found.more, found.is_all) {
        (0, true) => {}
        (0, false) => say(
            "there may be more in the store than were looked through: a greater --limit looks further",
        ),
        (more, true) => say(&format!("{more} more: --limit shows them")),
        (more, false) => say(&format!("at least {more} more: --limit shows them")),
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
        how(holder),
        awaited.to_owned(),
    ]
}

/// How it is held, or that it is kept closed after that.
fn how(holder: &Holder) -> String {
    match holder.until() {
        Some(until) => {
            let left = until.duration_since(SystemTime::now()).unwrap_or_default();
            format!("kept {}", output::in_seconds(left))
        }
        None => mode(holder).to_owned(),
    }
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
