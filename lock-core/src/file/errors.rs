//! What the operating system refuses, in words that say what to do.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::LockError;

/// The error for what could not be done in the lock directory.
///
/// What a retry can heal (no space, no descriptors) is `Unavailable`; what only an operator can change
/// is `Misconfigured`.
pub(super) fn refused(directory: &Path, doing: &str, error: impl Into<io::Error>) -> LockError {
    let error = error.into();
    let directory = directory.display();
    let says = |what: &str| format!("cannot {doing} in the lock directory {directory}: {what}");
    let detail = match Errno::from_io_error(&error) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            LockError::unavailable(says("its file system is full; free space or inodes there"))
        }
        Some(Errno::MFILE) => LockError::unavailable(says(
            "this process has no file descriptors left, and each held lock takes one; \
             raise its limit (`ulimit -n`)",
        )),
        Some(Errno::NFILE) => LockError::unavailable(says(
            "the machine has no file descriptors left; raise `fs.file-max`",
        )),
        Some(Errno::ROFS) => LockError::misconfigured(says(
            "its file system is read-only; choose a directory that can be written",
        )),
        Some(Errno::ACCESS | Errno::PERM) => LockError::misconfigured(says(
            "permission denied; it must belong to the user of this process, with mode 0700",
        )),
        Some(Errno::OPNOTSUPP | Errno::NOSYS) => LockError::misconfigured(says(
            "its file system has no file locks; choose a directory on a local disk or in memory",
        )),
        _ => LockError::unavailable(says("see the source of this error")),
    };
    detail.with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_retry_can_heal_is_unavailable_and_the_rest_is_misconfigured() {
        let kind = |errno| refused(Path::new("/locks"), "create a lock file", errno).kind();
        for errno in [
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::MFILE,
            Errno::NFILE,
            Errno::IO,
        ] {
            assert_eq!(kind(errno), crate::LockErrorKind::Unavailable, "{errno:?}");
        }
        for errno in [Errno::ROFS, Errno::ACCESS, Errno::PERM, Errno::OPNOTSUPP] {
            assert_eq!(
                kind(errno),
                crate::LockErrorKind::Misconfigured,
                "{errno:?}"
            );
        }
    }

    #[test]
    fn the_text_names_the_directory_and_the_way_out() {
        let error = refused(Path::new("/locks"), "create a lock file", Errno::MFILE);
        let text = error.to_string();
        assert!(
            text.contains("/locks") && text.contains("ulimit -n"),
            "{text}"
        );
    }
}
