//! Commands that hold a lock together, and such as hold it alone.

use lock_tests::eventually;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{PATIENCE, Place, Running, text};

/// Says which lock and token it was given, and runs until it has read a line.
const READ: &str = "echo $LOCK_NAME ${LOCK_FENCING_TOKEN-none}; read line";

/// Those whose locks can be read.
async fn places() -> Vec<Place> {
    vec![
        Place::files(),
        Place::postgres().await,
        Place::table().await,
        Place::redis().await,
    ]
}

/// Whether a try to read, which does not wait, is refused; what it said then.
async fn refused(place: &Place) -> Option<String> {
    let read = place.run(&["--shared", "--wait", "0", "--", "true"]).await;
    match read.status.code() {
        Some(75) => Some(text(&read.stderr)),
        status => {
            assert_eq!(status, Some(0), "{}", text(&read.stderr));
            None
        }
    }
}

#[tokio::test]
async fn commands_that_read_run_together_and_one_that_writes_runs_alone() {
    for place in places().await {
        let mut readers = [
            place.start(&["--shared"], READ).await,
            place.start(&["--shared"], READ).await,
        ];
        for reader in &readers {
            assert_eq!(reader.first, "job:one none");
        }
        let held = place.run(&["--wait", "0", "--", "true"]).await;
        assert_eq!(held.status.code(), Some(75));
        let said = text(&held.stderr);
        assert!(
            said.contains("job:one is held by ") && said.contains("shared with others that read"),
            "{said}"
        );
        let holder = place.output(&["holder", "job:one", "--json"]).await;
        let holder: Value = serde_json::from_slice(&holder.stdout).unwrap();
        assert_eq!(holder["mode"], "shared", "{holder}");
        let listed = place.output(&["list", "--json"]).await;
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let rows = listed["locks"].as_array().unwrap();
        // PostgreSQL does not tell readers from waiters.
        let is_told = place.postgres.is_none() || place.is_table();
        assert_eq!(rows.is_empty(), !is_told, "{listed}");
        assert!(rows.iter().all(|row| row["mode"] == "shared"), "{listed}");

        for reader in &mut readers {
            reader.say("go\n").await;
        }
        for reader in readers {
            assert!(reader.ended().await.0.success());
        }
        let mut writer = place.start(&["--wait", "30s"], READ).await;
        assert_ne!(writer.first, "job:one none");
        let said = refused(&place).await.expect("a writer holds it");
        assert!(!said.contains("shared"), "{said}");
        writer.say("go\n").await;
        assert!(writer.ended().await.0.success());
        let free = place
            .run(&["--shared", "--wait", "30s", "--", "true"])
            .await;
        assert!(free.status.success(), "{}", text(&free.stderr));
    }
}

#[tokio::test]
async fn a_command_that_waits_to_write_keeps_new_readers_out_until_it_is_killed() {
    for place in places().await {
        let mut reader = place.start(&["--shared"], READ).await;
        let words = ["run", "job:one", "--", "sh", "-c", READ];
        let writer = tokio::spawn(Running::spawn(place.dlock(&words)));
        eventually("the writer waits", || async {
            refused(&place).await.is_some()
        })
        .await;
        let said = refused(&place).await.expect("the writer waits");
        assert!(said.contains("is first"), "{said}");
        reader.say("go\n").await;
        assert!(reader.ended().await.0.success());
        let mut writer = tokio::time::timeout(PATIENCE, writer).await;
        let writer = writer.as_mut().expect("it is served").as_mut().unwrap();
        writer.say("go\n").await;

        // And one that is killed keeps no reader out for longer than its lease.
        let first = ["--shared", "--wait", "30s"];
        let reader = place.start(&first, READ).await;
        let waiting = place.dlock(&["run", "job:one", "--", "true"]).spawn();
        let mut waiting = waiting.unwrap();
        eventually("the writer waits", || async {
            refused(&place).await.is_some()
        })
        .await;
        waiting.kill().await.unwrap();
        let after = place
            .run(&["--shared", "--wait", "45s", "--", "true"])
            .await;
        assert!(after.status.success(), "{}", text(&after.stderr));
        drop(reader);
    }
}

#[tokio::test]
async fn a_reader_has_no_token_of_a_command_around_it() {
    let place = Place::files();
    let dlock = place_of_dlock(&place);
    let words = [
        "run",
        "job:outer",
        "--",
        &*dlock,
        "run",
        "job:one",
        "--shared",
        "--",
        "sh",
        "-c",
        "echo $LOCK_NAME ${LOCK_FENCING_TOKEN-none}",
    ];
    let output = place.output(&words).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "job:one none\n");
}

fn place_of_dlock(place: &Place) -> String {
    let command = place.dlock(&["run"]);
    command.as_std().get_program().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_reader_that_is_killed_is_gone_and_the_others_are_not() {
    let place = Place::files();
    let killed = place.start(&["--shared"], READ).await;
    let mut other = place.start(&["--shared"], READ).await;
    killed.signal(Signal::KILL);
    killed.ended().await;
    let held = place.run(&["--wait", "0", "--", "true"]).await;
    assert_eq!(held.status.code(), Some(75));
    other.say("go\n").await;
    assert!(other.ended().await.0.success());
    let free = place.run(&["--wait", "0", "--", "true"]).await;
    assert!(free.status.success(), "{}", text(&free.stderr));
}
