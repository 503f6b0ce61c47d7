//! `dlock` itself, as a program that it starts.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// This program. On Linux also after its file was replaced, as by an upgrade.
pub(super) fn own_program() -> Command {
    let path = match cfg!(target_os = "linux") {
        true => Ok(PathBuf::from("/proc/self/exe")),
        false => env::current_exe(),
    };
    let mut command = Command::new(path.unwrap_or_else(|_| PathBuf::from("dlock")));
    command.arg0("dlock");
    command
}
