//! What is waited for, on a terminal.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::error::Error;
use std::io::{self, IsTerminal};
use std::time::Duration;

use lock_core::{LockError, LockName, LockProvider};
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
    line: Line<'a>,
    name: &'a LockName,
    permits: Option<u16>,
    is_shared: bool,
}

impl<'a> Progress<'a> {
    pub(super) fn new(locks: &'a LockProvider, terminal: &'a Terminal, arguments: &'a Run) -> Self {
        Self {
            locks,
            line: Line::new(terminal),
            name: &arguments.name,
            permits: arguments.permits,
            is_shared: arguments.shared,
        }
    }

    /// Shows it until it is dropped; does nothing where no person looks, or where the person looks at another job.
    pub(super) async fn show(&self) -> Infallible {
        loop {
            sleep(EVERY).await;
            if self.line.is_seen() {
                self.line.show(&self.text().await);
            }
        }
    }

    async fn text(&self) -> String {
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

/// A line that says why the store is not reached yet, and is gone when this is.
#[derive(Debug)]
pub(super) struct Reaching<'a> {
    line: Line<'a>,
    why: RefCell<Option<String>>,
}

impl<'a> Reaching<'a> {
    pub(super) fn new(terminal: &'a Terminal) -> Self {
        Self {
            line: Line::new(terminal),
            why: RefCell::default(),
        }
    }

    /// The store was not reached, for this reason.
    pub(super) fn note(&self, error: &LockError) {
        self.why.replace(Some(in_a_few_words(error)));
    }

    /// Shows it until it is dropped; does nothing where no person looks.
    pub(super) async fn show(&self) -> Infallible {
        loop {
            sleep(EVERY).await;
            if let Some(why) = &*self.why.borrow() {
                self.line.show(&format!("waiting for the store: {why}"));
            }
        }
    }
}

/// The first cause. What a server says in another language stays one column for each character.
fn in_a_few_words(error: &dyn Error) -> String {
    let mut first = error;
    while let Some(cause) = first.source() {
        first = cause;
    }
    let is_shown = |c: char| c == ' ' || c.is_ascii_graphic();
    let shown = |c: char| if is_shown(c) { c } else { '?' };
    first.to_string().chars().map(shown).collect()
}

/// The last line of a terminal, which is empty again when this is dropped.
#[derive(Debug)]
struct Line<'a> {
    terminal: &'a Terminal,
    is_terminal: bool,
    is_shown: Cell<bool>,
}

impl<'a> Line<'a> {
    fn new(terminal: &'a Terminal) -> Self {
        Self {
            terminal,
            is_terminal: io::stderr().is_terminal(),
            is_shown: Cell::new(false),
        }
    }

    /// Whether a person looks, and not at another job.
    fn is_seen(&self) -> bool {
        self.is_terminal && self.terminal.is_ours()
    }

    fn show(&self, text: &str) {
        if self.is_seen() {
            self.is_shown.set(true);
            write(text);
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

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.is_shown.get() && self.terminal.is_ours() {
            show("\r\x1b[K".to_owned());
        }
    }
}
