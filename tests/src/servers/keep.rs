//! The guardian's own program: the parent of the servers of a test.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::statvfs;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getuid, kill_process, set_child_subreaper, setsid, wait,
    waitpid,
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::processes::descendants;

/// Whom servers run as when the test is root: most refuse to be root themselves. It is `nobody`, and
/// its group, on every Linux.
pub(super) const NOBODY: u32 = 65_534;

/// Bytes of memory for the servers of several tests.
const ENOUGH: u64 = 2 << 30;

/// What a test asks of its guardian, a line of JSON each. None takes long: the guardian is to see
/// the end of its test immediately.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Start a program, its output added to a file.
    Start { command: Vec<String>, log: PathBuf },
    /// Say whether a program that was started has ended. To be asked until it has.
    Ended(i32),
    /// Kill everything that was started. To be asked until it is done.
    Kill,
    /// When all is over, run this as well, after everything was killed.
    Finally(Vec<String>),
}

/// The line of JSON that answers an [`Order`]; the first, unasked, is the directory.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Directory(PathBuf),
    Started(i32),
    Running,
    Ended(Option<i32>),
    Done,
    Failed(String),
}

/// Makes a temporary directory (in `TMPDIR` if that is set, else in memory if there is room) and
/// obeys the orders on the standard input. When that ends, as it does with the test, however the test
/// ends: kills every process that came of it, stopped ones as well, and removes the directory.
///
/// # Errors
///
/// When the directory cannot be made or removed, or this process cannot adopt the orphans of those
/// that it starts.
pub fn guard() -> io::Result<()> {
    // A signal to the group of the test, as a terminal or a test runner sends it, is not for the
    // guardian, which has work left then. Nor is the one that the kernel sends to a group with
    // stopped members when its last relative outside ends, as the test does over frozen servers.
    setsid()?;
    set_child_subreaper(Some(getpid()))?;
    let mut finally = Vec::new();
    let directory = directory()?;
    let done = obey(&directory, &mut finally);
    // The same end after an error of the pipes, which is what a killed test can look like.
    while !all_killed()? {
        std::thread::sleep(Duration::from_millis(1));
    }
    for command in &finally {
        // Best effort: it may be done already.
        let _ = program(command)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
    directory.close()?;
    match done {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn directory() -> io::Result<TempDir> {
    let directory = tempfile::Builder::new()
        .prefix("lock-tests-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent())?;
    if getuid().is_root() {
        std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY))?;
    }
    Ok(directory)
}

/// `TMPDIR` where it is set; else memory where there is enough, since a thousand small files on a
/// disk cost several times what the server that they are for does.
fn parent() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let is_large = statvfs(memory).is_ok_and(|free| free.f_bavail * free.f_frsize > ENOUGH);
    if std::env::var_os("TMPDIR").is_none() && is_large {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

fn obey(directory: &TempDir, finally: &mut Vec<Vec<String>>) -> io::Result<()> {
    say(&Answer::Directory(directory.path().to_owned()))?;
    for line in io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Order::Start { command, log } => start(&command, &log, directory.path()),
            Order::Ended(pid) => ended(pid),
            Order::Kill => {
                all_killed().map(|done| if done { Answer::Done } else { Answer::Running })
            }
            Order::Finally(command) => {
                finally.push(command);
                Ok(Answer::Done)
            }
        };
        say(&answer.unwrap_or_else(|error| Answer::Failed(error.to_string())))?;
    }
    Ok(())
}

fn say(answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    io::stdout().write_all(&line)
}

fn start(command: &[String], log: &Path, directory: &Path) -> io::Result<Answer> {
    let log: File = OpenOptions::new().create(true).append(true).open(log)?;
    let child = program(command)
        .current_dir(directory)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok(Answer::Started(child.id().cast_signed()))
}

/// A program that finds nothing of the user's in its environment.
fn program(command: &[String]) -> Command {
    let mut program = Command::new(&command[0]);
    program.args(&command[1..]).env_clear().stdin(Stdio::null());
    program.env("LC_ALL", "C.UTF-8");
    if let Some(path) = std::env::var_os("PATH") {
        program.env("PATH", path);
    }
    program
}

fn ended(pid: i32) -> io::Result<Answer> {
    Ok(match waitpid(Pid::from_raw(pid), WaitOptions::NOHANG)? {
        Some((_, status)) => Answer::Ended(status.exit_status()),
        None => Answer::Running,
    })
}

/// Kills all descendants, and says whether none is left. The children of one that was killed become
/// this process's own.
fn all_killed() -> io::Result<bool> {
    for pid in descendants(getpid()) {
        // It may have ended since.
        let _ = kill_process(pid, Signal::KILL);
    }
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(false),
            Err(rustix::io::Errno::CHILD) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}
