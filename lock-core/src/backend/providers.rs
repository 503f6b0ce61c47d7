//! How many providers use one backend.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Counts the providers over a backend: the shutdown of the last one [closes](super::Backend::close) it.
///
/// A backend whose clones share connections gives all of them clones of one `Providers`.
#[derive(Clone, Debug, Default)]
pub struct Providers(Arc<AtomicUsize>);

impl Providers {
    /// Counts another provider, until it leaves or is dropped.
    pub(super) fn join(&self) -> Member {
        self.0.fetch_add(1, Ordering::Relaxed);
        Member {
            of: Arc::clone(&self.0),
            was_last: OnceLock::new(),
        }
    }
}

/// One provider that is counted.
pub(super) struct Member {
    of: Arc<AtomicUsize>,
    was_last: OnceLock<bool>,
}

impl Member {
    /// Tells whether it was the last one; each further call tells the same.
    pub(super) fn leave(&self) -> bool {
        let leave = || self.of.fetch_sub(1, Ordering::AcqRel) == 1;
        *self.was_last.get_or_init(leave)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_provider_is_the_one_that_leaves_when_no_other_is_counted() {
        let of_first = Providers::default();
        let of_clone = of_first.clone();
        let (first, second, third) = (of_first.join(), of_clone.join(), of_clone.join());
        assert!(!first.leave() && !first.leave());
        drop(first);
        drop(second);
        assert!(third.leave() && third.leave());
        assert!(of_first.join().leave(), "an earlier one is not counted");
    }
}
