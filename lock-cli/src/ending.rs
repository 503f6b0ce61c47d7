//! How `dlock` ends: its exit statuses, which are those of sysexits(3) where it has one.

use std::io;
use std::process::ExitCode;

use lock_core::{LockError, LockErrorKind};
use rustix::process::getpid;

use crate::telling::{finish, say};

/// Wrong usage (EX_USAGE), also a text that is no lock name.
pub(crate) const USAGE: u8 = 64;
/// The store of the locks did not answer (EX_UNAVAILABLE).
pub(crate) const UNAVAILABLE: u8 = 69;
/// The lock was lost while the command ran (EX_SOFTWARE).
pub(crate) const LOST: u8 = 70;
/// The operating system refused something, as a new process (EX_OSERR).
pub(crate) const SYSTEM: u8 = 71;
/// The lock was held by another for the whole wait (EX_TEMPFAIL).
pub(crate) const HELD: u8 = 75;
/// The settings, the store or the rights there are wrong (EX_CONFIG).
pub(crate) const CONFIG: u8 = 78;
/// The command is there, and cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
pub(crate) const NOT_FOUND: u8 = 127;

/// How `dlock` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With this status.
    Status(u8),
    /// By this signal, which has ended the command, or the wait for the lock.
    Signal(i32),
}

impl Ending {
    pub(crate) const SUCCESS: Self = Self::Status(0);

    /// Says what went wrong, and ends with the status for that.
    pub(crate) fn failed(error: &LockError) -> Self {
        say(&with_causes(error));
        Self::Status(status(error))
    }

    /// Says what the operating system refused.
    pub(crate) fn system(what: &str, error: &io::Error) -> Self {
        say(&format!("cannot {what}: {error}"));
        Self::Status(SYSTEM)
    }

    /// After something was printed. A reader that has gone, as `head`, has what it wanted.
    pub(crate) fn of_output(printed: io::Result<()>) -> Self {
        match printed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Self::system("write the output", &error)
            }
            _ => Self::SUCCESS,
        }
    }

    pub(crate) fn exit(self) -> ExitCode {
        finish();
        match self {
            Self::Status(status) => ExitCode::from(status),
            // The kernel ends the first process of a container by no signal of its own, and what is to end it
            // all the same would crash it.
            Self::Signal(signal) if getpid().is_init() => ExitCode::from(of_signal(signal)),
            Self::Signal(signal) => {
                // So that the shell, or whatever else has started this, sees a signal: a script that is
                // interrupted stops. It returns for a signal that it does not know.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
                ExitCode::from(of_signal(signal))
            }
        }
    }
}

/// The status of a command that was ended by a signal, as shells have it.
pub(crate) fn of_signal(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |signal| signal.saturating_add(128))
}

/// The status for an error of the library.
pub(crate) fn status(error: &LockError) -> u8 {
    match error.kind() {
        LockErrorKind::Contended => HELD,
        LockErrorKind::Lost => LOST,
        LockErrorKind::InvalidName => USAGE,
        LockErrorKind::Misconfigured => CONFIG,
        _ => UNAVAILABLE,
    }
}

/// The error and its causes, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some drivers repeat the cause in what they say.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_status() {
        for (error, expected) in [
            (LockError::contended(), 75),
            (LockError::lost("x"), 70),
            (LockError::invalid_name("x"), 64),
            (LockError::misconfigured("x"), 78),
            (LockError::unavailable("x"), 69),
            (LockError::closed(), 69),
        ] {
            assert_eq!(status(&error), expected, "{error}");
        }
        assert_eq!(of_signal(9), 137);
        assert_eq!(of_signal(64), 192);
    }
}
