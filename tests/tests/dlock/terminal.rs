//! `dlock run` in a terminal, under a shell with job control.

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

use crate::support::{PATIENCE, Place, pids};

const INTERRUPT: &str = "\x03";
const STOP: &str = "\x1a";

/// A shell in a terminal of its own. What is typed is shown as well: what a command is to say is written
/// with `""` in it, so that the line that was typed is not taken for it.
struct Terminal {
    master: File,
    shell: Child,
    shown: Arc<Mutex<String>>,
    /// Up to where it was looked at.
    seen: usize,
}

impl Terminal {
    async fn open(place: &Place) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = name.to_str().unwrap();
        let slave = || Stdio::from(File::options().read(true).write(true).open(path).unwrap());
        let dlock = place.dlock::<&str>(&[]);
        let dlock = dlock.as_std();
        // The terminal controls the shell.
        let shell = Command::new("setsid")
            .args(["--ctty", "bash", "--norc", "--noprofile", "-i"])
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
        let mut terminal = Self {
            master,
            shell,
            shown,
            seen: 0,
        };
        terminal.command("echo shell re\"\"ads");
        terminal.until_shows("shell reads").await;
        terminal
    }

    fn shown(&self) -> String {
        self.shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn enter(&self, text: &str) {
        (&self.master).write_all(text.as_bytes()).unwrap();
    }

    fn command(&self, line: &str) {
        self.enter(&format!("{line}\n"));
    }

    /// Returns when it shows this, after what was waited for before, and gives what follows in that line.
    async fn until_shows(&mut self, text: &str) -> String {
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
    async fn stop_job(&mut self) {
        self.enter(STOP);
        self.until_shows("Stopped").await;
        self.command("echo shell ag\"\"ain");
        self.until_shows("shell again").await;
    }

    /// The status of the last command.
    async fn status(&mut self) -> String {
        self.command("echo st\"\"atus $?");
        self.until_shows("status ").await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The shell leads a session: its end hangs up all that is in it.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn state(pid: Pid) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.unwrap_or('-')
}

async fn until_state(pid: Pid, is: impl Fn(char) -> bool) {
    eventually("the state of the command", || async { is(state(pid)) }).await;
}

#[tokio::test]
async fn an_interrupt_that_is_typed_is_the_commands() {
    let place = Place::files();
    let mut terminal = Terminal::open(&place).await;
    terminal.command(
        "$DLOCK run job:one -- sh -c 'trap \"exit 3\" INT; echo re\"\"ady; while :; do sleep 0.05; done'",
    );
    terminal.until_shows("ready").await;
    terminal.enter(INTERRUPT);
    assert_eq!(terminal.status().await, "3");
}

#[tokio::test]
async fn an_interrupt_ends_a_command_and_the_loop_of_the_shell() {
    let place = Place::files();
    let mut terminal = Terminal::open(&place).await;
    terminal.command(
        "for i in 1 2; do $DLOCK run job:one -- sh -c 'echo st\"\"arted; exec sleep 600'; done",
    );
    terminal.until_shows("started").await;
    terminal.enter(INTERRUPT);
    assert_eq!(terminal.status().await, "130");
    assert_eq!(terminal.shown().matches("started").count(), 1);
}

#[tokio::test]
async fn a_job_is_stopped_by_a_key_and_goes_on_with_fg() {
    let place = Place::files();
    let mut terminal = Terminal::open(&place).await;
    terminal.command("$DLOCK run job:one -- sh -c 'echo st\"\"arted $$; exec sleep 600'");
    let command = pids(&terminal.until_shows("started").await)[0];
    for _ in 0..2 {
        terminal.stop_job().await;
        until_state(command, |state| state == 'T').await;
        // It holds the lock all the same.
        let other = place.run(&["--wait", "0", "true"]).await;
        assert_eq!(other.status.code(), Some(75));
        terminal.command("fg");
        until_state(command, |state| state == 'S').await;
    }
    terminal.enter(INTERRUPT);
    assert_eq!(terminal.status().await, "130");
    until_state(command, |state| state == '-').await;
}

#[tokio::test]
async fn a_command_reads_from_the_terminal_and_the_shell_after_it() {
    let place = Place::files();
    let mut terminal = Terminal::open(&place).await;
    terminal.command(
        "$DLOCK run job:one -- sh -c 'echo re\"\"ady; read a; echo g\"\"ot $a; read b; echo th\"\"en $b'",
    );
    terminal.until_shows("ready").await;
    terminal.enter("one\n");
    assert_eq!(terminal.until_shows("got").await, " one");
    // It is stopped while it has the terminal, and has it again.
    terminal.stop_job().await;
    terminal.command("fg");
    terminal.until_shows("fg").await;
    terminal.enter("two\n");
    assert_eq!(terminal.until_shows("then").await, " two");
    assert_eq!(terminal.status().await, "0");
}

#[tokio::test]
async fn a_command_in_the_background_that_reads_waits_for_fg() {
    let place = Place::files();
    let mut terminal = Terminal::open(&place).await;
    terminal
        .command("$DLOCK run job:one -- sh -c 'echo st\"\"arted $$; read a; echo g\"\"ot $a' &");
    let command = pids(&terminal.until_shows("started").await)[0];
    until_state(command, |state| state == 'T').await;
    terminal.command("echo shell ag\"\"ain");
    terminal.until_shows("shell again").await;
    terminal.command("fg");
    until_state(command, |state| state == 'S').await;
    terminal.enter("one\n");
    assert_eq!(terminal.until_shows("got").await, " one");
    assert_eq!(terminal.status().await, "0");
}

#[tokio::test]
async fn a_command_in_a_pipeline_leaves_the_terminal_to_the_others() {
    let place = Place::files();
    let mut terminal = Terminal::open(&place).await;
    // The second reads from the terminal, and the command does not.
    terminal.command(
        "$DLOCK run job:one -- echo one | sh -c 'read a; echo re\"\"ady; read b < /dev/tty; echo b\"\"oth $a $b'",
    );
    terminal.until_shows("ready").await;
    terminal.enter("two\n");
    assert_eq!(terminal.until_shows("both").await, " one two");
    // The command reads from the terminal.
    terminal.command("$DLOCK run job:one -- sh -c 'echo re\"\"ady; read a; echo g\"\"ot $a' | cat");
    terminal.until_shows("ready").await;
    terminal.enter("three\n");
    assert_eq!(terminal.until_shows("got").await, " three");
    assert_eq!(terminal.status().await, "0");
}

#[tokio::test]
async fn a_wait_in_a_terminal_says_for_whom() {
    let mut place = Place::files();
    let instance = "web-3:4711".to_owned();
    place.environment.push(("LOCK_INSTANCE", instance));
    let mut terminal = Terminal::open(&place).await;
    for is_stopped in [false, true] {
        let mut holder = place.start(&[], "echo held; read line").await;
        terminal.command("$DLOCK run job:one -- sh -c 'echo \"\"; echo r\"\"an'");
        eventually("the line is shown", || async {
            let shown = terminal.shown();
            shown[terminal.seen..].contains("waiting for job:one, held by web-3:4711 for ")
        })
        .await;
        // It is a job as any other.
        if is_stopped {
            terminal.stop_job().await;
        }
        holder.say("go\n").await;
        assert!(holder.ended().await.0.success());
        if is_stopped {
            terminal.command("fg");
        }
        terminal.until_shows("ran").await;
    }
}
