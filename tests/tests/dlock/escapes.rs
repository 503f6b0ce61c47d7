//! What could keep a command running without its lock: a message that is not read, and a group or session of its own.

use std::fs::Permissions;
use std::io::{PipeReader, Write, pipe};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use lock_tests::eventually;
use lock_tests::servers::{descendants, lives};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use crate::support::{PATIENCE, Place, Running, pids, text, until_gone};

/// A pipe that takes nothing more. The end that could be read is given as well.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    for length in [4096, 1] {
        while writer.write(&vec![b'.'; length]).is_ok() {}
    }
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer.into())
}

#[tokio::test]
async fn a_message_that_is_not_read_does_not_delay_the_stopping() {
    let place = Place::postgres().await;
    for option in ["--grace=10s", "-vv"] {
        let (_unread, stderr) = full_pipe();
        let words = ["run", "job:one", option, "--", "sh", "-c"];
        let script = "echo $$ > pid; exec sleep 600";
        let mut dlock = place.dlock(&[&words[..], &[script]].concat());
        let mut dlock = dlock.stderr(stderr).spawn().unwrap();
        let pid = place.directory.path().join("pid");
        let written = || std::fs::read_to_string(&pid).unwrap_or_default();
        eventually("it has started", || async { written().ends_with('\n') }).await;
        let command = pids(&written());
        place.end_sessions().await;
        let lost = Instant::now();
        until_gone(&command).await;
        assert!(lost.elapsed() < Duration::from_secs(10), "{option}");
        let status = timeout(PATIENCE, dlock.wait()).await.expect("it ends");
        assert_eq!(status.unwrap().code(), Some(70), "{option}");
        std::fs::remove_file(&pid).unwrap();
    }
}

/// Starts processes in groups and sessions of their own, which have done this first, and gives their numbers.
async fn escaped(place: &Place, options: &[&str], first: &str) -> (Running, Vec<Pid>) {
    let script = format!(
        "set -m
        job=\"{first} echo \\$\\$ >> pids; exec sleep 600\"
        setsid sh -c \"$job\" &
        (setsid sh -c \"$job\" &)
        timeout 600 sh -c \"$job\" &
        sh -c \"$job\" &
        until [ $(wc -l < pids) = 4 ]; do sleep 0.01; done 2> errors
        echo $$ $(cat pids)
        wait"
    );
    let command = ["--", "bash", "-c", &script];
    let words = [&["run", "job:one"], options, &command].concat();
    let running = Running::spawn(place.dlock(&words)).await;
    let processes = pids(&running.first);
    assert_eq!(processes.len(), 5);
    (running, processes)
}

#[tokio::test]
async fn a_loss_ends_what_has_left_the_group() {
    for first in ["", "trap '' TERM;"] {
        let place = Place::postgres().await;
        let (running, processes) = escaped(&place, &["--grace", "500ms"], first).await;
        place.end_sessions().await;
        let (status, said) = running.ended().await;
        assert_eq!(status.code(), Some(70), "{said}");
        // It has waited for that.
        assert!(!processes.iter().any(|pid| lives(*pid)), "{first}");
    }
}

#[tokio::test]
async fn max_hold_ends_what_has_left_the_group() {
    let place = Place::files();
    let (running, processes) = escaped(&place, &["--max-hold", "3s"], "").await;
    assert_eq!(running.ended().await.0.code(), Some(70));
    assert!(!processes.iter().any(|pid| lives(*pid)));
}

#[tokio::test]
async fn the_end_of_a_command_ends_nothing_that_has_left_the_group() {
    let place = Place::files();
    let daemon = "(setsid sleep 600 >/dev/null 2>&1 & echo $!)";
    let running = place.start(&[], daemon).await;
    let left = pids(&running.first);
    assert!(running.ended().await.0.success());
    assert!(lives(left[0]));
    kill_process(left[0], Signal::KILL).unwrap();
}

/// A process that starts the next one in a session of its own, and ends.
#[tokio::test]
async fn what_starts_another_while_it_is_killed_does_not_get_away() {
    let place = Place::postgres().await;
    let chain = place.directory.path().join("chain");
    let chain = chain.to_str().unwrap();
    std::fs::write(chain, "trap '' TERM\nsleep 0.002\nsetsid sh $0 &\n").unwrap();
    let script = format!("sh {chain}; echo started; sleep 600");
    let running = place.start(&["--grace", "100ms"], &script).await;
    let is_running = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut lines = processes
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
        lines.any(|line| line.starts_with("sh\0") && line.contains(chain) && !line.contains("-c"))
    };
    eventually("the chain runs", || async { is_running() }).await;
    place.end_sessions().await;
    assert_eq!(running.ended().await.0.code(), Some(70));
    eventually("the chain ends", || async { !is_running() }).await;
}

/// Without SIGTERM it would be there for all of the grace.
#[tokio::test]
async fn what_is_started_outside_of_the_group_after_sigterm_is_asked_to_end_too() {
    let place = Place::postgres().await;
    let script = "trap 'setsid sleep 600 & exit' TERM; echo started; while :; do sleep 0.05; done";
    let running = place.start(&["--grace", "1h"], script).await;
    place.end_sessions().await;
    assert_eq!(running.ended().await.0.code(), Some(70));
}

