//! Tells what connecting has found, for operators.

use super::setup::Table;
use super::shared::Shared;
use super::watch::Seen;
use crate::checked::passed;
use crate::server::clock;

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
    clock::tell_difference(seen.time.unsigned_abs());
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
