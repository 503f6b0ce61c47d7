//! What is waited for, on a terminal.

use std::cell::Cell;
use std::convert::Infallible;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use lock_core::{LockName, LockProvider};
use rustix::termios::tcgetwinsize;
use tokio::time::sleep;

use crate::holder::in_words;

/// Before the first line, and between two: a wait that is shorter is not worth one.
const EVERY: Duration = Duration::from_secs(1);

/// A line that says who holds the lock, and is gone when this is.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    locks: &'a LockProvider,
    name: &'a LockName,
    is_terminal: bool,
    is_shown: Cell<bool>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(locks: &'a LockProvider, name: &'a LockName) -> Self {
        Self {
            locks,
            name,
            is_terminal: io::stderr().is_terminal(),
            is_shown: Cell::new(false),
        }
    }

    /// Shows it until it is dropped; does nothing where no person looks.
    pub(super) async fn show(&self) -> Infallible {
        loop {
            sleep(EVERY).await;
            if !self.is_terminal {
                continue;
            }
            // It is free, or the store does not tell, or does not answer, which the acquire says.
            let holder = self.locks.holder(self.name).await.ok().flatten();
            let by = holder.map(|holder| format!(", held by {}", in_words(&holder)));
            let name = self.name;
            self.is_shown.set(true);
            write(&format!("waiting for {name}{}", by.unwrap_or_default()));
        }
    }
}

/// In place of the line before.
fn write(line: &str) {
    let width = tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    let width = if width == 0 { 80 } else { width };
    // Printable ASCII, so that bytes are columns; at the last column a terminal begins a new line.
    let line = line.get(..width - 1).unwrap_or(line);
    let _ = write!(io::stderr().lock(), "\r\x1b[K{line}");
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if self.is_shown.get() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
