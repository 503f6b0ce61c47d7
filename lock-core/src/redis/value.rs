//! What a lock has under its key, as others read it.
//!
//! The owner in 32 hexadecimal digits; a space, or `!` where another client waits; the token in 31 digits; a
//! space, by how much the token was ahead of the server's time when it was granted, in microseconds; a
//! space, and the instance of the holder.
//!
//! A lock that is kept after its release has an owner of zeros, which no acquire is, and ends by itself. One that readers
//! hold has an owner of `f`s, and a set of readers beside it: each is its owner, `&` and its instance, by when its share
//! ends. What follows the owner in the value is of the first of them.
//!
//! The scripts decide by the owner alone. What follows the token is for [`holder`](crate::LockProvider::holder)
//! and for people. Versions of this library before it was there read 64 bytes, to the end of the token, and
//! wrote it in as many digits as it has: they and this one exclude each other, and wake each other. One that
//! is refused a lock, also by a mere try, leaves its mark by writing those 64 bytes, so that the holder is not named any more.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::instance::{Instance, LONGEST};
use crate::{Holder, LockMode};

/// The owner, the mark and the token.
const LOCK: usize = 64;

const OWNER: usize = 32;

/// How long what a reader is called is at most in the set of a lock.
pub(super) const READER: usize = OWNER + 1 + LONGEST;

/// What the time was here when a server said its own (microseconds). All times of one listing are by one of these.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    here: SystemTime,
    there: u64,
    /// What the server said since.
    latest: u64,
}

impl Moment {
    /// Now.
    pub(super) fn of(there: u64) -> Self {
        Self {
            here: SystemTime::now(),
            there,
            latest: there,
        }
    }

    /// The same, after the server has said this as well.
    pub(super) fn later(self, latest: u64) -> Self {
        Self { latest, ..self }
    }

    /// The time here of what the server has at this time by its clock; not in the future, nor before all clocks.
    fn past(self, there: u64) -> Option<SystemTime> {
        let at = self.at(there.min(self.latest))?;
        (at > SystemTime::UNIX_EPOCH).then_some(at)
    }

    /// The time here in so long from the last answer of the server on.
    fn after(self, left: Duration) -> Option<SystemTime> {
        self.at(self.latest)?.checked_add(left)
    }

    fn at(self, there: u64) -> Option<SystemTime> {
        match there.checked_sub(self.there) {
            Some(after) => self.here.checked_add(Duration::from_micros(after)),
            None => (self.here).checked_sub(Duration::from_micros(self.there - there)),
        }
    }
}

/// What follows the token of a lock that is granted to this instance at a token that is not ahead.
pub(super) fn signature(instance: &Instance) -> Arc<str> {
    format!(" 0 {}", instance.as_str()).into()
}

/// The instance in a signature.
pub(super) fn instance(signature: &str) -> &str {
    signature.get(3..).unwrap_or_default()
}

/// Whether it is of a lock that readers hold.
pub(super) fn is_shared(value: &[u8]) -> bool {
    value.len() > OWNER && value[..OWNER].iter().all(|digit| *digit == b'f')
}

/// Whether the shares of a lock that readers hold end by the clocks of several servers, so that no time of one says
/// whether they have.
pub(super) fn is_by_several_clocks(value: &[u8]) -> bool {
    const MARK: &[u8] = b" readers~";
    value.windows(MARK.len()).any(|part| part == MARK)
}

/// The reader that is called so in the set of a lock, if one can be: others can write to the set.
pub(super) fn reader(member: &[u8]) -> Option<Holder> {
    let (owner, rest) = member.split_at_checked(OWNER)?;
    let instance = str::from_utf8(rest.strip_prefix(b"&")?).ok()?;
    let is_owner = owner.iter().all(u8::is_ascii_hexdigit);
    is_owner.then(|| Holder::new(LockMode::Shared).with_instance(instance))
}

/// Who holds what has this value, at this time.
pub(super) fn holder(value: &[u8], now: Moment) -> Holder {
    if is_shared(value) {
        return Holder::new(LockMode::Shared);
    }
    let holder = Holder::new(LockMode::Exclusive);
    let Some((token, ahead, instance)) = str::from_utf8(value).ok().and_then(read) else {
        return holder;
    };
    let holder = holder.with_instance(instance);
    // One of zero is no time that a server had.
    let granted = token.checked_sub(ahead).filter(|granted| *granted > 0);
    match granted.and_then(|granted| now.past(granted)) {
        Some(since) => holder.with_since(since),
        None => holder,
    }
}

