//! `dlock doctor`: the checks that connecting makes, and how fast the store is.
//!
//! The library makes the checks, and tells of each: what has passed by an event, a doubt by a warning, what
//! is refused by its error, which says what to do. After that the store is used as a service uses it.

mod findings;
mod tries;

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use lock_core::LockError;
use serde::Serialize;

use self::findings::{Finding, Findings, Result as Found};
use crate::cli::{Doctor, Store};
use crate::connect::{close, connect};
use crate::ending::{Ending, with_causes};
use crate::events::granting_nothing;
use crate::output;
use crate::store::{UNCHOSEN, is_chosen};

/// The exit statuses.
const WARNINGS: u8 = 1;
const FAILURES: u8 = 2;

pub(crate) async fn doctor(store: &Store, arguments: &Doctor) -> Ending {
    let findings = Findings::collect();
    examine(store, &findings).await;
    let findings = findings.all();
    let printed = match arguments.json {
        true => output::json(&Report { checks: &findings }),
        false => print(&findings),
    };
    let has = |result| findings.iter().any(|finding| finding.result == result);
    match Ending::of_output(printed) {
        Ending::SUCCESS if has(Found::Failed) => Ending::Status(FAILURES),
        Ending::SUCCESS if has(Found::Warning) => Ending::Status(WARNINGS),
        ending => ending,
    }
}

async fn examine(store: &Store, findings: &Findings) {
    if !is_chosen(store) {
        findings.warning("store", UNCHOSEN);
    }
    let locks = match connect(store).await {
        Ok(locks) => locks,
        Err(error) => return findings.failed("connect", &explained(&error)),
    };
    for server in locks.health().await.servers() {
        let (role, name) = (server.role().as_str(), server.name());
        match server.error() {
            None => findings.passed("health", &format!("{name} ({role}) is well")),
            Some(error) => {
                findings.failed("health", &format!("{name} ({role}): {}", explained(error)));
            }
        }
    }
    tries::round_trips(&locks, findings).await;
    match tries::lock(&locks, findings).await {
        Err(error) if error.is_contended() => {
            let why = granting_nothing().unwrap_or_else(|| {
                "a lock that no service has is not granted: the store grants none now, for a reason above".to_owned()
            });
            findings.failed("lock", &why);
        }
        Err(error) => findings.failed("lock", &explained(&error)),
        Ok(()) => {}
    }
    close(&locks).await;
}

fn explained(error: &LockError) -> String {
    with_causes(error)
}

fn print(findings: &[Finding]) -> io::Result<()> {
    let width = findings.iter().map(|finding| finding.check.len()).max();
    let width = width.unwrap_or_default();
    let mut out = anstream::stdout().lock();
    for Finding {
        check,
        result,
        found,
    } in findings
    {
        let (colour, word) = match result {
            Found::Passed => (AnsiColor::Green, "ok  "),
            Found::Warning => (AnsiColor::Yellow, "warn"),
            Found::Failed => (AnsiColor::Red, "FAIL"),
        };
        let style: Style = colour.on_default().bold();
        writeln!(out, "{style}{word}{style:#}  {check:width$}  {found}")?;
    }
    out.flush()
}

#[derive(Serialize)]
struct Report<'a> {
    checks: &'a [Finding],
}
