//! The clock of a server, seen from here.

use std::time::{Duration, UNIX_EPOCH};

use crate::checked::passed;

/// Whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Tells what a server's time, in microseconds since 1970, is away from ours.
pub(crate) fn tell_difference(time: u64) {
    let ours = UNIX_EPOCH.elapsed().unwrap_or_default();
    passed!(
        "clock",
        "that of the server and ours differ by {:.1} s, which does not matter; its jumps do",
        Duration::from_micros(time).abs_diff(ours).as_secs_f64()
    );
}

/// How much further a server's time can be off for each second since it was seen.
const DRIFT_PER_SECOND: i64 = 1_000;

/// What the server's time is ahead of CLOCK_BOOTTIME: at least, at most, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    least: i64,
    most: i64,
    seen: Duration,
}

impl Ahead {
    fn widened(self, now: Duration) -> Self {
        let drift = now.saturating_sub(self.seen).as_secs_f64() * DRIFT_PER_SECOND as f64;
        Self {
            least: self.least.saturating_sub(drift as i64),
            most: self.most.saturating_add(drift as i64),
            ..self
        }
    }

    fn width(self) -> i64 {
        self.most.saturating_sub(self.least)
    }
}

/// How a server's clock was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Jump {
    Forward,
    Back,
}

/// Keeps what is known of a server's clock, and notices when it jumps.
#[derive(Debug, Default)]
pub(crate) struct ServerClock(Option<Ahead>);

impl ServerClock {
    /// Notes a time of the server (microseconds) that was read between these two of ours. A jump is
    /// one by more than `margin`.
    pub(crate) fn observe(
        &mut self,
        sent: Duration,
        received: Duration,
        time: u64,
        margin: Duration,
    ) -> Option<Jump> {
        // Whatever a server says is its time.
        let signed = |micros: u64| i64::try_from(micros).unwrap_or(i64::MAX);
        let time = signed(time);
        let new = Ahead {
            least: time.saturating_sub(signed(micros(received))),
            most: time.saturating_sub(signed(micros(sent))),
            seen: received,
        };
        let Some(old) = self.0 else {
            self.0 = Some(new);
            return None;
        };
        let old = old.widened(received);
        let margin = signed(micros(margin));
        let jump = if new.least > old.most.saturating_add(margin) {
            Some(Jump::Forward)
        } else if new.most < old.least.saturating_sub(margin) {
            Some(Jump::Back)
        } else {
            None
        };
        // A slow answer says little.
        if jump.is_some() || new.width() <= old.width() {
            self.0 = Some(new);
        }
        jump
    }

    /// The server's time (microseconds) after which a request that is sent now is too late.
    pub(crate) fn not_after(&self, sent: Duration, patience: Duration) -> u64 {
        let ahead = self.0.map_or(0, |ahead| ahead.widened(sent).most);
        micros(sent + patience).saturating_add_signed(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARGIN: Duration = Duration::from_millis(60);
    const EPOCH: u64 = 1_700_000_000_000_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_clock_that_is_put_is_noticed_beyond_the_margin() {
        let mut clock = ServerClock::default();
        let mut at = |sent, received, ahead: i64| {
            let time = (EPOCH + micros(received)).saturating_add_signed(ahead * 1_000);
            clock.observe(sent, received, time, MARGIN)
        };
        assert_eq!(at(ms(10), ms(11), 0), None);
        assert_eq!(at(ms(20), ms(21), 59), None);
        assert_eq!(at(ms(30), ms(31), 150), Some(Jump::Forward));
        assert_eq!(at(ms(40), ms(41), 150), None);
        assert_eq!(at(ms(50), ms(51), -60_000), Some(Jump::Back));
        assert_eq!(at(ms(60), ms(61), -60_000), None);
    }

    #[test]
    fn a_slow_answer_and_a_slow_drift_are_no_jumps() {
        let mut clock = ServerClock::default();
        assert_eq!(clock.observe(ms(0), ms(1), EPOCH, MARGIN), None);
        // Read immediately, answered a minute later; and read late.
        assert_eq!(
            clock.observe(ms(10), ms(60_000), EPOCH + 10_000, MARGIN),
            None
        );
        assert_eq!(
            clock.observe(ms(10), ms(60_000), EPOCH + 60_000_000, MARGIN),
            None
        );
        // 0.05 % fast, with a look every 1,000 s.
        for step in 1..10 {
            let now = ms(step * 1_000_000);
            let time = EPOCH + micros(now) + step * 500_000;
            assert_eq!(clock.observe(now, now + ms(1), time, MARGIN), None);
        }
    }

    #[test]
    fn the_most_extreme_times_are_jumps_and_nothing_worse() {
        let mut clock = ServerClock::default();
        assert_eq!(clock.observe(ms(10), ms(11), EPOCH, MARGIN), None);
        for (time, jump) in [
            (u64::MAX, Some(Jump::Forward)),
            (i64::MIN.unsigned_abs(), None),
            (0, Some(Jump::Back)),
            (EPOCH, Some(Jump::Forward)),
        ] {
            assert_eq!(clock.observe(ms(20), ms(21), time, MARGIN), jump, "{time}");
            // Whatever it is, it can be asked for.
            clock.not_after(ms(22), ms(2_000));
        }
        assert_eq!(clock.observe(ms(30), Duration::MAX, EPOCH, MARGIN), None);
        clock.not_after(Duration::from_secs(1 << 60), ms(2_000));
    }

    #[test]
    fn a_request_is_too_late_when_it_would_not_be_waited_for() {
        let mut clock = ServerClock::default();
        clock.observe(ms(1_000), ms(1_002), EPOCH, MARGIN);
        let not_after = clock.not_after(ms(1_002), ms(2_000));
        // The time may have been read when the question was sent.
        let late = EPOCH + 2_000_000;
        assert!((late..late + 3_000).contains(&not_after));
    }
}
