//! `dlock run` in a terminal, under a shell with job control.

use lock_tests::eventually;
use lock_tests::servers::{RedisServer, Server};

use crate::pty::{INTERRUPT, Terminal, until_state};
use crate::support::{Place, pids};

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

#[tokio::test]
async fn a_wait_for_the_store_says_why_in_a_terminal() {
    let server = RedisServer::start().await;
    server.kill().await;
    let mut place = Place::files();
    place.environment = vec![("REDIS_URL", server.url())];
    let mut terminal = Terminal::open(&place).await;
    terminal.command("$DLOCK run job:one --wait 1h -- true");
    eventually("the line is shown", || async {
        let shown = terminal.shown();
        shown.contains("waiting for the store: ") && shown.contains("refused")
    })
    .await;
    terminal.enter(INTERRUPT);
    assert_eq!(terminal.status().await, "130");
}
