//! What the process of the command does before it becomes the command.
//!
//! Between fork and exec a program has to do this with `unsafe`. So `dlock` starts itself, and that process
//! asks to be killed with its parent and executes the command in its place.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, getppid};

use super::{terminal, watchdog};
use crate::ending::{NOT_EXECUTABLE, NOT_FOUND, SYSTEM, USAGE};
use crate::telling::say;

/// The first argument that asks for it; the parent, the pipe of the watchdog and the command follow.
pub(super) const ASKED: &str = "__run";

pub(super) fn enter(arguments: &[OsString]) -> ExitCode {
    let [parent, pipe, program, rest @ ..] = arguments else {
        return ExitCode::from(USAGE);
    };
    let Some(pipe) = pipe.to_str().and_then(|pipe| pipe.parse().ok()) else {
        return ExitCode::from(USAGE);
    };
    die_with_parent();
    // After that: a parent that has ended before was none to die with.
    let parent = parent.to_str().and_then(|pid| pid.parse().ok());
    if parent.is_none() || parent.and_then(Pid::from_raw) != getppid() {
        return ExitCode::from(SYSTEM);
    }
    watchdog::tell_own_group(pipe);
    terminal::unblock();
    let error = Command::new(program).args(rest).exec();
    say(&format!("{}: {error}", program.display()));
    ExitCode::from(match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    })
}

/// It is kept by an exec, but for one of a program with more rights than the user, as sudo(8).
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn die_with_parent() {
    use rustix::process::{Signal, set_parent_process_death_signal};

    // Each kernel that is in use has it. Without it there is the watchdog.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// There is the watchdog.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn die_with_parent() {}
