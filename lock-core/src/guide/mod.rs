//! [deployment]: self::deployment
//! [fencing]: self::fencing
//! [guarantees]: self::guarantees
//! [holder]: self::holder
//! [idempotency]: self::idempotency
//! [jobs]: self::jobs
//! [naming]: self::naming
//! [nesting]: self::nesting
//! [operating]: self::operating
//! [permits]: self::permits
//! [poolers]: self::poolers
//! [readers]: self::readers
//! [security]: self::security
//! [servers]: self::servers
//! [testing]: self::testing
//! [timeouts]: self::timeouts
//! [troubleshooting]: self::troubleshooting
//! [`LockGuard`]: crate::LockGuard
//! [`LockProvider::acquire_all`]: crate::LockProvider::acquire_all
//! [`LockProvider::claim`]: crate::LockProvider::claim
//! [`LockProvider::lead`]: crate::LockProvider::lead
//! [`leader`]: crate::LockProvider::leader
#![doc = include_str!("README.md")]

/// Makes a module of each page.
///
/// The pages are read on the project's own page as well, where their links lead to files: each ends with
/// the definitions of those. Of two definitions of a link Markdown takes the first, so that in this
/// documentation the ones below count.
macro_rules! pages {
    ($($name:ident $file:literal $($more:expr)?;)*) => {$(
        /// [deployment]: crate::guide::deployment
        /// [fencing]: crate::guide::fencing
        /// [guarantees]: crate::guide::guarantees
        /// [holder]: crate::guide::holder
        /// [idempotency]: crate::guide::idempotency
        /// [jobs]: crate::guide::jobs
        /// [naming]: crate::guide::naming
        /// [nesting]: crate::guide::nesting
        /// [operating]: crate::guide::operating
        /// [permits]: crate::guide::permits
        /// [poolers]: crate::guide::poolers
        /// [readers]: crate::guide::readers
        /// [security]: crate::guide::security
        /// [servers]: crate::guide::servers
        /// [testing]: crate::guide::testing
        /// [timeouts]: crate::guide::timeouts
        /// [troubleshooting]: crate::guide::troubleshooting
        /// [`LockPolicy::background_job`]: crate::LockPolicy::background_job
        /// [`LockPolicy::user_request`]: crate::LockPolicy::user_request
        /// [`LockPolicy::long_operation`]: crate::LockPolicy::long_operation
        /// [`LockProvider::claim`]: crate::LockProvider::claim
        /// [`LockProvider::lead`]: crate::LockProvider::lead
        /// [`LockProvider::list`]: crate::LockProvider::list
        /// [`LockSettings`]: crate::LockSettings
        /// [`max_hold`]: crate::LockPolicy::with_max_hold
        /// [`local_handover`]: crate::LockProviderBuilder::local_handover
        /// [`lock_order_watch`]: crate::LockProviderBuilder::lock_order_watch
        /// [`shutdown`]: crate::LockProvider::shutdown
        #[cfg_attr(feature = "postgres", doc = "[PostgreSQL]: crate::postgres::PostgresBuilder::credentials")]
        #[cfg_attr(feature = "redis", doc = "[Redis]: crate::redis::RedisBuilder::credentials")]
        /// [`lock-idempotency`]: https://docs.rs/lock-idempotency
        /// [these lines]: #postgresql-the-least-rights
        #[doc = include_str!($file)]
        $(#[doc = $more])?
        pub mod $name {}
    )*};
}

pages! {
    deployment "deployment.md";
    fencing "fencing.md";
    guarantees "guarantees.md";
    holder "holder.md";
    idempotency "idempotency.md";
    jobs "jobs.md";
    naming "naming.md";
    nesting "nesting.md";
    operating "operating.md";
    permits "permits.md";
    poolers "poolers.md";
    readers "readers.md";
    security "security.md" concat!("\n```sql\n", include_str!("../postgres/grants.sql"), "```");
    servers "servers.md";
    testing "testing.md";
    timeouts "timeouts.md";
    troubleshooting "troubleshooting.md";
}
