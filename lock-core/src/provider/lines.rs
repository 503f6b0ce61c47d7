//! The lines of callers for locks.

use std::sync::Weak;

use crate::backend::{Granted, Held};
use crate::{LockName, queue};

/// The queue of locks: grants are handed on, holders are known by their hold.
pub(crate) type Queue = queue::Queue<LockName, Granted, Weak<Held>>;
pub(crate) type Turn = queue::Turn<LockName, Granted, Weak<Held>>;
pub(crate) type Reading = queue::Reading<LockName, Granted, Weak<Held>>;
pub(crate) type Ticket = queue::Ticket<LockName, Granted, Weak<Held>>;
