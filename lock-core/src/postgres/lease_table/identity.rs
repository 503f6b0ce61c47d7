//! Which server this is: whether it has every row that was ever committed in the table.

/// How a server can be told from those that were it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// By its timeline, which a promotion and a restore change and a restart does not: what was committed is
    /// there after that. Where the server does not sync its disk, by its start as well.
    Timeline,
    /// By its start alone, where the timeline cannot be read: a restart counts as another server.
    Start,
}

impl Identity {
    /// An expression that reads it, of the table with the row `server`. The number of the table is another one
    /// where it came with a dump.
    pub(super) const fn sql(self) -> &'static str {
        match self {
            Self::Timeline => {
                "(server.tableoid::text || ' timeline ' \
                 || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) \
                 || CASE current_setting('fsync') WHEN 'on' THEN '' \
                 ELSE ' start ' || extract(epoch FROM pg_postmaster_start_time())::text END)"
            }
            Self::Start => {
                "(server.tableoid::text || ' start ' \
                 || extract(epoch FROM pg_postmaster_start_time())::text)"
            }
        }
    }
}
