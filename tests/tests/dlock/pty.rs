//! A terminal, and what is typed there.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lock_tests::eventually;
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::time::sleep;

use crate::support::{PATIENCE, Place};

pub(crate) const INTERRUPT: &str = "\x03";
pub(crate) const STOP: &str = "\x1a";

/// A program in a terminal of its own, mostly a shell. What is typed is shown as well: what a command is to say is written
/// with `""` in it, so that the line that was typed is not taken for it.
pub(crate) struct Terminal {
    master: File,
    program: Child,
    shown: Arc<Mutex<String>>,
    /// Up to where it was looked at.
    pub(crate) seen: usize,
}

impl Terminal {
    /// A shell with job control.
    pub(crate) async fn open(place: &Place) -> Self {
        let mut terminal = Self::run(place, &["bash", "--norc", "--noprofile", "-i"]);
        terminal.command("echo shell re\"\"ads");
        terminal.until_shows("shell reads").await;
        terminal
    }

    /// A program that leads the session of the terminal.
    pub(crate) fn run(place: &Place, program: &[&str]) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = name.to_str().unwrap();
        let slave = || Stdio::from(File::options().read(true).write(true).open(path).unwrap());
        let dlock = place.dlock::<&str>(&[]);
        let dlock = dlock.as_std();
        // The terminal controls it.
        let program = Command::new("setsid")
            .arg("--ctty")
            .args(program)
            .envs(
                dlock
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("DLOCK", dlock.get_program())
            .env("PS1", "> ")
            .env("TERM", "dumb")
            .env("HISTFILE", "")
            .current_dir(place.directory.path())
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        let master = File::from(master);
        let shown = Arc::<Mutex<String>>::default();
        let (mut from, to) = (master.try_clone().unwrap(), Arc::clone(&shown));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The last process that has the terminal open is gone: an error, on Linux.
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]);
                to.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&text);
            }
        });
        Self {
            master,
            program,
            shown,
            seen: 0,
        }
    }

    pub(crate) fn shown(&self) -> String {
        self.shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn enter(&self, text: &str) {
        (&self.master).write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn command(&self, line: &str) {
        self.enter(&format!("{line}\n"));
    }

    /// Returns when it shows this, after what was waited for before, and gives what follows in that line.
    pub(crate) async fn until_shows(&mut self, text: &str) -> String {
        let started = Instant::now();
        loop {
            let shown = self.shown();
            if let Some(at) = shown[self.seen..].find(text) {
                let from = self.seen + at + text.len();
                if let Some(length) = shown[from..].find("\r\n") {
                    self.seen = from + length;
                    return shown[from..self.seen].to_owned();
                }
            }
            assert!(
                started.elapsed() < PATIENCE,
                "no `{text}` is shown: {shown}"
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Puts the job aside by a key; returns when the shell reads again, and takes what was typed too early
    /// for nothing.
    pub(crate) async fn stop_job(&mut self) {
        self.enter(STOP);
        self.until_shows("Stopped").await;
        self.command("echo shell ag\"\"ain");
        self.until_shows("shell again").await;
    }

    /// Returns when the shell reads again.
    pub(crate) async fn until_prompt(&self) {
        eventually("the shell reads", || async {
            self.shown()[self.seen..].ends_with("\n> ")
        })
        .await;
    }

    /// The status of the last command.
    pub(crate) async fn status(&mut self) -> String {
        self.command("echo st\"\"atus $?");
        self.until_shows("status ").await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It leads a session: its end hangs up all that is in it.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// A field of what `/proc` says about the process, from its state on; `-` when it is gone.
fn field(pid: Pid, number: usize) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
    let field = fields.and_then(|fields| fields.split(' ').nth(number));
    field.unwrap_or("-").to_owned()
}

pub(crate) async fn until_state(pid: Pid, is: impl Fn(char) -> bool) {
    eventually("the state of the command", || async {
        is(field(pid, 0).chars().next().unwrap_or('-'))
    })
    .await;
}

/// Returns when the group of this command has the terminal, and the command has been continued.
pub(crate) async fn until_in_front(command: Pid) {
    eventually("the command has the terminal", || async {
        field(command, 5) == command.to_string()
    })
    .await;
    until_state(command, |state| state == 'S').await;
}
