//! One open lock directory, and all that belongs to it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::courtesy::Courtesies;
use super::directory::Directory;
use super::grant::FileGrant;
use super::keeper::{Held, Keeper};
use super::lock_file::{self, LockFile, Taken};
use super::token::Tokens;
use super::watch::Watch;
use crate::LockError;
use crate::backend::Lease;

/// When whoever waits asks again without having been told of a change.
const RETRY_FIRST: Duration = Duration::from_millis(1);
const RETRY_LATER: Duration = Duration::from_millis(50);

/// However many names are waited for, they ask again no more often than this together.
const RETRY_SHARE: Duration = Duration::from_micros(100);

#[derive(Debug)]
pub(super) struct Store {
    pub(super) directory: Arc<Directory>,
    pub(super) courtesies: Arc<Courtesies>,
    pub(super) watch: Arc<Watch>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) tokens: Arc<Tokens>,
}

/// The answer to a try.
pub(super) enum Outcome {
    Granted(FileGrant),
    Held(Duration),
    /// The path leads to another directory, or to none.
    Displaced,
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, LockError> {
        let directory = Arc::new(Directory::open(path)?);
        lock_file::tidy(&directory)?;
        directory.probe()?;
        let courtesies = Arc::new(Courtesies::default());
        let path = directory.path().to_owned();
        tracing::debug!(
            directory = %path.display(),
            "file locks: processes exclude each other if this is one directory for them; \
             containers and private temporary directories have their own"
        );
        Ok(Self {
            watch: Watch::new(path, Arc::clone(&courtesies)),
            keeper: Arc::new(Keeper::new(Arc::clone(&directory))),
            tokens: Arc::new(Tokens::new(Arc::clone(&directory))),
            courtesies,
            directory,
        })
    }

    pub(super) fn try_take(self: &Arc<Self>, name: &Arc<str>) -> Result<Outcome, LockError> {
        if let Some(left) = self.courtesies.remaining(name) {
            if self.directory.look(name)?.is_none() {
                return Ok(Outcome::Held(left));
            }
            // The other has taken it.
            self.courtesies.close(name);
        }
        let awaits = self.watch.is_awaited(name);
        match lock_file::take(&self.directory, name, awaits) {
            Ok(Taken::Ours(file)) => self.grant(Arc::clone(name), file),
            // In a directory that was replaced nobody would ever tell us of a release.
            Ok(Taken::Theirs(held_for)) => Ok(if self.directory.is_in_place()? {
                self.held(held_for)
            } else {
                Outcome::Displaced
            }),
            // What is created in a directory that was removed is not there either.
            Err(error) => {
                if self.directory.is_in_place()? {
                    Err(error)
                } else {
                    Ok(Outcome::Displaced)
                }
            }
        }
    }

    fn held(&self, held_for: Duration) -> Outcome {
        let awaited = u32::try_from(self.watch.awaited()).unwrap_or(u32::MAX);
        let later = RETRY_LATER.max(RETRY_SHARE.saturating_mul(awaited));
        // A lock that has been held for long will be so for longer.
        Outcome::Held((held_for / 2).clamp(RETRY_FIRST, later))
    }

    fn grant(self: &Arc<Self>, name: Arc<str>, file: LockFile) -> Result<Outcome, LockError> {
        let held = Arc::new(Held {
            name,
            file,
            lease: Lease::unbounded(),
            released: AtomicBool::new(false),
            process: std::process::id(),
        });
        let key = self.keeper.keep(&held);
        // From here on it is released by a drop.
        let grant = FileGrant::new(Arc::clone(self), held, key.as_ref().ok().copied());
        key?;
        // After the lock was taken: a directory that is replaced later is the keeper's to see.
        Ok(if self.directory.is_in_place()? {
            Outcome::Granted(grant)
        } else {
            Outcome::Displaced
        })
    }
}
