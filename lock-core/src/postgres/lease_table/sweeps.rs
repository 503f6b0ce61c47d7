//! When rows are removed that have been free for long.

use std::time::Duration;

use tokio::time::Instant;

use super::sql::SWEPT;

/// Between sweeps of one process, on average.
const SELDOM: Duration = Duration::from_secs(300);

/// After a sweep that has removed as many rows as one can: the table has more of them.
const SOON: Duration = Duration::from_secs(1);

pub(super) struct Sweeps {
    next: Instant,
}

impl Sweeps {
    /// Processes that start together sweep at different times.
    pub(super) fn new() -> Self {
        Self {
            next: Instant::now() + SELDOM.mul_f64(fastrand::f64() * 2.0),
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.next <= Instant::now()
    }

    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// A sweep is under way, which ends long before the next begins.
    pub(super) fn begun(&mut self) {
        self.next = Instant::now() + about(SELDOM);
    }

    /// The sweep has removed so many rows.
    pub(super) fn ended(&mut self, removed: i64) {
        if removed >= SWEPT {
            self.next = Instant::now() + about(SOON);
        }
    }
}

fn about(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64())
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn pause(sweeps: &Sweeps) -> Duration {
        sweeps.next() - Instant::now()
    }

    /// Returns when a sweep that was due has begun.
    async fn begin(sweeps: &mut Sweeps) {
        advance(pause(sweeps)).await;
        assert!(sweeps.is_due());
        sweeps.begun();
        assert!(pause(sweeps) >= SELDOM / 2, "one at a time");
    }

    #[tokio::test(start_paused = true)]
    async fn while_sweeps_are_full_the_next_follows_soon() {
        let mut sweeps = Sweeps::new();
        assert!(pause(&sweeps) <= SELDOM * 2);
        for _ in 0..5 {
            begin(&mut sweeps).await;
            sweeps.ended(SWEPT);
            assert!(!sweeps.is_due() && pause(&sweeps) <= SOON * 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_with_few_rows_to_remove_is_seldom_swept() {
        let mut sweeps = Sweeps::new();
        for removed in [0, SWEPT - 1] {
            begin(&mut sweeps).await;
            sweeps.ended(removed);
            assert!(pause(&sweeps) >= SELDOM / 2);
        }
        // Nor is one whose server did not answer.
        begin(&mut sweeps).await;
        assert!(pause(&sweeps) >= SELDOM / 2);
    }
}
