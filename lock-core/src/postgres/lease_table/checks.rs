//! Tells what connecting has found, for operators.

use std::time::{Duration, UNIX_EPOCH};

use super::setup::Table;
use super::shared::Shared;
use super::watch::Seen;
use crate::checked::passed;

/// Tells of each check once all of them have passed.
pub(super) fn tell(shared: &Shared, table: &Table, seen: Seen) {
    let lease = shared.chosen.terms.lease();
    passed!("login", "the process has logged in");
    passed!("server", "PostgreSQL 14 or newer, a primary");
    passed!(
        "table",
        "{} is a plain, logged table of this version of the library",
        table.name()
    );
    passed!("rights", "the role may read and write the table");
    passed!(
        "pooler",
        "any will do: each request is one message and one transaction"
    );
    passed!("lease", "a lock that is not renewed ends after {lease:?}");
    let ours = UNIX_EPOCH.elapsed().unwrap_or_default();
    let servers = Duration::from_micros(seen.time.unsigned_abs());
    passed!(
        "clock",
        "that of the server and ours differ by {:.1} s, which does not matter; its jumps do",
        servers.abs_diff(ours).as_secs_f64()
    );
    if shared.direct.is_some() {
        passed!("notifications", "one that another session sent has arrived");
    } else {
        passed!(
            "notifications",
            "none: waiters poll, every second at the latest"
        );
    }
    if shared.chosen.mark.is_some() {
        passed!(
            "marker",
            "no process of this namespace locks with another provider than the table"
        );
    }
}
