//! The process that kills the group of the command when `dlock` is gone.
//!
//! The kernel kills the command with `dlock`, but not what the command has started. The watchdog reads from a
//! pipe whose other end `dlock` alone has: its end is the end of `dlock`, however that came. It is in a
//! process group of its own, ignores all signals but SIGKILL, and holds no stream or other file of `dlock` open.
//!
//! It does not reach what has left the group: with `dlock` gone, those processes are children of the first process of
//! the machine, as any others.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, ExitCode, Stdio};

use nix::sys::signal::SigSet;
use nix::unistd::close;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, getpid, kill_process_group};

use super::own_program::own_program;

/// The first argument that asks for it.
pub(super) const ASKED: &str = "__watch";

/// What is said when there is nothing to kill any more.
const DISMISSED: u8 = b'.';

/// The watchdog, from the side of `dlock`.
#[derive(Debug)]
pub(super) struct Watchdog {
    told: ChildStdin,
}

impl Watchdog {
    pub(super) fn start() -> io::Result<Self> {
        let mut watchdog = own_program()
            .arg(ASKED)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let told = watchdog.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { told })
    }

    /// Starts the command, whose group is killed when `dlock` is gone. It is given the pipe, to [tell](tell_own_group)
    /// which group that is: the command can have started others before `dlock` knows its number, and be killed.
    pub(super) fn guard<C>(
        &mut self,
        start: impl FnOnce(RawFd) -> io::Result<C>,
        group: impl FnOnce(&C) -> Pid,
    ) -> io::Result<C> {
        fcntl_setfd(&self.told, FdFlags::empty())?;
        let command = start(self.told.as_raw_fd());
        fcntl_setfd(&self.told, FdFlags::CLOEXEC)?;
        let command = command?;
        // Once more, where it could not.
        self.tell(&of_group(group(&command)));
        Ok(command)
    }

    /// Nothing is to be killed any more.
    pub(super) fn dismiss(&mut self) {
        self.tell(&[DISMISSED]);
    }

    fn tell(&mut self, words: &[u8]) {
        // It is gone only where it was killed by SIGKILL, and then the kernel still kills the command.
        let _ = self.told.write_all(words);
    }
}

/// Has the group of this process killed when `dlock` is gone. For the process that becomes the command.
pub(super) fn tell_own_group(pipe: RawFd) {
    // Of the number alone no descriptor is made without `unsafe`.
    if let Ok(mut told) = File::options().write(true).open(format!("/dev/fd/{pipe}")) {
        let _ = told.write_all(&of_group(getpid()));
    }
    let _ = close(pipe);
}

fn of_group(leader: Pid) -> Vec<u8> {
    format!("{leader}\n").into_bytes()
}

/// Waits for the end of `dlock`.
pub(super) fn watch() -> ExitCode {
    // A supervisor that ends all processes of a service begins with SIGTERM, and so does not begin here.
    let _ = SigSet::all().thread_block();
    close_inherited();
    let mut told = Vec::new();
    // What was read before an error counts.
    let _ = io::stdin().lock().read_to_end(&mut told);
    if let Some(group) = group_of(&told) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    ExitCode::SUCCESS
}

/// Closes what the caller of `dlock` has left open for the command. The caller may read from a pipe to its end, which
/// comes when all have closed it.
fn close_inherited() {
    let open = fs::read_dir("/dev/fd").into_iter().flatten().flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // First all of them: the folder itself is one.
    let numbers: Vec<RawFd> = numbers.filter(|number| *number > 2).collect();
    for number in numbers {
        // This process has opened none itself yet.
        let _ = close(number);
    }
}

/// The group that is to be killed, if any.
fn group_of(told: &[u8]) -> Option<Pid> {
    let is_dismissed = told.last() == Some(&DISMISSED);
    let (number, _) = str::from_utf8(told).ok()?.split_once('\n')?;
    let group = Pid::from_raw(number.parse().ok()?);
    group.filter(|_| !is_dismissed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_killed_unless_it_is_unknown_or_the_watchdog_was_dismissed() {
        for told in [&b"4711\n"[..], b"4711\n4711\n", b"4711\n47"] {
            assert_eq!(group_of(told), Pid::from_raw(4711), "{told:?}");
        }
        for nothing in [
            &b""[..],
            b"47",
            b"4711",
            b"4711\n.",
            b"4711\n4711\n.",
            b".",
            b"\n",
            b"x\n",
        ] {
            assert_eq!(group_of(nothing), None, "{nothing:?}");
        }
    }
}
