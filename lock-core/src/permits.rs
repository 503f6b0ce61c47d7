//! How many may hold a lock at a time.

use lock_grammar::MAX_PERMITS;

use crate::LockError;

/// A number of permits as it was given: it is [checked](Self::check) before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Permits(usize);

impl Permits {
    pub(crate) const fn new(number: usize) -> Self {
        Self(number)
    }

    /// The number, if there can be so many.
    pub(crate) fn check(self) -> Result<usize, LockError> {
        let advice = match self.0 {
            1..=MAX_PERMITS => return Ok(self.0),
            0 => "no caller could ever hold the lock; give 1 or more",
            _ => {
                "each permit is a lock of its own; for so many, guard what is scarce by a pool or a rate"
            }
        };
        Err(LockError::misconfigured(format!(
            "`permits({})` is not from 1 to {MAX_PERMITS}: {advice}",
            self.0
        )))
    }
}
