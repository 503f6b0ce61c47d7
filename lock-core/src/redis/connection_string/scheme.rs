//! Schemes of URLs: those that are taken, and those of other clients.

use super::wrong;
use crate::LockError;
use crate::redis::options::HOW_SENTINELS;

/// Schemes that are parsed as they are.
const SCHEMES: [&str; 7] = [
    "redis",
    "redis+unix",
    "rediss",
    "unix",
    "valkey",
    "valkey+unix",
    "valkeys",
];

/// Schemes of other clients and servers, which errors may name.
const OTHER_SCHEMES: [&str; 16] = [
    "http",
    "https",
    "mongodb",
    "mysql",
    "postgres",
    "postgresql",
    "redis+cluster",
    "redis+socket",
    "redis+ssl",
    "redis+tls",
    "redis-cluster",
    "redis-socket",
    "socket",
    "tcp",
    "tls",
    "valkey-cluster",
];

/// Schemes by which clients ask Sentinels, and those that are written in their place to be parsed.
const SENTINEL_SCHEMES: [(&str, &str); 8] = [
    ("redis+sentinel", "redis"),
    ("redis-sentinel", "redis"),
    ("rediss+sentinel", "rediss"),
    ("rediss-sentinel", "rediss"),
    ("valkey+sentinel", "redis"),
    ("valkey-sentinel", "redis"),
    ("valkeys+sentinel", "rediss"),
    ("valkeys-sentinel", "rediss"),
];

/// Schemes of clients that ask Sentinels, and are written in a way that is not taken here.
const OTHER_SENTINEL_SCHEMES: [&str; 4] = [
    "redis+sentinels",
    "redis-sentinels",
    "sentinel",
    "sentinels",
];

/// Refuses a scheme of another kind: before the rest is looked at, which is written in other ways there.
/// Gives what to parse in its place where it is one of Sentinels.
pub(super) fn check_scheme(text: &str) -> Result<Option<&'static str>, LockError> {
    let scheme = text.split(':').next().unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    if SCHEMES.contains(&scheme.as_str()) {
        return Ok(None);
    }
    if let Some((_, plain)) = SENTINEL_SCHEMES.iter().find(|(name, _)| *name == scheme) {
        return Ok(Some(plain));
    }
    let listed = |names: &[&'static str]| names.iter().copied().find(|name| *name == scheme);
    if let Some(scheme) = listed(&OTHER_SENTINEL_SCHEMES) {
        return Err(wrong(format_args!(
            "its scheme `{scheme}` is one of Sentinel that is not taken: {HOW_SENTINELS}"
        )));
    }
    let shown = listed(&OTHER_SCHEMES).map_or("unknown".to_owned(), |name| format!("`{name}`"));
    Err(wrong(format_args!(
        "its scheme is {shown}; known are redis, rediss, valkey, valkeys, unix, redis+sentinel, \
         rediss+sentinel"
    )))
}
