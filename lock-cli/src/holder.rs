//! `dlock holder`: who holds a lock.

use std::io::{self, Write};

use lock_core::{Holder as Found, LockMode};
use serde::Serialize;

use crate::cli::{Holder, Store};
use crate::connect::{close, connect};
use crate::ending::Ending;
use crate::output;

/// The exit status where the lock is free, as of grep(1) where nothing was found.
const FREE: u8 = 1;

pub(crate) async fn holder(store: &Store, arguments: &Holder) -> Ending {
    let found = match connect(store).await {
        Ok(locks) => {
            let found = locks.holder(&arguments.name).await;
            close(&locks).await;
            found
        }
        Err(error) => Err(error),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return Ending::failed(&error),
    };
    let printed = match arguments.json {
        true => output::json(&found.as_ref().map(Row::of)),
        false => {
            let said = match &found {
                Some(found) => format!("{} is held by {}", arguments.name, in_words(found)),
                None => format!("{} is free", arguments.name),
            };
            writeln!(io::stdout().lock(), "{said}")
        }
    };
    match Ending::of_output(printed) {
        Ending::SUCCESS if found.is_none() => Ending::Status(FREE),
        ending => ending,
    }
}

/// Who, for how long, and how.
pub(crate) fn in_words(holder: &Found) -> String {
    let mut words = holder.instance().unwrap_or("an unnamed process").to_owned();
    if let Some(since) = holder.since() {
        words.push_str(&format!(" for {}", output::age(since)));
    }
    if holder.mode() != LockMode::Exclusive {
        words.push_str(", together with others");
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
    mode: &'static str,
}

impl<'a> Row<'a> {
    fn of(holder: &'a Found) -> Self {
        Self {
            instance: holder.instance(),
            since: holder.since().map(output::time),
            mode: mode(holder),
        }
    }
}
