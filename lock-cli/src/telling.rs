//! What is said on standard error; by `dlock run` through a thread of its own.
//!
//! A pipe that is full and that no process reads, or a terminal that is paused by a key, blocks a write for as
//! long as that lasts. Meanwhile a lost lock has to stop the command, and a lock that is held has to be renewed: so
//! nothing else waits for a write. What such a reader leaves unread when `dlock` ends is lost.

use std::io::{self, Write};
use std::panic;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// What waits to be written, at most. What comes then is lost: a pipe that is not read does not fill the memory.
const WAITING_MAX: usize = 1_000;

/// How long `dlock` stays for its last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

static TELLER: OnceLock<Teller> = OnceLock::new();

/// Text to write, or a caller to notify when all before was written.
#[derive(Debug)]
enum Word {
    Text(String),
    Flush(Sender<()>),
}

/// The thread that writes.
#[derive(Debug)]
struct Teller {
    words: Sender<Word>,
    waiting: AtomicUsize,
}

/// From here on no call waits for what it says. Where there can be no new thread, each call writes itself.
pub(crate) fn start() {
    let (words, received) = channel();
    let thread = thread::Builder::new().name("teller".to_owned());
    if thread.spawn(move || write_all(&received)).is_ok() {
        // `dlock` runs one command.
        let _ = TELLER.set(Teller {
            words,
            waiting: AtomicUsize::new(0),
        });
        // The usual hook waits for standard error, which the thread has for as long as a write is blocked.
        panic::set_hook(Box::new(|panic| {
            say(&in_one_line(&panic.to_string()));
            finish();
        }));
    }
}

fn in_one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn write_all(words: &Receiver<Word>) {
    for word in words {
        match word {
            Word::Text(text) => {
                // Where standard error is closed, it is lost.
                let _ = io::stderr().lock().write_all(text.as_bytes());
                if let Some(teller) = TELLER.get() {
                    teller.waiting.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Word::Flush(written) => {
                let _ = written.send(());
            }
        }
    }
}

/// Says this. Where standard error is closed, it is lost, and the command goes on.
pub(crate) fn say(text: &str) {
    show(format!("dlock: {text}\n"));
}

pub(crate) fn warn(text: &str) {
    say(&format!("warning: {text}"));
}

/// Writes this as it is.
pub(crate) fn show(text: String) {
    let Some(teller) = TELLER.get() else {
        let _ = io::stderr().lock().write_all(text.as_bytes());
        return;
    };
    if teller.waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX {
        // Its thread lives as long as the process.
        let _ = teller.words.send(Word::Text(text));
    } else {
        teller.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns when all that was said is written, or is not read.
pub(crate) fn finish() {
    let Some(teller) = TELLER.get() else {
        return;
    };
    let (to, written) = channel();
    if teller.words.send(Word::Flush(to)).is_ok() {
        let _ = written.recv_timeout(LAST_WORDS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_does_not_wait_for_standard_error() {
        start();
        let blocked = io::stderr().lock();
        let (to, ended) = channel();
        thread::spawn(move || {
            let panicked = thread::spawn(|| panic!("on\npurpose")).join();
            let _ = to.send(panicked.is_err());
        });
        let ended = ended.recv_timeout(Duration::from_secs(30));
        drop(blocked);
        assert_eq!(ended, Ok(true));
        assert_eq!(
            in_one_line("panicked at a.rs:1:2:\non\npurpose"),
            "panicked at a.rs:1:2: on purpose"
        );
    }
}
