//! What the library logs, kept for a test to read.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Level;
use tracing::subscriber::{DefaultGuard, set_default};
use tracing_subscriber::filter::LevelFilter;

/// A log that is still being written. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Everything that this process logs from now on, at every level. A test is a process of its own.
    ///
    /// # Panics
    ///
    /// When something listens to the whole process already.
    #[must_use]
    pub fn of_process() -> Self {
        let log = Self::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        log
    }

    /// What this thread logs, at this level and above, until the second is dropped.
    #[must_use]
    pub fn of_thread(level: Level) -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, set_default(subscriber))
    }

    /// What was logged until now.
    ///
    /// # Panics
    ///
    /// When it is no text.
    #[must_use]
    pub fn text(&self) -> String {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(written.clone()).expect("what is logged is text")
    }

    /// That so many locks were lost by one cause, and nothing else: a line for the first, and one for all
    /// others with their number.
    ///
    /// # Panics
    ///
    /// When it is not so.
    pub fn check_lost_together(&self, locks: usize) {
        let lines = self.lines(Level::ERROR);
        let [first, further] = &lines[..] else {
            panic!("{} lines: {:?}", lines.len(), lines.first());
        };
        assert!(first.contains("a distributed lock was lost"), "{first}");
        let count = format!("locks={}", locks - 1);
        assert!(
            further.contains(&count) && further.contains("reason="),
            "{further}"
        );
    }

    /// The lines of this library that were logged until now, of this level and above.
    ///
    /// # Panics
    ///
    /// When what is logged is no text.
    #[must_use]
    pub fn lines(&self, least: Level) -> Vec<String> {
        let text = self.text();
        let ours = text.lines().filter(|line| {
            let level = line.split_whitespace().nth(1);
            let level = level.and_then(|level| level.parse::<Level>().ok());
            line.contains("lock_core") && level.is_some_and(|level| level <= least)
        });
        ours.map(str::to_owned).collect()
    }

    /// How often this text was logged until now.
    #[must_use]
    pub fn count(&self, text: &str) -> usize {
        self.text().matches(text).count()
    }
}
