//! One try to take a lock.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::grant::FileGrant;
use super::keeper::Held;
use super::lock_file::{self, LockFile, Taken};
use super::read_lock;
use super::signature::Signature;
use super::store::Store;
use crate::backend::Lease;
use crate::{LockError, LockMode};

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
    mode: LockMode,
    signature: &Signature,
) -> Result<Outcome, LockError> {
    if let Some(left) = store.hand_overs.remaining(name) {
        if store.directory.look(name)?.is_none() {
            return Ok(Outcome::Held(left));
        }
        // The other has taken it.
        store.hand_overs.end(name);
    }
    let (directory, process) = (&store.directory, std::process::id());
    let awaits = store.watch.is_awaited(name);
    let taken = match mode {
        LockMode::Exclusive => take_alone(store, name, &signature.line(process), awaits),
        LockMode::Shared => read_lock::take(directory, name, &signature.record(process), awaits),
    };
    match taken {
        Ok(Taken::Ours(file)) => grant(store, Arc::clone(name), file, process),
        // In a directory that was replaced no release would ever be noticed.
        Ok(Taken::Theirs(held_for) | Taken::Read(held_for)) => Ok(if directory.is_in_place()? {
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

/// The try of a writer. One that waits and is refused for readers keeps new ones out from now on.
fn take_alone(store: &Store, name: &str, line: &str, awaits: bool) -> Result<Taken, LockError> {
    let taken = lock_file::take(&store.directory, name, awaits)?;
    match &taken {
        Taken::Ours(file) => {
            file.sign(line);
            store.writers.serve(name);
        }
        Taken::Read(_) => store.writers.close(name)?,
        Taken::Theirs(_) => {}
    }
    Ok(taken)
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
    process: u32,
) -> Result<Outcome, LockError> {
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;
    use crate::instance::Instance;

    #[test]
    fn the_waiters_of_a_file_from_the_future_ask_again_as_those_of_an_old_one() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("locks");
        let store = || Arc::new(Store::open(&path, false).unwrap());
        let (here, there) = (store(), store());
        let signature = Signature::of(&Instance::of("web-1:7").unwrap());
        let name: Arc<str> = "v1-a.lock".into();
        let exclusive = LockMode::Exclusive;
        let Outcome::Granted(_grant) = try_take(&here, &name, exclusive, &signature).unwrap()
        else {
            panic!("no process holds it");
        };
        let file = File::options().write(true).open(path.join(&*name));
        // As after the clock was set back by an hour.
        let written = SystemTime::now() + Duration::from_secs(3_600);
        file.unwrap().set_modified(written).unwrap();
        for mode in [LockMode::Exclusive, LockMode::Shared].repeat(2) {
            let Outcome::Held(retry_in) = try_take(&there, &name, mode, &signature).unwrap() else {
                panic!("another process holds it");
            };
            assert_eq!(retry_in, RETRY_LATER, "{mode:?}");
        }
    }
}
