//! Locks that are kept for longer than their commands run, and such as several hold.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use futures_util::future::join_all;
use lock_tests::eventually;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::support::{Place, pids, text, until_gone};

/// How long locks are kept here: longer than `dlock` takes to start on a busy machine.
const KEPT: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_lock_is_kept_for_at_least_so_long_after_its_command() {
    for place in Place::all().await {
        let began = Instant::now();
        let words = [
            "run",
            "job:one",
            "--at-least",
            "3s",
            "--",
            "sh",
            "-c",
            "touch ran; exit 3",
        ];
        let job = tokio::spawn(place.dlock(&words).output());
        let ran = place.directory.path().join("ran");
        eventually("the command has run", || async { ran.exists() }).await;
        // Where the store itself keeps it, `dlock` has ended or is about to.
        let held = place.run(&["--wait", "0", "--", "true"]).await;
        assert_eq!(held.status.code(), Some(75), "{}", text(&held.stderr));
        let next = place.run(&["--", "true"]).await;
        assert!(next.status.success(), "{}", text(&next.stderr));
        assert!(began.elapsed() >= KEPT);
        let job = job.await.unwrap().unwrap();
        assert_eq!(job.status.code(), Some(3));
        assert_eq!(text(&job.stderr), "");
    }
}

#[tokio::test]
async fn a_dlock_that_is_stopped_while_it_keeps_a_lock_frees_it() {
    for place in [Place::files(), Place::postgres().await] {
        let running = place.start(&["--at-least", "10min"], "echo $$").await;
        until_gone(&pids(&running.first)).await;
        let held = place.run(&["--wait", "0", "--", "true"]).await;
        assert_eq!(held.status.code(), Some(75));
        running.signal(Signal::TERM);
        let (status, said) = running.ended().await;
        assert_eq!(status.signal(), Some(15));
        assert!(said.contains("job:one is free, before"), "{said}");
        let free = place.run(&["--wait", "5s", "--", "true"]).await;
        assert!(free.status.success(), "{}", text(&free.stderr));
    }
}

#[tokio::test]
async fn a_store_that_keeps_a_lock_does_so_when_its_dlock_was_killed() {
    for place in [Place::redis().await, Place::table().await] {
        let ended = place.run(&["--at-least", "10min", "--", "true"]).await;
        assert!(ended.status.success(), "it need not stay");
        let killed = place
            .start(
                &["--permits", "1", "--at-least", "10min"],
                "echo $$; read line",
            )
            .await;
        killed.signal(Signal::KILL);
        assert_eq!(killed.ended().await.0.signal(), Some(9));
        for permits in [&[][..], &["--permits", "1"]] {
            let words = [&["--wait", "0"], permits, &["--", "true"]].concat();
            let held = place.run(&words).await;
            assert_eq!(held.status.code(), Some(75), "{}", text(&held.stderr));
        }
        let holder = place.output(&["holder", "job:one", "--json"]).await;
        let holder: Value = serde_json::from_slice(&holder.stdout).unwrap();
        assert!(holder["until"].is_string(), "{holder}");
        let said = place.output(&["holder", "job:one"]).await;
        assert!(
            text(&said.stdout).starts_with("job:one is kept closed for 9m"),
            "{said:?}"
        );
    }
}

#[tokio::test]
async fn a_command_that_was_told_to_end_is_not_followed_by_a_wait() {
    let place = Place::files();
    let script = "trap 'exit 3' TERM; echo $$; while :; do sleep 0.05; done";
    let running = place.start(&["--at-least", "10min"], script).await;
    running.signal(Signal::TERM);
    let (status, said) = running.ended().await;
    assert_eq!(status.code(), Some(3));
    assert!(said.contains("job:one is free, before"), "{said}");
    let free = place.run(&["--wait", "0", "--", "true"]).await;
    assert!(free.status.success(), "{}", text(&free.stderr));
}

#[tokio::test]
async fn a_hangup_by_which_a_command_reads_its_settings_again_ends_no_wait() {
    let place = Place::files();
    let script = "trap 'echo reloaded' HUP; echo $$; until [ -e go ]; do sleep 0.05; done";
    let mut running = place.start(&["--at-least", "10min"], script).await;
    let command = pids(&running.first);
    running.signal(Signal::HUP);
    assert_eq!(running.line().await.as_deref(), Some("reloaded"));
    std::fs::write(place.directory.path().join("go"), "").unwrap();
    until_gone(&command).await;
    let held = place.run(&["--wait", "1s", "--", "true"]).await;
    assert_eq!(held.status.code(), Some(75), "{}", text(&held.stderr));
    // Now it is meant for `dlock`.
    running.signal(Signal::HUP);
    let (status, said) = running.ended().await;
    assert_eq!(status.signal(), Some(1));
    assert!(said.contains("job:one is free, before"), "{said}");
}

