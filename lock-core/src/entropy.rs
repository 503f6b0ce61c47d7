//! Random bytes from the operating system: identities that no other process has.
//!
//! A generator with a state cannot make them. An application that seeds it, a fork, and machines that
//! boot alike give two processes the same numbers, and two holders with one identity are one holder
//! to a server.

use crate::LockError;

/// So many bytes, read from the kernel for this call.
///
/// # Errors
///
/// [`Unavailable`](crate::LockErrorKind::Unavailable) where the operating system gives none.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], LockError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(refused)?;
    Ok(bytes)
}

fn refused(error: getrandom::Error) -> LockError {
    LockError::unavailable(
        "the operating system gives no random bytes, which tell the holders of locks apart; allow the \
         system call `getrandom`, or reading /dev/urandom, in the sandbox of this process",
    )
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn no_two_reads_are_alike() {
        let reads: std::collections::HashSet<[u8; 8]> =
            (0..10_000).map(|_| bytes().unwrap()).collect();
        assert_eq!(reads.len(), 10_000);
    }

    #[test]
    fn a_system_without_entropy_is_unavailable_and_says_what_to_allow() {
        let error = refused(getrandom::Error::UNSUPPORTED);
        assert!(error.is_unavailable() && error.source().is_some());
        assert!(error.to_string().contains("`getrandom`"), "{error}");
    }
}
