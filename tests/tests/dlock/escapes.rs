//! What could keep a command running without its lock: a message that is not read, and a group or session of its own.

use std::io::{PipeReader, Write, pipe};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use lock_tests::eventually;
use lock_tests::servers::{descendants, lives};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, timeout};

use crate::support::{PATIENCE, Place, Running, pids, until_gone};

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
