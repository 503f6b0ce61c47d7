//! A lock that was granted.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::keeper::Held;
use super::store::Store;
use crate::LockError;
use crate::backend::{Grant, Lease, LossReason};
use crate::outage::Repeated;

/// A file lock that is ours. Dropping it releases it immediately.
#[must_use = "if unused the lock is released immediately"]
pub struct FileGrant {
    store: Arc<Store>,
    held: Arc<Held>,
    /// By what the keeper knows it.
    key: Option<u64>,
}

impl FileGrant {
    pub(super) fn new(store: Arc<Store>, held: Arc<Held>, key: Option<u64>) -> Self {
        Self { store, held, key }
    }

    /// Releases once; whether the lock was ours to the end.
    fn give_back(&self) -> Result<(), LockError> {
        let held = &*self.held;
        if held.released.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // Else it is the copy of a forked child: the lock is its parent's.
        let is_ours = std::process::id() == held.process;
        let in_place = if is_ours {
            self.store.directory.is_in_place()
        } else {
            Ok(true)
        };
        if let Ok(false) = in_place {
            // Another process that has opened the path since may have been granted the lock.
            self.store.keeper.lose_all();
            held.lease.lose(LossReason::Revoked);
        }
        if let Some(key) = self.key {
            self.store.keeper.forget(key);
        }
        if !is_ours {
            return Ok(());
        }
        let awaited = || {
            // Where a writer waits for readers, its turnstile sees to that.
            if !held.file.is_shared() {
                self.store.hand_overs.begin(&held.name);
            }
        };
        let released = held
            .file
            .release(&self.store.directory, &held.name, awaited);
        if !released?.ours {
            held.lease.lose(LossReason::Revoked);
        }
        in_place.map(|_| ())
    }
}

impl Held {
    fn check(&self) -> Result<(), LockError> {
        match self.lease.reason() {
            Some(reason) => Err(LockError::lost(reason.to_string())),
            None => Ok(()),
        }
    }
}

impl Grant for FileGrant {
    fn lease(&self) -> &Lease {
        &self.held.lease
    }

    async fn release(self) -> Result<(), LockError> {
        let released = self.give_back();
        self.held.check()?;
        released
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        let (tokens, held) = (Arc::clone(&self.store.tokens), Arc::clone(&self.held));
        async move {
            if held.file.is_shared() {
                return Err(LockError::misconfigured(
                    "a reader has no fencing token: tokens order writers",
                ));
            }
            held.check()?;
            let token = tokens.next().await?;
            // After it was issued: if the lock is still ours now, every later holder is given a
            // greater one. If not, this one may be greater than the next holder's, and is dropped.
            if held.released.load(Ordering::Acquire) {
                return Err(LockError::lost(
                    "it was released before the token was issued",
                ));
            }
            held.check()?;
            Ok(token)
        }
    }

    /// Each token is the next of the directory. Not in a forked child, whose parent has the lock.
    fn hand_over(&mut self) -> bool {
        std::process::id() == self.held.process && !self.held.file.is_shared()
    }
}

impl Drop for FileGrant {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            static FAILED: Repeated = Repeated::new();
            let directory = self.store.directory.path().display().to_string();
            FAILED.happened(&directory, |times| {
                tracing::warn!(
                    directory,
                    %error, times,
                    "a file lock was not released cleanly"
                );
            });
        }
    }
}

impl fmt::Debug for FileGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileGrant")
            .field("file", &self.held.name)
            .field("lease", &self.held.lease)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::file::lock_file::{self, Taken};

    #[test]
    fn the_copy_of_a_forked_child_releases_nothing() {
        let base = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&base.path().join("locks"), false).unwrap());
        let name: Arc<str> = "v1-a.lock".into();
        let Taken::Ours(file) = lock_file::take(&store.directory, &name, false).unwrap() else {
            panic!("nobody holds it");
        };
        let parent = std::process::id() + 1;
        let held = Arc::new(Held {
            name: Arc::clone(&name),
            file,
            lease: Lease::unbounded(),
            released: AtomicBool::new(false),
            process: parent,
        });
        // What keeps the parent's descriptor open.
        let open = Arc::clone(&held);
        drop(FileGrant::new(Arc::clone(&store), held, None));
        let other = lock_file::take(&store.directory, &name, false).unwrap();
        assert!(matches!(other, Taken::Theirs(_)));
        drop(open);
    }
}
