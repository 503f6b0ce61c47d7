//! What goes wrong again and again, in few lines of the log.
//!
//! - [`Outage`]: what lasts, and is over at some time. A line when it begins, few while it lasts, one when
//!   it is over.
//! - [`Repeated`]: what has no end that is seen. A line now and then.
//! - [`Crowd`]: what many meet for one reason. A line for the first, and one for all the others.
//!
//! The line itself is the caller's, with its fields and its level. It counts as written only once it was:
//! a logger that panics does not end the report.

mod crowd;
#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
mod lasting;
mod repeated;

use std::time::Duration;

pub(crate) use crowd::Crowd;
#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
pub(crate) use lasting::{Outage, SoFar};
pub use repeated::Repeated;

/// Between two lines about one trouble, at least.
const TOLD_EVERY: Duration = Duration::from_secs(5);
