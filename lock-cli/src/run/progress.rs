//! What is waited for, on a terminal.

use std::cell::Cell;
use std::convert::Infallible;
use std::io::{self, IsTerminal};
use std::time::Duration;

use lock_core::{LockName, LockProvider};
use rustix::termios::tcgetwinsize;
use tokio::time::sleep;

use super::terminal::Terminal;
use crate::cli::Run;
use crate::holder::in_the_way;
use crate::telling::show;

/// Before the first line, and between two: a wait that is shorter is not worth one.
const EVERY: Duration = Duration::from_secs(1);

/// A line that says who holds the lock, and is gone when this is.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    locks: &'a LockProvider,
    terminal: &'a Terminal,
    name: &'a LockName,
    permits: Option<u16>,
    is_shared: bool,
    is_terminal: bool,
    is_shown: Cell<bool>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(locks: &'a LockProvider, terminal: &'a Terminal, arguments: &'a Run) -> Self {
        Self {
            locks,
            terminal,
            name: &arguments.name,
            permits: arguments.permits,
            is_shared: arguments.shared,
            is_terminal: io::stderr().is_terminal(),
            is_shown: Cell::new(false),
        }
    }

    /// Shows it until it is dropped; does nothing where no person looks, or where the person looks at another job.
    pub(super) async fn show(&self) -> Infallible {
        loop {
            sleep(EVERY).await;
            if !self.is_terminal || !self.terminal.is_ours() {
                continue;
            }
            let line = self.line().await;
            // The answer of a store takes its time.
            if self.terminal.is_ours() {
                self.is_shown.set(true);
                write(&line);
            }
        }
    }

    async fn line(&self) -> String {
        let name = self.name;
        if let Some(permits) = self.permits {
            return format!("waiting for {name}, all {permits} permits are taken");
        }
        // It is free, or the store does not tell, or does not answer, which the acquire says.
        match self.locks.holder(name).await.ok().flatten() {
            Some(holder) => format!(
                "waiting for {name}, {}",
                in_the_way(&holder, self.is_shared)
            ),
            None => format!("waiting for {name}"),
        }
    }
}

/// In place of the line before.
fn write(line: &str) {
    let width = tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    let width = if width == 0 { 80 } else { width };
    // Printable ASCII, so that bytes are columns; at the last column a terminal begins a new line.
    let line = line.get(..width - 1).unwrap_or(line);
    show(format!("\r\x1b[K{line}"));
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if self.is_shown.get() && self.terminal.is_ours() {
            show("\r\x1b[K".to_owned());
        }
    }
}
