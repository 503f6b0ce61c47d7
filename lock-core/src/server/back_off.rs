//! Pauses between attempts that fail, each longer than the one before.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Pauses that begin anew when an attempt was good.
#[derive(Debug)]
pub(crate) struct BackOff {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
}

impl BackOff {
    /// Doubling from the first pause to the longest.
    pub(crate) fn new(builder: ExponentialBuilder) -> Self {
        let builder = builder.without_max_times();
        Self {
            pauses: builder.build(),
            builder,
        }
    }

    /// How long the next attempt is put off.
    pub(crate) fn pause(&mut self) -> Duration {
        // There is always a next one.
        self.pauses.next().unwrap_or_default()
    }

    /// An attempt was good.
    pub(crate) fn reset(&mut self) {
        self.pauses = self.builder.build();
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        // Whole seconds: the pauses are computed in floating point.
        let s = Duration::from_secs;
        let builder = ExponentialBuilder::new();
        let mut pauses = BackOff::new(builder.with_min_delay(s(1)).with_max_delay(s(4)));
        for _ in 0..2 {
            let first: Vec<_> = (0..20).map(|_| pauses.pause()).collect();
            assert_eq!(first[..4], [s(1), s(2), s(4), s(4)]);
            assert_eq!(first[19], s(4));
            pauses.reset();
        }
    }
}
