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
//! is refused a lock leaves its mark by writing those 64 bytes, so that the holder is not named any more.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::instance::Instance;
use crate::{Holder, LockMode};

/// The owner, the mark and the token.
const LOCK: usize = 64;

const OWNER: usize = 32;

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

/// The reader that is called so in the set of a lock.
pub(super) fn reader(member: &[u8]) -> Holder {
    let holder = Holder::new(LockMode::Shared);
    let instance = member.get(OWNER + 1..).map(str::from_utf8);
    match instance {
        Some(Ok(instance)) => holder.with_instance(instance),
        _ => holder,
    }
}

/// Who holds what has this value, at this time of the server (microseconds).
pub(super) fn holder(value: &[u8], time: u64) -> Holder {
    if is_shared(value) {
        return Holder::new(LockMode::Shared);
    }
    let holder = Holder::new(LockMode::Exclusive);
    let Some((token, ahead, instance)) = str::from_utf8(value).ok().and_then(read) else {
        return holder;
    };
    let age = time.saturating_sub(token.saturating_sub(ahead));
    let since = SystemTime::now().checked_sub(Duration::from_micros(age));
    let holder = holder.with_instance(instance);
    match since {
        Some(since) => holder.with_since(since),
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
            let holder = holder(value.as_bytes(), now);
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
            let holder = holder(value.as_bytes(), token);
            assert_eq!(holder.instance(), None, "{value}");
        }
    }
}
