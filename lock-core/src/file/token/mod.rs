//! Fencing tokens: one counter for the directory, kept in a file.
//!
//! # The file
//!
//! Three records, a page apart, so that a write which is torn by a power failure spoils one only.
//!
//! - Two *ceilings*, written in turn, each followed by a sync.
//! - The *last* token, written for each and not synced: the kernel's cache shows it to every process
//!   of this boot, however the others ended. With it go the ceiling that was synced, and which boot
//!   this is.
//!
//! One record that is synced for each token would be simpler, and cost each holder a sync of the disk, of
//! 0.1 to 5 ms; this costs one for a thousand tokens.
//!
//! # Why tokens never repeat
//!
//! No token is issued above the ceiling that was synced. Within one boot the next token follows the
//! last one, under the lock of the file. After a power failure the last one is not believed, and the
//! next token follows the greater ceiling on the disk, which is at least what was ever issued:
//!
//! - A ceiling is written over the one that does not count, so a torn write leaves the one that does.
//! - A ceiling whose writer died before its sync does not count: it is not the one that goes with
//!   the last token.
//! - Should one be damaged on the disk, the other is at most one block below it: that much is
//!   skipped. With both damaged nothing is issued.

mod counter;
mod record;

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError, TryLockError as Poisoned};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use self::counter::{Counter, Disk, Issue, current_boot};
use super::blocking::off_the_runtime;
use super::directory::{Directory, FileId};
use crate::LockError;

const FILE: &str = "tokens";

/// One sync is for so many tokens, and so many are skipped after a power failure. To be changed with
/// the version of the records only.
const BLOCK: u64 = 1024;

/// How long another process may have the counter: it has it for microseconds, or for one sync.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is asked for meanwhile.
const ASK_EVERY: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(super) struct Tokens {
    directory: Arc<Directory>,
    file: Mutex<Option<TokenFile>>,
    /// One thread at a time goes the slow way.
    slow: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct TokenFile {
    file: File,
    id: FileId,
}

impl Tokens {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self {
            directory,
            file: Mutex::new(None),
            slow: tokio::sync::Mutex::new(()),
        }
    }

    /// The next token. Most are issued immediately; those that need a sync, on a thread.
    ///
    /// # Cancel safety
    ///
    /// A token whose caller has left is skipped.
    pub(super) async fn next(self: &Arc<Self>) -> Result<u64, LockError> {
        let until = Instant::now() + PATIENCE;
        if let Some(token) = self.try_next()? {
            return Ok(token);
        }
        let _turn = self.slow.lock().await;
        if let Some(token) = self.try_next()? {
            return Ok(token);
        }
        let tokens = Arc::clone(self);
        let issued = off_the_runtime(move || tokens.next_blocking(until)).await;
        issued.unwrap_or_else(|| {
            Err(LockError::unavailable(
                "no thread could be started to write the token counter",
            ))
        })
    }

    /// `None`: it would block.
    fn try_next(&self) -> Result<Option<u64>, LockError> {
        let file = match self.file.try_lock() {
            Ok(file) => file,
            Err(Poisoned::Poisoned(file)) => file.into_inner(),
            Err(Poisoned::WouldBlock) => return Ok(None),
        };
        match &*file {
            Some(file) if self.is_current(file)? => self.issue(&file.file, false),
            _ => Ok(None),
        }
    }

    fn next_blocking(&self, until: Instant) -> Result<u64, LockError> {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let file = match slot.take() {
                Some(file) if self.is_current(&file)? => slot.insert(file),
                _ => slot.insert(self.open()?),
            };
            if let Some(token) = self.issue(&file.file, true)? {
                return Ok(token);
            }
            if Instant::now() >= until {
                return Err(LockError::unavailable(format!(
                    "another process has kept the token counter in {} for {PATIENCE:?}; \
                     it may be stopped",
                    self.directory.path().display()
                )));
            }
            thread::sleep(ASK_EVERY);
        }
    }

    /// Issues a token under the lock of the file; `None` if that, or a sync, would block.
    fn issue(&self, file: &File, may_block: bool) -> Result<Option<u64>, LockError> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(self.failed(error)),
        }
        // Should the file have been replaced since `is_current`: we hold our lock for longer
        // than that, so no token of the new file is known to an earlier holder, and all of them
        // are above this one.
        let issued = Counter {
            disk: file,
            boot: current_boot(),
            block: BLOCK,
        }
        .issue(may_block);
        // Explicitly: a forked child has the file open as well.
        let unlocked = file.unlock();
        let issued = issued.map_err(|error| self.failed(error))?;
        unlocked.map_err(|error| self.failed(error))?;
        match issued {
            Issue::Token(token) => Ok(Some(token)),
            Issue::NeedsSync => Ok(None),
            Issue::Damaged => Err(LockError::misconfigured(format!(
                "the token counter {} is damaged. Make sure that no token which storage has seen is \
                 above the current time in microseconds since 1970, and remove it: tokens then start \
                 there. Until then no fencing token is issued; locks work",
                self.directory.path().join(FILE).display()
            ))),
        }
    }

    fn open(&self) -> Result<TokenFile, LockError> {
        let opened = self
            .directory
            .open_file(FILE, OFlags::RDWR | OFlags::CREATE);
        let file = opened.map_err(|error| self.failed(error))?;
        let metadata = file.metadata().map_err(|error| self.failed(error))?;
        if metadata.len() == 0 {
            // Its name needs to survive a power failure as well.
            self.directory
                .file()
                .sync_all()
                .map_err(|error| self.failed(error))?;
        }
        Ok(TokenFile {
            file,
            id: FileId::of(&metadata),
        })
    }

    /// Whether the file is still the one that others find.
    fn is_current(&self, file: &TokenFile) -> Result<bool, LockError> {
        let named = self.directory.look(FILE)?;
        Ok(named.is_some_and(|named| FileId::of_stat(&named) == file.id))
    }

    fn failed(&self, error: impl Into<io::Error>) -> LockError {
        self.directory.failed("use the token counter")(error)
    }
}

impl Disk for &File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], at + done as u64) {
                // What is not there is as good as damaged.
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer[done..].fill(0);
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
