//! What the table is called, and what says that it is one.

/// The table where the builder, or configuration, names no other.
pub(in crate::postgres) const TABLE: &str = "distributed_lock_leases";

/// How the comment of a table begins, whatever its version is.
pub(in crate::postgres) const COMMENT: &str = "distributed_lock lease table, version ";

/// The comment of the table of this library. Another form of the table is another version, which this one
/// refuses.
pub(super) const VERSION: &str = "distributed_lock lease table, version 2";

/// That of a table without readers, which is given the columns that it lacks.
pub(super) const FORMER: &str = "distributed_lock lease table, version 1";

/// Where releases are notified that other processes wait for.
pub(super) const CHANNEL: &str = "distributed_lock_leases";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_begins_as_that_of_every_version() {
        assert_eq!(VERSION.strip_prefix(COMMENT), Some("2"));
        assert_eq!(FORMER.strip_prefix(COMMENT), Some("1"));
    }
}
