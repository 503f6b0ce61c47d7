//! One try to take a lock.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::grant::FileGrant;
use super::keeper::Held;
use super::lock_file::{self, LockFile, Taken};
use super::signature::Signature;
use super::store::Store;
use crate::LockError;
use crate::backend::Lease;

/// When a waiter tries again that was not notified of a change.
const RETRY_FIRST: Duration = Duration::from_millis(1);
const RETRY_LATER: Duration = Duration::from_millis(50);

/// However many names are waited for, they ask again no more often than this together.
const RETRY_SHARE: Duration = Duration::from_micros(100);

/// The answer to a try.
pub(super) enum Outcome {
    Granted(FileGrant),
    Held(Duration),
    /// The path leads to another directory, or to none.
    Displaced,
}

/// Tries once to take the lock of this name.
pub(super) fn try_take(
    store: &Arc<Store>,
    name: &Arc<str>,
    signature: &Signature,
) -> Result<Outcome, LockError> {
    if let Some(left) = store.hand_overs.remaining(name) {
        if store.directory.look(name)?.is_none() {
            return Ok(Outcome::Held(left));
        }
        // The other has taken it.
        store.hand_overs.end(name);
    }
    let awaits = store.watch.is_awaited(name);
    match lock_file::take(&store.directory, name, awaits) {
        Ok(Taken::Ours(file)) => grant(store, Arc::clone(name), file, signature),
        // In a directory that was replaced no release would ever be noticed.
        Ok(Taken::Theirs(held_for)) => Ok(if store.directory.is_in_place()? {
            held(store, held_for)
        } else {
            Outcome::Displaced
        }),
        // What is created in a directory that was removed is not there either.
        Err(error) => {
            if store.directory.is_in_place()? {
                Err(error)
            } else {
                Ok(Outcome::Displaced)
            }
        }
    }
}

fn held(store: &Store, held_for: Duration) -> Outcome {
    let awaited = u32::try_from(store.watch.awaited()).unwrap_or(u32::MAX);
    let later = RETRY_LATER.max(RETRY_SHARE.saturating_mul(awaited));
    // A lock that has been held for long will be so for longer.
    Outcome::Held((held_for / 2).clamp(RETRY_FIRST, later))
}

fn grant(
    store: &Arc<Store>,
    name: Arc<str>,
    file: LockFile,
    signature: &Signature,
) -> Result<Outcome, LockError> {
    let process = std::process::id();
    file.sign(&signature.line(process));
    let held = Arc::new(Held {
        name,
        file,
        lease: Lease::unbounded(),
        released: AtomicBool::new(false),
        process,
    });
    let key = store.keeper.keep(&held);
    // From here on it is released by a drop.
    let grant = FileGrant::new(Arc::clone(store), held, key.as_ref().ok().copied());
    key?;
    // After the lock was taken: a directory that is replaced later is the keeper's to see.
    Ok(if store.directory.is_in_place()? {
        Outcome::Granted(grant)
    } else {
        Outcome::Displaced
    })
}
