//! The signals that `dlock` receives.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::child::reap;
use super::terminal::{self, Terminal};

/// What is passed on to the command. The rest cannot be caught, is the kernel's (SIGCHLD, SIGSEGV, ..), or
/// is ignored.
const PASSED_ON: [Signal; 10] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::ALARM,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::TSTP,
    Signal::CONT,
];

/// Those of them which end no process that does not handle them.
const HARMLESS: [Signal; 3] = [Signal::CONT, Signal::TSTP, Signal::WINCH];

/// Those by which users and supervisors end a program. SIGHUP as well may have been sent so that a command reads its
/// settings again.
const ENDING: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::TERM];

/// Signals, as they come.
#[derive(Debug)]
pub(super) struct Signals {
    streams: Vec<(Signal, Stream)>,
    has_ending: bool,
}

impl Signals {
    /// Those that this process was started to ignore (by nohup(1), say) stay ignored, here and in the
    /// command.
    pub(super) fn listen() -> io::Result<Self> {
        let ignored = ignored();
        let all = PASSED_ON.into_iter().chain([Signal::CHILD]);
        let heard = all
            .filter(|signal| *signal == Signal::CHILD || ignored >> (signal.as_raw() - 1) & 1 == 0);
        let listen = |heard: Signal| {
            let stream = signal(SignalKind::from_raw(heard.as_raw()))?;
            Ok((heard, stream))
        };
        Ok(Self {
            streams: heard.map(listen).collect::<io::Result<_>>()?,
            has_ending: false,
        })
    }

    /// Whether one has come that is to end this process, also if it was passed on.
    pub(super) fn has_ending(&self) -> bool {
        self.has_ending
    }

    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Signal {
        let Self {
            streams,
            has_ending,
        } = self;
        poll_fn(|cx| {
            for (signal, stream) in streams.iter_mut() {
                if let Poll::Ready(Some(())) = stream.poll_recv(cx) {
                    *has_ending |= ENDING.contains(signal);
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The next one that ends a process, by its number. One that stops it stops it.
    pub(super) async fn ending(&mut self, terminal: &Terminal) -> i32 {
        loop {
            match self.next().await {
                Signal::TSTP if terminal.has_job_control() => terminal::suspend(),
                // Also the watchdog, and what the command has left.
                Signal::CHILD => reap(),
                signal if HARMLESS.contains(&signal) => {}
                signal => return signal.as_raw(),
            }
        }
    }
}

/// A bit for each signal that this process ignores.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}
