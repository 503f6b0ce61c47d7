//! How long to wait, how long to hold.
//!
//! | policy | waits | for |
//! |---|---|---|
//! | [`LockPolicy::background_job`](crate::LockPolicy::background_job) | not at all | jobs that run again soon |
//! | [`LockPolicy::user_request`](crate::LockPolicy::user_request), the default | 5 s | requests that a person waits for |
//! | [`LockPolicy::long_operation`](crate::LockPolicy::long_operation) | 5 min | rebuilds, imports, migrations |
//!
//! # The wait
//!
//! An acquire is over by its wait, the time for one answer of the backend (2 s) and 100 ms, whatever
//! the server does. So wait less than whoever waits for you: the client, the proxy and the request
//! timeout in front of the lock each need time for the answer. A wait that is as long as the proxy's
//! timeout is a 504 instead of a 409.
//!
//! Wait zero where the second caller has nothing left to do, as for a refund. Wait where it has, as
//! for a transfer. Many who wait for one name are served one after the other: if the work takes
//! 200 ms, a wait of 5 s serves about 25 of them and refuses the rest.
//!
//! ```
//! use std::time::Duration;
//! use lock_core::LockPolicy;
//!
//! const IMPORT: LockPolicy = LockPolicy::long_operation()
//!     .with_wait(Duration::from_secs(30))
//!     .with_max_hold(Duration::from_secs(3600));
//! # assert_eq!(IMPORT.wait(), Duration::from_secs(30));
//! ```
//!
//! # The hold
//!
//! There is no need to say how long the work takes: a lock is held for as long as its process lives
//! and works, since its lease is renewed meanwhile. [`max_hold`](crate::LockPolicy::with_max_hold) is for
//! what hangs, not for what is slow: several times the longest run that you would put up with. The
//! work is stopped there, its lock is lost, and its outcome is unknown.
//!
//! # The lease
//!
//! The lease (30 s unless chosen otherwise) is how long a *frozen* or *cut off* holder keeps others
//! waiting. A shorter one frees its locks sooner and makes a holder that is slow for a moment lose
//! them: a garbage-collected neighbour, a full CPU quota, a virtual machine that is moved. Below
//! 10 s watch `distributed_lock_renew_headroom_seconds`, which is what was left of the lease when it
//! was renewed. A crash is another matter: PostgreSQL notices it at once, and so do files.
