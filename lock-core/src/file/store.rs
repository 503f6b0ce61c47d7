//! One open lock directory, and all that belongs to it.

use std::path::Path;
use std::sync::Arc;

use super::directory::Directory;
use super::hand_over::HandOvers;
use super::keeper::Keeper;
use super::tidy::tidy;
use super::token::Tokens;
use super::waiting_writers::WaitingWriters;
use super::watch::Watch;
use crate::LockError;
use crate::checked::passed;

#[derive(Debug)]
pub(super) struct Store {
    pub(super) directory: Arc<Directory>,
    pub(super) hand_overs: Arc<HandOvers>,
    pub(super) watch: Arc<Watch>,
    pub(super) writers: Arc<WaitingWriters>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) tokens: Arc<Tokens>,
}

impl Store {
    pub(super) fn open(path: &Path, polls: bool) -> Result<Self, LockError> {
        let directory = Arc::new(Directory::open(path)?);
        tidy(&directory)?;
        directory.probe()?;
        passed!(
            "directory",
            "{} is ours alone, on a local file system, and can be written",
            directory.path().display()
        );
        passed!(
            "lease",
            "none: the kernel releases the locks of a process that ends"
        );
        let hand_overs = Arc::new(HandOvers::default());
        let path = directory.path().to_owned();
        tracing::debug!(
            directory = %path.display(),
            "file locks: processes exclude each other if this is one directory for them; \
             containers and private temporary directories have their own"
        );
        Ok(Self {
            watch: Watch::new(path, polls, Arc::clone(&hand_overs)),
            writers: Arc::new(WaitingWriters::new(Arc::clone(&directory))),
            keeper: Arc::new(Keeper::new(Arc::clone(&directory))),
            tokens: Arc::new(Tokens::new(Arc::clone(&directory))),
            hand_overs,
            directory,
        })
    }
}
