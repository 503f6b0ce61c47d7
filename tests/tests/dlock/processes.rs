//! Which processes there are, and what becomes of them.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use lock_tests::eventually;
use lock_tests::servers::{descendants, lives};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, getpid, kill_process};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{PATIENCE, Place, Running, pids, text, until_gone};

#[tokio::test]
async fn nothing_runs_on_when_dlock_is_killed() {
    for place in Place::all().await {
        // A child, and one that nothing waits for, and one that ignores what it can.
        let script = "sleep 600 & a=$!; (trap '' HUP TERM; sleep 600) & echo $$ $a $!; wait";
        let running = place.start(&[], script).await;
        let processes = pids(&running.first);
        let of_dlock = descendants(running.pid());
        assert!(
            processes
                .iter()
                .all(|pid| lives(*pid) && of_dlock.contains(pid))
        );
        running.signal(Signal::KILL);
        until_gone(&processes).await;
        // The watchdog as well.
        until_gone(&of_dlock).await;
        assert_eq!(running.ended().await.0.signal(), Some(9));
    }
}

/// Before `dlock` knows its number: a kill in that moment reaches what the command has started as well.
#[tokio::test]
async fn the_command_tells_the_watchdog_itself_which_group_it_leads() {
    let (mut told, pipe) = std::io::pipe().unwrap();
    fcntl_setfd(&pipe, FdFlags::empty()).unwrap();
    let own = getpid().to_string();
    let number = pipe.as_raw_fd().to_string();
    let place = Place::files();
    let mut command = place.dlock(&["__run", &own, &number, "sleep", "600"]);
    let command = command.process_group(0).spawn();
    fcntl_setfd(&pipe, FdFlags::CLOEXEC).unwrap();
    drop(pipe);
    let mut command = command.unwrap();
    // To its end: the command itself does not have the pipe.
    let mut group = String::new();
    told.read_to_string(&mut group).unwrap();
    assert_eq!(group, format!("{}\n", command.id().unwrap()));
    command.kill().await.unwrap();
}

#[tokio::test]
async fn the_lock_of_a_killed_dlock_is_free_where_no_lease_keeps_it() {
    for place in [Place::files(), Place::postgres().await] {
        let running = place.start(&[], "echo $$; sleep 600").await;
        running.signal(Signal::KILL);
        assert!(
            place
                .run(&["--wait", "10s", "--", "true"])
                .await
                .status
                .success()
        );
        until_gone(&pids(&running.first)).await;
    }
}

#[tokio::test]
async fn signals_to_dlock_are_the_commands() {
    let place = Place::files();
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::TERM, "TERM"),
        (Signal::ALARM, "ALRM"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
    ] {
        let script =
            format!("trap 'echo {name}; exit 3' {name}; echo ready; while :; do sleep 0.05; done");
        let mut running = place.start(&[], &script).await;
        running.signal(signal);
        assert_eq!(running.line().await.as_deref(), Some(name));
        assert_eq!(running.ended().await.0.code(), Some(3), "{name}");
    }
}

#[tokio::test]
async fn a_signal_that_ends_the_command_ends_dlock_by_the_same() {
    let place = Place::files();
    let running = place.start(&[], "echo $$; exec sleep 600").await;
    let command = pids(&running.first);
    running.signal(Signal::TERM);
    assert_eq!(running.ended().await.0.signal(), Some(15));
    until_gone(&command).await;
}

#[tokio::test]
async fn a_wait_that_is_interrupted_leaves_nothing() {
    for place in Place::all().await {
        let mut holder = place.start(&[], "echo held; read line").await;
        let mut waiter = place.dlock(&["run", "job:one", "--", "echo", "ran"]);
        let waiter = waiter.stdout(Stdio::piped()).spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(waiter.id().unwrap().cast_signed()).unwrap();
        eventually("it has connected, and handles the signal", || async {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let caught = status
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))
                .unwrap();
            u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 1) != 0
        })
        .await;
        kill_process(pid, Signal::INT).unwrap();
        let ended = waiter.wait_with_output().await.unwrap();
        assert_eq!(ended.status.signal(), Some(2));
        assert!(ended.stdout.is_empty());
        holder.say("go\n").await;
        assert!(holder.ended().await.0.success());
        assert!(
            place
                .run(&["--wait", "2s", "--", "true"])
                .await
                .status
                .success()
        );
    }
}

#[tokio::test]
async fn what_a_command_leaves_running_goes_on_unlocked() {
    let place = Place::files();
    let script = "sleep 600 >/dev/null 2>&1 & echo $!";
    let running = place.start(&[], script).await;
    let left = pids(&running.first);
    assert!(running.ended().await.0.success());
    assert!(
        place
            .run(&["--wait", "0", "--", "true"])
            .await
            .status
            .success()
    );
    assert!(lives(left[0]));
    kill_process(left[0], Signal::KILL).unwrap();
}

#[tokio::test]
async fn no_process_of_dlock_is_left_when_it_has_ended() {
    let place = Place::files();
    let mut running = place.start(&[], "echo $$; read line").await;
    let of_dlock = descendants(running.pid());
    assert!(
        of_dlock.len() >= 2,
        "the command and the watchdog: {of_dlock:?}"
    );
    running.say("go\n").await;
    assert!(running.ended().await.0.success());
    until_gone(&of_dlock).await;
    assert!(
        !descendants(getpid())
            .iter()
            .any(|pid| of_dlock.contains(pid))
    );
}

#[tokio::test]
async fn what_nohup_had_ignored_stays_ignored() {
    let place = Place::files();
    let dlock = place.dlock(&[
        "run",
        "job:one",
        "--",
        "sh",
        "-c",
        "kill -HUP $$; echo alive",
    ]);
    let dlock = dlock.as_std();
    let mut nohup = Command::new("nohup");
    nohup.arg(dlock.get_program()).args(dlock.get_args());
    nohup.envs(
        dlock
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    nohup.current_dir(place.directory.path());
    let running = Running::spawn(nohup).await;
    assert_eq!(running.first, "alive");
    assert!(running.ended().await.0.success());
}

/// As where a container or a CI job is entered from outside: the group and the session that this process was
/// started in have no number in its namespace.
#[tokio::test]
async fn a_dlock_in_another_namespace_than_its_shell_runs_its_command() {
    let place = Place::files();
    // It is stopped once, and goes on.
    let script = "(sleep 0.3; kill -CONT $$) & kill -STOP $$; wait; echo went on; exit 7";
    let dlock = place.dlock(&["run", "job:one", "--", "sh", "-c", script]);
    let dlock = dlock.as_std();
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--pid", "--fork", "--kill-child=KILL"])
        // So that `dlock` is not the first process there.
        .args(["sh", "-c", "\"$@\"; exit $?", "sh"])
        .arg(dlock.get_program())
        .args(dlock.get_args())
        .envs(
            dlock
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(PATIENCE, unshare.output()).await;
    let output = output.expect("it ends").unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "went on\n");
}
