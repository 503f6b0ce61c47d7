//! What lasts, and is over at some time.

use std::time::Duration;

use tokio::time::Instant;
use tracing::field::{DebugValue, debug};

use super::TOLD_EVERY;

/// What lasts for long has fewer lines: each pause is twice the one before, up to this.
const TOLD_LATE: Duration = Duration::from_secs(60);

/// Something that fails until it works again: a connection, a subscription, the renewal of leases.
///
/// One that comes and goes writes no more lines than one that lasts: what begins less than 5 s after the
/// last line has one with the next failure after that, and one for its end only then.
#[derive(Debug)]
pub(crate) struct Outage {
    /// When it began, if it is on.
    since: Option<Instant>,
    /// When the last line was written, of this outage or of the one before.
    told: Option<Instant>,
    /// From then to the next line.
    pause: Duration,
    /// Failures that no line was about.
    untold: u64,
    is_told: bool,
}

/// Fields of a line: none in the first.
#[derive(Debug)]
pub(crate) struct SoFar {
    /// How often it has failed since the last line.
    pub(crate) failures: Option<u64>,
    /// Since when it fails.
    pub(crate) lasting: Option<DebugValue<Duration>>,
}

impl Outage {
    pub(crate) const fn new() -> Self {
        Self {
            since: None,
            told: None,
            pause: TOLD_EVERY,
            untold: 0,
            is_told: false,
        }
    }

    /// It has failed: writes a line where one is due.
    pub(crate) fn failed(&mut self, line: impl FnOnce(SoFar)) {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        self.untold += 1;
        if self.told.is_some_and(|told| now < told + self.pause) {
            return;
        }
        line(SoFar {
            failures: (self.is_told || self.untold > 1).then_some(self.untold),
            lasting: (since < now).then(|| debug(now - since)),
        });
        self.pause = if self.is_told {
            (2 * self.pause).min(TOLD_LATE)
        } else {
            TOLD_EVERY
        };
        (self.told, self.untold, self.is_told) = (Some(now), 0, true);
    }

    /// It works: writes a line with how long it did not, if there was one about that.
    pub(crate) fn over(&mut self, line: impl FnOnce(Duration)) {
        let Some(since) = self.since.take() else {
            return;
        };
        self.pause = TOLD_EVERY;
        if std::mem::take(&mut self.is_told) {
            self.untold = 0;
            line(since.elapsed());
        }
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// What was written: failures of each line, and how long an outage that is over has lasted.
    #[derive(Debug, PartialEq)]
    enum Line {
        Begins,
        Lasts(u64),
        Over(u64),
    }

    #[derive(Default)]
    struct Log(Vec<Line>);

    impl Log {
        fn failed(&mut self, outage: &mut Outage) {
            outage.failed(|so_far| {
                self.0.push(match so_far.failures {
                    None => Line::Begins,
                    Some(failures) => Line::Lasts(failures),
                });
            });
        }

        fn over(&mut self, outage: &mut Outage) {
            outage.over(|lasted| self.0.push(Line::Over(lasted.as_secs())));
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_when_it_begins_less_and_less_often_meanwhile_and_when_it_is_over() {
        let (mut outage, mut log) = (Outage::new(), Log::default());
        log.over(&mut outage);
        for _ in 0..40 {
            log.failed(&mut outage);
            advance(SECOND).await;
        }
        log.over(&mut outage);
        log.over(&mut outage);
        let expected = [
            Line::Begins,
            Line::Lasts(5),
            Line::Lasts(10),
            Line::Lasts(20),
            Line::Over(40),
        ];
        assert_eq!(log.0, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_of_an_outage_is_a_line_a_minute() {
        let (mut outage, mut log) = (Outage::new(), Log::default());
        for _ in 0..24 * 60 * 60 {
            log.failed(&mut outage);
            advance(SECOND).await;
        }
        let lines = log.0.len();
        assert!((1_440..1_446).contains(&lines), "{lines}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_and_goes_writes_no_more_than_what_lasts() {
        let (mut outage, mut log) = (Outage::new(), Log::default());
        for _ in 0..100 {
            log.failed(&mut outage);
            advance(SECOND / 10).await;
            log.over(&mut outage);
            advance(SECOND / 10).await;
        }
        // 20 s: a line and its end every 5 s.
        let expected = [
            Line::Begins,
            Line::Over(0),
            Line::Lasts(25),
            Line::Over(0),
            Line::Lasts(25),
            Line::Over(0),
            Line::Lasts(25),
            Line::Over(0),
        ];
        assert_eq!(log.0, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_that_begins_in_the_shadow_of_another_is_told_if_it_lasts() {
        let (mut outage, mut log) = (Outage::new(), Log::default());
        log.failed(&mut outage);
        log.over(&mut outage);
        for _ in 0..7 {
            advance(SECOND).await;
            log.failed(&mut outage);
        }
        log.over(&mut outage);
        let expected = [Line::Begins, Line::Over(0), Line::Lasts(5), Line::Over(6)];
        assert_eq!(log.0, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_logger_that_panics_is_given_the_line_again() {
        let (mut outage, mut log) = (Outage::new(), Log::default());
        let panics = crate::panics::catch(|| outage.failed(|_| panic!("on purpose")));
        assert!(panics.is_err());
        log.failed(&mut outage);
        assert_eq!(log.0, [Line::Lasts(2)]);
    }
}
