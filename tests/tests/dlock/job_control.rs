//! `dlock run` in a terminal, where more than a shell is above it: scripts, other runs, or nothing.

use lock_tests::eventually;
use rustix::process::{Pid, Signal, kill_process};

use crate::pty::{INTERRUPT, STOP, Terminal, until_in_front, until_state};
use crate::support::{Place, pids};

/// Reads twice: after the first line it has the terminal.
const READS: &str = "sh -c 'echo re\"\"ady $$; read a; echo g\"\"ot $a; read b; echo th\"\"en $b'";

/// A file with a script that runs something with the terminal, and then goes on.
fn script(place: &Place) -> String {
    let path = place.directory.path().join("script");
    let lines = format!("$DLOCK run job:one -- {READS}\necho ne\"\"xt\n");
    std::fs::write(&path, lines).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Returns when the command has the terminal; gives its number.
async fn until_it_reads(terminal: &mut Terminal) -> Pid {
    let command = pids(&terminal.until_shows("ready").await)[0];
    terminal.enter("one\n");
    assert_eq!(terminal.until_shows("got").await, " one");
    command
}

/// Stops what reads by a key and continues it, twice.
async fn is_stopped_and_goes_on(terminal: &mut Terminal) {
    let command = until_it_reads(terminal).await;
    for _ in 0..2 {
        terminal.stop_job().await;
        until_state(command, |state| state == 'T').await;
        terminal.command("fg");
        // What is typed before is the shell's.
        until_in_front(command).await;
    }
    terminal.enter("two\n");
    assert_eq!(terminal.until_shows("then").await, " two");
}

#[tokio::test]
async fn a_script_is_stopped_with_the_command_that_it_runs() {
    let place = Place::files();
    let script = script(&place);
    for shell in ["bash", "sh"] {
        let mut terminal = Terminal::open(&place).await;
        terminal.command(&format!("{shell} {script}"));
        is_stopped_and_goes_on(&mut terminal).await;
        terminal.until_shows("next").await;
        assert_eq!(terminal.status().await, "0");
    }
}

#[tokio::test]
async fn a_run_in_a_run_has_the_terminal_and_is_stopped_with_it() {
    let place = Place::files();
    let script = script(&place);
    for inner in [
        format!("$DLOCK run job:three -- {READS}"),
        format!("bash {script}"),
    ] {
        let mut terminal = Terminal::open(&place).await;
        terminal.command(&format!("$DLOCK run job:two -- {inner}"));
        is_stopped_and_goes_on(&mut terminal).await;
        assert_eq!(terminal.status().await, "0");
    }
}

#[tokio::test]
async fn an_interrupt_that_the_command_alone_was_sent_ends_its_script() {
    let place = Place::files();
    let script = script(&place);
    for run in [
        format!("bash {script}"),
        format!("sh {script}"),
        format!("$DLOCK run job:two -- sh {script}"),
    ] {
        let mut terminal = Terminal::open(&place).await;
        terminal.command(&run);
        until_it_reads(&mut terminal).await;
        terminal.enter(INTERRUPT);
        terminal.until_prompt().await;
        assert_eq!(terminal.status().await, "130", "{run}");
        assert!(!terminal.shown().contains("next"), "{run}");
    }
}

/// As in a container that was started with a terminal.
#[tokio::test]
async fn without_a_shell_above_no_key_puts_a_command_aside() {
    let place = Place::files();
    let script = script(&place);
    for program in [
        format!("exec $DLOCK run job:one -- {READS}"),
        format!("sh {script}; exit 0"),
        format!("exec $DLOCK run job:two -- $DLOCK run job:three -- {READS}"),
        format!("$DLOCK run job:two -- sh {script}; exit 0"),
    ] {
        let mut terminal = Terminal::run(&place, &["sh", "-c", &program]);
        terminal.until_shows("ready").await;
        // Once before it has the terminal, and once with it.
        terminal.enter(STOP);
        terminal.enter("one\n");
        assert_eq!(terminal.until_shows("got").await, " one", "{program}");
        terminal.enter(STOP);
        terminal.enter("two\n");
        assert_eq!(terminal.until_shows("then").await, " two", "{program}");
    }
}

#[tokio::test]
async fn a_command_that_was_frozen_is_a_job_that_was_put_aside() {
    let place = Place::files();
    let mut terminal = Terminal::open(&place).await;
    terminal.command(&format!("$DLOCK run job:one -- {READS}"));
    let command = until_it_reads(&mut terminal).await;
    kill_process(command, Signal::STOP).unwrap();
    terminal.until_shows("Stopped").await;
    terminal.command("fg");
    until_in_front(command).await;
    terminal.enter("two\n");
    assert_eq!(terminal.until_shows("then").await, " two");
    assert_eq!(terminal.status().await, "0");
}

/// As cpulimit(1) does.
#[tokio::test]
async fn a_command_that_is_frozen_from_elsewhere_is_held_a_lock_for() {
    let place = Place::postgres().await;
    let mut terminal = Terminal::open(&place).await;
    for is_lost in [false, true] {
        terminal.command("$DLOCK run job:one -- sh -c 'echo st\"\"arted $$; sleep 600; exit 7'");
        let command = pids(&terminal.until_shows("started").await)[0];
        kill_process(command, Signal::STOP).unwrap();
        until_state(command, |state| state == 'T').await;
        if is_lost {
            place.end_sessions().await;
            terminal.until_shows("job:one was lost").await;
            assert_eq!(terminal.status().await, "70");
        } else {
            kill_process(command, Signal::CONT).unwrap();
            until_state(command, |state| state == 'S').await;
            kill_process(command, Signal::KILL).unwrap();
            assert_eq!(terminal.status().await, "137");
        }
    }
}

#[tokio::test]
async fn a_command_that_sets_the_terminal_while_it_cleans_up_is_not_stopped_by_it() {
    let place = Place::postgres().await;
    let mut terminal = Terminal::open(&place).await;
    terminal.command(
        "$DLOCK run job:one --grace 1h -- bash -c 'trap \"stty sane; echo cl\\\"\\\"eaned; exit\" TERM; \
         echo st\"\"arted; while :; do sleep 0.05; done'",
    );
    terminal.until_shows("started").await;
    place.end_sessions().await;
    terminal.until_shows("cleaned").await;
    assert_eq!(terminal.status().await, "70");
}

#[tokio::test]
async fn a_key_that_stops_does_not_stop_the_ending() {
    let place = Place::postgres().await;
    let mut terminal = Terminal::open(&place).await;
    terminal.command(
        "$DLOCK run job:one --grace 1h -- bash -c 'trap \"echo as\\\"\\\"ked; read b; echo cl\\\"\\\"eaned \\$b; exit\" TERM; \
         echo st\"\"arted; read a; echo g\"\"ot \\$a; while :; do sleep 0.05; done'",
    );
    terminal.until_shows("started").await;
    terminal.enter("one\n");
    terminal.until_shows("got").await;
    place.end_sessions().await;
    terminal.until_shows("asked").await;
    terminal.enter(STOP);
    terminal.enter("two\n");
    assert_eq!(terminal.until_shows("cleaned").await, " two");
    assert_eq!(terminal.status().await, "70");
}

/// Its shell goes on, and is not above it.
#[tokio::test]
async fn a_command_that_wants_a_terminal_which_no_shell_gives_is_hung_up() {
    let place = Place::files();
    let mut terminal = Terminal::open(&place).await;
    for (trap, ends) in [("", "is sent SIGHUP"), ("trap \"\" HUP; ", "and is killed")] {
        terminal.command(&format!(
            "(S=$BASHPID; $DLOCK run job:one -- sh -c '{trap}echo st\"\"arted; \
             while kill -0 $1 2>&-; do sleep 0.01; done; read a < /dev/tty' sh $S &)"
        ));
        terminal.until_shows("started").await;
        terminal.until_shows(ends).await;
        let free = place.run(&["--wait", "30s", "--", "true"]).await;
        assert_eq!(free.status.code(), Some(0));
    }
}

/// The shell of the command has passed the terminal on, and is ended together with what has it.
#[tokio::test]
async fn a_terminal_that_a_dead_job_has_is_taken_back() {
    let place = Place::postgres().await;
    let program = "$DLOCK run job:one --grace 1h -- bash -mc 'sh -c \"echo started; exec sleep 600\"; true'; \
                   echo ended; read a; echo got $a";
    let mut terminal = Terminal::run(&place, &["sh", "-c", program]);
    terminal.until_shows("started").await;
    place.end_sessions().await;
    terminal.until_shows("ended").await;
    terminal.enter("one\n");
    assert_eq!(terminal.until_shows("got").await, " one");
}

#[tokio::test]
async fn a_job_in_the_background_does_not_write_what_it_waits_for() {
    let place = Place::files();
    let hold = async |name: &str| {
        let words = ["run", name, "--", "sh", "-c", "echo held; read line"];
        crate::support::Running::spawn(place.dlock(&words)).await
    };
    let _holders = [hold("job:one").await, hold("job:two").await];
    let mut terminal = Terminal::open(&place).await;
    terminal.command("$DLOCK run job:one -- true &");
    terminal.command("echo shell ag\"\"ain");
    terminal.until_shows("shell again").await;
    // The second began later, and waits as long before it writes.
    terminal.command("$DLOCK run job:two -- true");
    let waits_for = |name: &str| terminal.shown().contains(&format!("waiting for {name}"));
    eventually("the line is shown", || async { waits_for("job:two") }).await;
    assert!(!waits_for("job:one"), "{}", terminal.shown());
    terminal.enter(INTERRUPT);
    terminal.command("fg");
    eventually("the line is shown", || async { waits_for("job:one") }).await;
}
