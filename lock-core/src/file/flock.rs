//! Locks of the kernel on a file: exclusive, or shared with others.

use std::fs::{File, TryLockError};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::directory::Directory;
use crate::LockError;

/// Locks the file alone; false where it is locked.
pub(super) fn try_lock(directory: &Directory, file: &File) -> Result<bool, LockError> {
    is_locked(directory, file.try_lock())
}

/// Locks the file together with others; false where it is locked alone.
pub(super) fn try_share(directory: &Directory, file: &File) -> Result<bool, LockError> {
    is_locked(directory, file.try_lock_shared())
}

fn is_locked(directory: &Directory, tried: Result<(), TryLockError>) -> Result<bool, LockError> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(directory.failed("lock a file")(error)),
    }
}

/// Gives up a shared lock for the exclusive one; false, and neither is left, where another has the shared one as
/// well, or was first. Of several that do this at a time, the last to give up is not refused by the others.
pub(super) fn convert(directory: &Directory, file: &File) -> Result<bool, LockError> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        // Not all systems have taken the shared one away by now.
        Err(Errno::WOULDBLOCK) => unlock(directory, file).map(|()| false),
        Err(error) => Err(directory.failed("lock a file")(error)),
    }
}

/// Gives the lock up. Not by closing the file: a child that was forked meanwhile has it open as well, and would keep
/// the lock.
pub(super) fn unlock(directory: &Directory, file: &File) -> Result<(), LockError> {
    file.unlock().map_err(directory.failed("unlock a file"))
}
