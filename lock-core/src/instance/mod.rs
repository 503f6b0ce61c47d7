//! What a process is called in the store, beside the locks that it holds.

#[cfg(any(
    feature = "memory",
    feature = "file",
    feature = "postgres",
    feature = "redis"
))]
mod process;

use crate::LockError;

#[cfg(any(
    feature = "memory",
    feature = "file",
    feature = "postgres",
    feature = "redis"
))]
pub(crate) use process::Instance;

/// How many bytes it has at most: what PostgreSQL's `application_name`, of 63 bytes, has left beside
/// `distributed_lock `. One limit for all stores, so that a fleet can move from one to another.
pub(crate) const LONGEST: usize = 46;

/// Refuses what cannot be an instance.
///
/// # Errors
///
/// [`Misconfigured`](crate::LockErrorKind::Misconfigured), without the text: what stands in the wrong place
/// can be a secret.
pub(crate) fn check(text: &str) -> Result<(), LockError> {
    let what = if text.len() > LONGEST {
        format!("it has {} bytes; give {LONGEST} at most", text.len())
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        "it has a blank, a control character or one that is not ASCII; remove it".to_owned()
    } else if text.contains("://") && text.contains('@') {
        "it has a user or a password in it, and others see it; leave them out".to_owned()
    } else {
        return Ok(());
    };
    Err(LockError::misconfigured(what))
}

/// Whether this can be an instance. What a store says is that of any client: it is looked at before it is
/// shown.
pub(crate) fn is_instance(text: &str) -> bool {
    !text.is_empty() && check(text).is_ok()
}
