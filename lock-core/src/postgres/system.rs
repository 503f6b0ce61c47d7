//! Which database system the locks of a process are on.
//!
//! An address can lead to two primaries, by a proxy or by a name. Each grants a name to one process, so
//! that two hold it where one process has its session here, and another there. A process that comes back
//! stays with the system that it was on: it grants nothing on another one for as long as one of its
//! connections still reaches the former. Where for a while each reaches the other, the database has
//! moved, as in an upgrade or a restore.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::time::Instant;

use super::errors;
use crate::LockError;

/// For how long each attempt has to lead to another system. There is one a second at least, of two
/// connections each, so that one of two servers which take turns is not missed.
const MOVED_AFTER: Duration = Duration::from_secs(10);

/// What [`Identity::read`] reads, for a transaction with our path. A role can lack the right to ask.
pub(super) const ASKED: &str = "SELECT system_identifier::text, \
     (date_part('epoch', pg_postmaster_start_time()) * 1000000)::int8, \
     (date_part('epoch', clock_timestamp()) * 1000000)::int8, \
     ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8 FROM pg_control_system()";

/// One life of a server, as it was seen then.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// Its standbys have the same, and so have copies of its disk.
    system: String,
    /// When it was started, and when it was asked, by its own clock; in microseconds since 1970.
    started: i64,
    seen: i64,
    /// Higher with each promotion.
    timeline: i64,
}

impl Identity {
    /// # Errors
    ///
    /// Where the row is not that of [`ASKED`].
    pub(super) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            system: row.try_get(0)?,
            started: row.try_get(1)?,
            seen: row.try_get(2)?,
            timeline: row.try_get(3)?,
        })
    }

    /// Whether it comes after the former one: the same server, also after a restart, or a standby of it
    /// that was promoted. A copy of it that was running beside it does not.
    fn follows(&self, former: &Self) -> bool {
        let is_same = self.started == former.started && self.timeline == former.timeline;
        let is_later = self.started > former.seen || self.timeline > former.timeline;
        self.system == former.system && (is_same || is_later)
    }
}

/// Where the sessions of a process are; nowhere before it connects.
#[derive(Default)]
pub(super) struct Home {
    known: Option<Identity>,
    /// Another one, and since when each attempt has led there.
    other: Option<(Identity, Instant)>,
}

impl Home {
    /// Whether locks can be granted where a connection has led to. One that is not known is no obstacle.
    ///
    /// # Errors
    ///
    /// It is another system than before, and the former one may be there still.
    pub(super) fn reached(&mut self, found: Option<&Identity>) -> Result<(), LockError> {
        let Some(found) = found else {
            return Ok(());
        };
        if let Some(known) = self.known.as_ref().filter(|known| !found.follows(known)) {
            if found.system == known.system && found.timeline < known.timeline {
                // A primary that others have left: it can only be there beside the one that was promoted.
                return Err(errors::elsewhere());
            }
            let since = match &self.other {
                Some((other, since)) if found.follows(other) => *since,
                _ => Instant::now(),
            };
            if since.elapsed() < MOVED_AFTER {
                self.other = Some((found.clone(), since));
                return Err(errors::elsewhere());
            }
            tracing::warn!(
                former = known.system,
                present = found.system,
                "distributed locks are on another database system than before: where fencing tokens are in \
                 use, raise `token_epoch` on all instances, since its tokens can be smaller"
            );
        }
        self.known = Some(found.clone());
        self.other = None;
        Ok(())
    }

    /// An attempt has led to several servers: the former one can be among them.
    pub(super) fn missed(&mut self) {
        self.other = None;
    }

    /// Whether it is not known yet whether the former system is there still.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.other.is_some()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn identity(system: &str, started: i64, seen: i64, timeline: i64) -> Identity {
        Identity {
            system: system.to_owned(),
            started,
            seen,
            timeline,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_system_counts_once_no_connection_reaches_the_former_one() {
        let (one, two) = (identity("1", 5, 9, 1), identity("2", 6, 9, 1));
        let mut home = Home::default();
        let mut at = |to: &Identity| home.reached(Some(to)).is_ok();
        assert!(at(&one) && at(&one) && !at(&two));
        advance(MOVED_AFTER - Duration::from_millis(1)).await;
        // The former one is there, and is where the locks are.
        assert!(!at(&two) && at(&one) && !at(&two));
        advance(MOVED_AFTER).await;
        home.missed();
        let mut at = |to: &Identity| home.reached(Some(to)).is_ok();
        assert!(!at(&two));
        advance(MOVED_AFTER).await;
        assert!(at(&two) && !at(&one));
    }

    #[tokio::test(start_paused = true)]
    async fn a_primary_that_was_left_for_a_promoted_one_never_counts() {
        let (before, promoted) = (identity("1", 5, 9, 1), identity("1", 5, 20, 2));
        let mut home = Home::default();
        assert!(home.reached(Some(&before)).is_ok() && home.reached(Some(&promoted)).is_ok());
        for _ in 0..3 {
            assert!(home.reached(Some(&before)).is_err());
            advance(MOVED_AFTER).await;
        }
        assert!(home.reached(Some(&promoted)).is_ok());
    }

    #[test]
    fn a_restart_and_a_promotion_follow_and_a_copy_that_runs_beside_does_not() {
        let former = identity("1", 5, 9, 1);
        for (found, follows) in [
            (identity("1", 5, 20, 1), true),
            (identity("1", 10, 20, 1), true),
            (identity("1", 4, 20, 2), true),
            (identity("1", 4, 20, 1), false),
            (identity("2", 10, 20, 2), false),
        ] {
            assert_eq!(found.follows(&former), follows, "{found:?}");
        }
    }

    #[test]
    fn a_role_that_may_not_know_the_system_is_not_kept_from_it() {
        let mut home = Home::default();
        assert!(home.reached(None).is_ok());
        assert!(home.reached(Some(&identity("1", 5, 9, 1))).is_ok());
        assert!(home.reached(None).is_ok());
    }
}