/// timeout(1) is in a group of its own.
#[tokio::test]
async fn what_cleans_up_under_a_timeout_is_left_to_it() {
    let place = Place::postgres().await;
    let script = "trap 'timeout 60 sh -c \"sleep 0.3; echo done > cleaned\"; exit' TERM; echo started; \
                  while :; do sleep 0.05; done";
    let running = place.start(&["--grace", "1h"], script).await;
    place.end_sessions().await;
    assert_eq!(running.ended().await.0.code(), Some(70));
    let cleaned = std::fs::read_to_string(place.directory.path().join("cleaned"));
    assert_eq!(cleaned.unwrap(), "done\n");
}

/// The command gains the rights of root by a program that has them, as sudo(8).
#[tokio::test]
async fn a_command_with_more_rights_is_said_to_run_on() {
    if !geteuid().is_root() {
        // Only root can give a program such rights.
        return;
    }
    let place = Place::files();
    let directory = place.directory.path();
    let found = Command::new("sh")
        .args(["-c", "command -v setpriv"])
        .output()
        .await;
    let gains = directory.join("gains");
    std::fs::copy(text(&found.unwrap().stdout).trim(), &gains).unwrap();
    std::fs::set_permissions(&gains, Permissions::from_mode(0o4755)).unwrap();
    std::fs::set_permissions(directory, Permissions::from_mode(0o1777)).unwrap();
    let words = [
        "run",
        "job:one",
        "--max-hold",
        "1s",
        "--grace",
        "100ms",
        "--",
    ];
    let command = ["./gains", "--reuid=0", "sleep", "4"];
    let drops = ["--reuid=65534", "--clear-groups"];
    let output = place
        .through("setpriv", &drops, &[&words[..], &command].concat())
        .output();
    let output = timeout(PATIENCE, output).await.expect("it ends").unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(70), "{said}");
    assert!(
        said.contains("the command has more rights than dlock"),
        "{said}"
    );
}

#[tokio::test]
async fn a_loss_leaves_what_was_there_before_dlock() {
    let place = Place::postgres().await;
    let shell = "sleep 600 >/dev/null 2>&1 & echo $!; exec \"$@\"";
    let words = [
        "run",
        "job:one",
        "--",
        "sh",
        "-c",
        "echo $$; exec sleep 600",
    ];
    let mut running = Running::spawn(place.through("sh", &["-c", shell, "sh"], &words)).await;
    let before = pids(&running.first)[0];
    let command = pids(&running.line().await.unwrap());
    place.end_sessions().await;
    assert_eq!(running.ended().await.0.code(), Some(70));
    until_gone(&command).await;
    assert!(lives(before));
    kill_process(before, Signal::KILL).unwrap();
}

#[tokio::test]
async fn the_watchdog_holds_no_file_of_the_caller() {
    let place = Place::files();
    let shell = "exec 7> seven 19> nineteen; exec \"$@\"";
    let words = [
        "run",
        "job:one",
        "--",
        "sh",
        "-c",
        "echo $$; read line; exit 0",
    ];
    let running = Running::spawn(place.through("bash", &["-c", shell, "bash"], &words)).await;
    let command = pids(&running.first)[0];
    let files = |pid: Pid| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut open: Vec<_> = open.map(|entry| entry.unwrap().file_name()).collect();
        open.sort();
        open
    };
    let watchdog = descendants(running.pid()).into_iter();
    let watchdog = watchdog.filter(|pid| *pid != command).collect::<Vec<_>>();
    assert_eq!(watchdog.len(), 1);
    eventually("it has closed them", || async {
        files(watchdog[0]) == ["0", "1", "2"]
    })
    .await;
    // The command has them, as without `dlock`.
    let of_command = files(command);
    for number in ["7", "19"] {
        assert!(of_command.contains(&number.into()), "{of_command:?}");
    }
    assert!(running.ended().await.0.success());
}

#[tokio::test]
async fn nothing_that_has_ended_is_left_while_a_lock_is_kept() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let place = Place::files();
        // What it leaves behind ends later.
        let script = "sleep 0.3 >/dev/null 2>&1 & echo $$";
        let running = place.start(&["--at-least", "10min"], script).await;
        let dlock = running.pid();
        eventually("no process is below it, ended or not", || async {
            descendants(dlock).is_empty()
        })
        .await;
        let held = place.run(&["--wait", "0", "--", "true"]).await;
        assert_eq!(held.status.code(), Some(75));
        running.signal(signal);
        assert_eq!(running.ended().await.0.signal(), Some(signal.as_raw()));
        let free = place.run(&["--wait", "0", "--", "true"]).await;
        assert!(free.status.success());
    }
}

#[tokio::test]
async fn the_first_process_of_a_container_ends_with_the_status_of_a_signal() {
    let place = Place::files();
    let unshare = ["--pid", "--fork", "--mount-proc", "--kill-child=KILL"];
    for (name, status) in [("HUP", 129), ("INT", 130), ("TERM", 143), ("KILL", 137)] {
        let script = format!("kill -{name} $$");
        let words = ["run", "job:one", "--", "sh", "-c", &script];
        let ended = place.through("unshare", &unshare, &words).status();
        let ended = timeout(PATIENCE, ended).await.expect("it ends").unwrap();
        assert_eq!(ended.code(), Some(status), "{name}: {ended}");
    }
}