/// The same of a lock that is released and opens in so long.
pub(super) fn kept_by(value: &[u8], left: Duration, now: Moment) -> Holder {
    let holder = holder(value, now);
    match now.after(left) {
        Some(until) => holder.with_until(until),
        None => holder,
    }
}

/// Whether it is of a lock that was released and is kept.
pub(super) fn is_kept(value: &[u8]) -> bool {
    value.len() > OWNER && value[..OWNER].iter().all(|digit| *digit == b'0')
}

/// Whether another client waits, where this is of a lock.
pub(super) fn is_awaited(value: &[u8]) -> Option<bool> {
    match value.get(OWNER)? {
        b' ' => Some(false),
        b'!' => Some(true),
        _ => None,
    }
}

/// The token, by how much it was ahead, and the instance; `None` where there is no instance, or it is not ours.
fn read(value: &str) -> Option<(u64, u64, &str)> {
    let (lock, rest) = value.split_at_checked(LOCK)?;
    let (_, token) = lock.split_at_checked(OWNER + 1)?;
    let (ahead, instance) = rest.strip_prefix(' ')?.split_once(' ')?;
    Some((token.parse().ok()?, ahead.parse().ok()?, instance))
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use super::*;

    const OWNED: &str = "800000000000000000000000000000ab";

    #[test]
    fn a_value_names_its_holder_and_since_when() {
        for (mark, ahead) in [(' ', 0), ('!', 7_000_000)] {
            let (granted, now) = (1_764_000_000_000_000_u64, 1_764_000_005_000_000);
            let token = granted + ahead;
            let value = format!("{OWNED}{mark}{token:031} {ahead} web-1:7");
            let holder = holder(value.as_bytes(), Moment::of(now));
            assert_eq!(holder.instance(), Some("web-1:7"));
            let held = holder.since().unwrap().elapsed().unwrap();
            assert!((5..60).contains(&held.as_secs()), "{held:?}");
        }
    }

    #[test]
    fn a_value_of_earlier_versions_or_of_others_names_no_holder() {
        let token = 1_764_000_000_000_000_u64;
        for value in [
            format!("{OWNED} {token}"),
            format!("{OWNED}!{token:031}"),
            format!("{OWNED} {token:031} 0"),
            format!("{OWNED} {token:031} 0 "),
            format!("{OWNED} {token:031} -1 web-1:7"),
            format!("{OWNED} {token:030}x 0 web-1:7"),
            format!("{OWNED} {token:031} 0 web 1"),
            String::new(),
            "é".repeat(40),
        ] {
            let holder = holder(value.as_bytes(), Moment::of(token));
            assert_eq!(holder.instance(), None, "{value}");
        }
    }

    #[test]
    fn ages_are_by_one_time_and_never_of_the_future_or_of_before_all_clocks() {
        const SECOND: u64 = 1_000_000;
        let began = 1_764_000_000 * SECOND;
        let since = |granted: u64, ahead: u64, now: Moment| {
            let value = format!("{OWNED} {granted:031} {ahead} web-1:7");
            holder(value.as_bytes(), now).since()
        };
        let now = Moment::of(began);
        let ago = |seconds| now.here - Duration::from_secs(seconds);
        assert_eq!(since(began - 5 * SECOND, 0, now), Some(ago(5)));
        // The answer after that, a second later.
        let later = now.later(began + SECOND);
        assert_eq!(since(began - 5 * SECOND, 0, later), Some(ago(5)));
        assert_eq!(
            later.after(Duration::from_secs(2)),
            Some(now.here + Duration::from_secs(3))
        );
        // The clock of the server was put back.
        assert_eq!(since(began + 3_600 * SECOND, 0, now), Some(now.here));
        assert_eq!(since(u64::MAX, 0, now), Some(now.here));
        for (token, ahead) in [(0, 0), (7, 7), (7, u64::MAX)] {
            assert_eq!(since(token, ahead, now), None);
        }
        assert_eq!(since(1, 0, Moment::of(u64::MAX)), None);
    }

    #[test]
    fn a_member_that_no_reader_is_called_names_none() {
        let named = |rest: &[u8]| reader(&[OWNED.as_bytes(), rest].concat());
        assert_eq!(named(b"&web-1").unwrap().instance(), Some("web-1"));
        for unnamed in [&b"&"[..], b"&a b", b"&\x1b[31m"] {
            assert_eq!(named(unnamed).unwrap().instance(), None);
        }
        for wrong in [&b"&\xff"[..], b"?web-1", b""] {
            assert_eq!(named(wrong), None);
        }
        assert_eq!(reader(b"?0123456789abcdef"), None);
        assert_eq!(
            reader(format!("{}&web-1", "x".repeat(OWNER)).as_bytes()),
            None
        );
    }
}