#[tokio::test]
async fn a_command_that_a_hangup_has_ended_is_not_followed_by_a_wait() {
    let place = Place::files();
    let script = "echo $$; exec sleep 600";
    let running = place.start(&["--at-least", "10min"], script).await;
    running.signal(Signal::HUP);
    assert_eq!(running.ended().await.0.signal(), Some(1));
}

#[tokio::test]
async fn so_many_commands_as_there_are_permits_run_together() {
    for place in Place::all().await {
        let permits = ["--permits", "2"];
        let script = "echo $LOCK_NAME; read line";
        let mut one = place.start(&permits, script).await;
        let other = place.start(&permits, script).await;
        let mut slots = [&*one.first, &*other.first];
        slots.sort_unstable();
        assert_eq!(slots, ["job:one#1", "job:one#2"]);
        let third = ["--wait", "0", "--permits", "2", "--", "true"];
        let held = place.run(&third).await;
        assert_eq!(held.status.code(), Some(75));
        let said = text(&held.stderr);
        assert!(
            said.contains("all 2 permits of job:one are taken"),
            "{said}"
        );
        let holders = place
            .output(&["holder", "job:one", "--permits", "3", "--json"])
            .await;
        let holders: Value = serde_json::from_slice(&holders.stdout).unwrap();
        let is_held = |slot: &Value| (slot["name"].clone(), slot["holder"].is_object());
        let holders: Vec<_> = holders.as_array().unwrap().iter().map(is_held).collect();
        let slot = |number| Value::from(format!("job:one#{number}"));
        assert_eq!(
            holders,
            [(slot(1), true), (slot(2), true), (slot(3), false)]
        );

        one.say("go\n").await;
        assert!(one.ended().await.0.success());
        assert!(place.run(&third).await.status.success());
        // Another lock than that without permits.
        assert!(
            place
                .run(&["--wait", "0", "--", "true"])
                .await
                .status
                .success()
        );
        drop(other);
    }
}

#[tokio::test]
async fn times_and_numbers_that_cannot_be_are_wrong_usage() {
    let place = Place::files();
    for options in [
        &["--at-least", "2s", "--max-hold", "1s"][..],
        &["--at-least", "8d"],
        &["--permits", "0"],
        &["--permits", "257"],
        &["--shared", "--permits", "2"],
        &["--at-least", "1s", "--shared"],
    ] {
        let words = [options, &["--", "echo", "ran"]].concat();
        let output = place.run(&words).await;
        assert_eq!(output.status.code(), Some(64), "{options:?}");
        assert_eq!(text(&output.stdout), "");
        assert_ne!(text(&output.stderr), "");
    }
}

/// Three machines start a job that is over in a moment, with timers that differ by some tenths of a second.
async fn one_run_each_tick(place: Place) {
    const TICKS: u32 = 4;
    const TICK: Duration = Duration::from_secs(5);
    const MACHINES: u32 = 3;
    const APART: Duration = Duration::from_millis(300);
    let job = "run job:one --skip --at-least 3500ms -- sh -c";
    let words: Vec<_> = (job.split(' '))
        .chain(["echo $LOCK_FENCING_TOKEN >> runs"])
        .collect();
    let start = Instant::now();
    let times =
        (0..TICKS).flat_map(|tick| (0..MACHINES).map(move |late| TICK * tick + APART * late));
    let started = times.map(async |time| {
        sleep_until(start + time).await;
        place.output(&words).await
    });
    let mut skipped = 0;
    for ended in join_all(started).await {
        let said = text(&ended.stderr);
        assert!(ended.status.success(), "{said}");
        skipped += u32::from(said.contains("skipped: job:one is "));
    }
    let runs = std::fs::read_to_string(place.directory.path().join("runs")).unwrap();
    let tokens: Vec<u64> = runs.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(tokens.len(), usize::try_from(TICKS).unwrap(), "{runs}");
    assert!(tokens.is_sorted_by(|one, next| one < next), "{runs}");
    assert_eq!(skipped, (MACHINES - 1) * TICKS);
}

#[tokio::test]
async fn three_machines_run_a_job_once_each_tick_by_redis() {
    one_run_each_tick(Place::redis().await).await;
}

#[tokio::test]
async fn three_machines_run_a_job_once_each_tick_by_postgres() {
    one_run_each_tick(Place::postgres().await).await;
}

#[tokio::test]
async fn three_machines_run_a_job_once_each_tick_by_a_table() {
    one_run_each_tick(Place::table().await).await;
}

#[tokio::test]
async fn three_crontabs_of_one_machine_run_a_job_once_each_tick() {
    one_run_each_tick(Place::files()).await;
}
