//! The lock is lost while the command runs.

use lock_tests::eventually;
use lock_tests::servers::{Server, lives};
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::sleep;

use crate::support::{Place, pids, text, until_gone};

/// Says its number and that of a child, and ends by no signal but SIGKILL; neither does the child.
const STUBBORN: &str = "trap '' TERM; sleep 600 & echo $$ $!; wait; sleep 600";

#[tokio::test]
async fn a_session_that_was_ended_stops_the_command_with_70() {
    let place = Place::postgres().await;
    let running = place.start(&[], "sleep 600 & echo $$ $!; wait").await;
    let processes = pids(&running.first);
    place.end_sessions().await;
    let (status, said) = running.ended().await;
    assert_eq!(status.code(), Some(70), "{said}");
    assert!(said.contains("job:one was lost (the connection"), "{said}");
    until_gone(&processes).await;
}

#[tokio::test]
async fn a_server_that_was_killed_stops_the_command_with_70() {
    let place = Place::postgres().await;
    let running = place
        .start(
            &[],
            "trap 'echo asked >> asked; exit 0' TERM; echo started; while :; do sleep 0.05; done",
        )
        .await;
    place.postgres.as_ref().unwrap().kill().await;
    let (status, said) = running.ended().await;
    // Whatever the command says of itself: what it did last may not have been alone.
    assert_eq!(status.code(), Some(70), "{said}");
    let asked = std::fs::read_to_string(place.directory.path().join("asked"));
    assert_eq!(asked.unwrap(), "asked\n", "it was asked to end once");
}

#[tokio::test]
async fn a_key_that_was_deleted_stops_the_command_with_70() {
    let place = Place::redis().await;
    let running = place.start(&[], "echo started; sleep 600").await;
    let server = place.redis.as_ref().unwrap();
    let keys: Vec<String> = server.ask(&["KEYS", "lock:{b*}:v1-*"]).await.unwrap();
    assert_eq!(keys.len(), 1);
    let deleted: u32 = server.ask(&["DEL", &keys[0]]).await.unwrap();
    assert_eq!(deleted, 1);
    let (status, said) = running.ended().await;
    assert_eq!(status.code(), Some(70), "{said}");
    assert!(
        said.contains("job:one was lost (the store no longer has it"),
        "{said}"
    );
}

#[tokio::test]
async fn what_does_not_end_by_sigterm_is_killed_after_the_grace() {
    let place = Place::postgres().await;
    let running = place.start(&["--grace", "300ms"], STUBBORN).await;
    let processes = pids(&running.first);
    place.end_sessions().await;
    sleep(Duration::from_millis(100)).await;
    let (status, said) = running.ended().await;
    assert_eq!(status.code(), Some(70), "{said}");
    until_gone(&processes).await;
}

#[tokio::test]
async fn a_child_that_outlives_its_stopped_command_is_killed_after_the_grace() {
    let place = Place::postgres().await;
    // The command itself ends immediately.
    let script = "(trap '' TERM; sleep 600 & echo $!; wait; sleep 600) & wait";
    let running = place.start(&["--grace", "300ms"], script).await;
    let processes = pids(&running.first);
    place.end_sessions().await;
    let (status, _) = running.ended().await;
    assert_eq!(status.code(), Some(70));
    until_gone(&processes).await;
}

#[tokio::test]
async fn max_hold_stops_the_command_with_70() {
    for place in Place::all().await {
        let running = place
            .start(&["--max-hold", "300ms"], "sleep 600 & echo $$ $!; wait")
            .await;
        let processes = pids(&running.first);
        let (status, said) = running.ended().await;
        assert_eq!(status.code(), Some(70), "{said}");
        assert!(said.contains("as long as --max-hold allows"), "{said}");
        until_gone(&processes).await;
    }
}

#[tokio::test]
async fn a_lock_that_is_lost_before_the_command_starts_starts_none() {
    let place = Place::files();
    for shared in [&[][..], &["--shared"]] {
        let command = ["--max-hold", "1us", "--", "touch", "ran"];
        let output = place.run(&[shared, &command].concat()).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(70), "{said}");
        assert!(said.contains("the command is not started"), "{said}");
        assert!(!place.directory.path().join("ran").exists());
    }
}

#[tokio::test]
async fn a_frozen_dlock_that_lost_its_lock_stops_the_command_when_it_goes_on() {
    let place = Place::postgres().await;
    let running = place.start(&[], "sleep 600 & echo $$ $!; wait").await;
    let processes = pids(&running.first);
    running.signal(Signal::STOP);
    // As the server does when the lease is over.
    place.end_sessions().await;
    let other = place.run(&["--wait", "5s", "--", "echo", "other"]).await;
    assert_eq!(text(&other.stdout), "other\n", "the lock is free");
    assert!(
        processes.iter().all(|pid| lives(*pid)),
        "which is what tokens are for"
    );
    running.signal(Signal::CONT);
    let (status, said) = running.ended().await;
    assert_eq!(status.code(), Some(70), "{said}");
    until_gone(&processes).await;
}

#[tokio::test]
async fn a_dlock_frozen_for_longer_than_its_lease_has_lost_the_lock() {
    let place = Place::redis().await;
    let running = place.start(&[], "sleep 600 & echo $$ $!; wait").await;
    let processes = pids(&running.first);
    running.signal(Signal::STOP);
    // By its lease, of 30 s.
    let other = place.run(&["--wait", "45s", "--", "echo", "other"]).await;
    assert_eq!(text(&other.stdout), "other\n");
    running.signal(Signal::CONT);
    let (status, said) = running.ended().await;
    assert_eq!(status.code(), Some(70), "{said}");
    until_gone(&processes).await;
}

#[tokio::test]
async fn a_command_stopped_for_the_loss_while_it_was_frozen_is_ended_too() {
    let place = Place::postgres().await;
    let running = place.start(&[], "echo $$; sleep 600").await;
    let command = pids(&running.first);
    rustix::process::kill_process(command[0], Signal::STOP).unwrap();
    // It is not ended by that, and the lock is held on.
    let held = place.run(&["--wait", "0", "--", "true"]).await;
    assert_eq!(held.status.code(), Some(75));
    place.end_sessions().await;
    assert_eq!(running.ended().await.0.code(), Some(70));
    eventually("the command ends", || async { !lives(command[0]) }).await;
}
