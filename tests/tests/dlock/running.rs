//! A command under a lock: its status, its streams, its environment, and who gets the lock.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use lock_tests::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{PATIENCE, Place, text};

#[tokio::test]
async fn the_status_of_the_command_is_that_of_dlock() {
    let place = Place::files();
    for (script, status) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        // As of a shell, and without a core dump of `dlock`.
        ("kill -KILL $$", 137),
        ("kill -QUIT $$", 131),
        ("kill -USR1 $$", 138),
    ] {
        let output = place.run(&["--", "sh", "-c", script]).await;
        assert_eq!(output.status.code(), Some(status), "{script}");
        assert_eq!(text(&output.stderr), "", "{script}");
    }
    for (script, signal) in [
        ("kill -TERM $$", 15),
        ("kill -INT $$", 2),
        ("kill -HUP $$", 1),
    ] {
        let output = place.run(&["--", "sh", "-c", script]).await;
        assert_eq!(output.status.signal(), Some(signal), "{script}");
    }
    let missing = place.run(&["--", "./there-is-no-such-command"]).await;
    assert_eq!(missing.status.code(), Some(127));
    assert!(text(&missing.stderr).contains("./there-is-no-such-command"));
    let folder = place.run(&["--", "/"]).await;
    assert_eq!(folder.status.code(), Some(126));
}

#[tokio::test]
async fn wrong_usage_ends_with_64_and_help_with_0() {
    let place = Place::files();
    for words in [
        &["run", "job:one"][..],
        &["run", "not a name", "true"],
        &["run", "job:one", "--wait", "soon", "--", "true"],
        &["run", "--no-such-option", "job:one", "true"],
        &["holder", "nonsense"],
        &["list", "--url", "file:x", "--url-file", "y"],
        &[],
    ] {
        let output = place.output(words).await;
        assert_eq!(output.status.code(), Some(64), "{words:?}");
        assert_ne!(text(&output.stderr), "", "{words:?}");
    }
    for words in [
        &["--help"][..],
        &["run", "--help"],
        &["--version"],
        &["man"],
        &["man", "run"],
        &["completions", "bash"],
    ] {
        let output = place.output(words).await;
        assert!(output.status.success(), "{words:?}");
        assert_ne!(text(&output.stdout), "", "{words:?}");
    }
}

#[tokio::test]
async fn a_lock_that_is_held_ends_with_75_and_a_skip_with_0() {
    for place in Place::all().await {
        let mut holder = place.start(&[], "echo held; read line").await;
        for (options, status) in [
            (&["--wait", "0"][..], 75),
            (&["--wait", "0.2s"][..], 75),
            (&["--skip"][..], 0),
            (&["--skip", "--wait", "200ms"][..], 0),
        ] {
            let words = [options, &["--", "echo", "ran"]].concat();
            let output = place.run(&words).await;
            assert_eq!(output.status.code(), Some(status), "{options:?}");
            assert_eq!(text(&output.stdout), "", "it did not run: {options:?}");
            let said = text(&output.stderr);
            assert!(said.contains("job:one is held by "), "{said}");
        }
        // Another name is free, and this one when the holder ends.
        assert!(
            place
                .output(&["run", "job:two", "--wait", "0", "true"])
                .await
                .status
                .success()
        );
        holder.say("go\n").await;
        assert!(holder.ended().await.0.success());
        assert!(
            place
                .run(&["--wait", "0", "--", "true"])
                .await
                .status
                .success()
        );
    }
}

#[tokio::test]
async fn a_command_waits_for_the_one_before_it() {
    for place in Place::all().await {
        let mut holder = place
            .start(&[], "echo held; read line; echo first >> order")
            .await;
        let waiter = place
            .dlock(&["run", "job:one", "--", "sh", "-c", "echo second >> order"])
            .spawn();
        let mut waiter = waiter.unwrap();
        // It has come to wait, where the store tells that.
        if place.postgres.is_none() {
            eventually("the waiter waits", || async {
                let listed = place.output(&["list", "--json"]).await;
                text(&listed.stdout).contains("\"awaited\":true")
            })
            .await;
        }
        holder.say("go\n").await;
        assert!(holder.ended().await.0.success());
        assert!(
            timeout(PATIENCE, waiter.wait())
                .await
                .unwrap()
                .unwrap()
                .success()
        );
        let order = std::fs::read_to_string(place.directory.path().join("order"));
        assert_eq!(order.unwrap(), "first\nsecond\n");
    }
}

#[tokio::test]
async fn twenty_commands_that_count_in_a_file_lose_no_count() {
    for place in Place::all().await {
        std::fs::write(place.directory.path().join("count"), "0").unwrap();
        let count = "n=$(cat count); sleep 0.01; echo $((n + 1)) > count";
        let commands: Vec<_> = (0..20)
            .map(|_| {
                place
                    .dlock(&["run", "job:one", "--", "sh", "-c", count])
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut command in commands {
            let ended = timeout(PATIENCE, command.wait()).await.expect("it ends");
            assert!(ended.unwrap().success());
        }
        let count = std::fs::read_to_string(place.directory.path().join("count"));
        assert_eq!(count.unwrap().trim(), "20");
    }
}

#[tokio::test]
async fn a_command_knows_its_lock_and_a_token_that_grows() {
    for place in Place::all().await {
        let mut last = 0;
        for _ in 0..3 {
            let script = "echo $LOCK_NAME $LOCK_FENCING_TOKEN $DATABASE_URL$REDIS_URL$LOCK_DIR";
            let output = place.run(&["--", "sh", "-c", script]).await;
            let said = text(&output.stdout);
            let words: Vec<_> = said.split_whitespace().collect();
            let [name, token, store] = words[..] else {
                panic!("{said}")
            };
            assert_eq!(name, "job:one");
            assert_eq!(store, place.environment[0].1, "the rest is as it was");
            let token: u64 = token.parse().unwrap();
            assert!(token > last, "{token} after {last}");
            last = token;
            assert_eq!(text(&output.stderr), "");
        }
    }
}

#[tokio::test]
async fn a_command_that_uses_the_library_is_not_warned_of_what_it_was_given() {
    let place = Place::files();
    let inner = ["run", "job:two", "--", "true"];
    let dlock = place.dlock::<&str>(&[]);
    let program = dlock.as_std().get_program().to_owned();
    let outer = ["run", "job:one", "--"].map(Into::into).into_iter();
    let words: Vec<_> = outer
        .chain([program])
        .chain(inner.map(Into::into))
        .collect();
    let output = place.output(&words).await;
    assert!(output.status.success());
    assert_eq!(text(&output.stderr), "");
}

/// Bytes in which any loss or change shows.
fn pattern(block: u32) -> Vec<u8> {
    let mut word = block.wrapping_mul(2_654_435_761) | 1;
    let words = std::iter::repeat_with(|| {
        word ^= word << 13;
        word ^= word >> 17;
        word ^= word << 5;
        word.to_le_bytes()
    });
    words.take(1 << 14).flatten().collect()
}

#[tokio::test]
async fn a_hundred_megabytes_go_through_a_command_unchanged() {
    const BLOCKS: u32 = 1_600;
    let place = Place::files();
    let mut process = place.dlock(&["run", "job:one", "--", "cat"]);
    let mut process = process
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (
        process.stdin.take().unwrap(),
        process.stdout.take().unwrap(),
    );
    let writing = tokio::spawn(async move {
        for block in 0..BLOCKS {
            input.write_all(&pattern(block)).await.unwrap();
        }
    });
    let mut read = vec![0; 1 << 16];
    for block in 0..BLOCKS {
        output.read_exact(&mut read).await.unwrap();
        assert!(read == pattern(block), "block {block}");
    }
    assert_eq!(output.read(&mut read).await.unwrap(), 0);
    writing.await.unwrap();
    assert!(process.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_command_as_without_dlock() {
    let place = Place::files();
    let mut process = place.dlock(&["run", "job:one", "--", "yes"]);
    let mut process = process
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = process.stdout.take().unwrap();
    output.read_exact(&mut [0; 16]).await.unwrap();
    drop(output);
    let ended = timeout(PATIENCE, process.wait_with_output())
        .await
        .expect("it ends")
        .unwrap();
    // SIGPIPE, which the command has as any program has it.
    assert_eq!(ended.status.code(), Some(141));
    assert_eq!(text(&ended.stderr), "");
}

#[tokio::test]
async fn a_store_that_is_down_ends_with_69_and_one_that_is_wrong_with_78() {
    let place = Place::files();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    for url in [
        format!("redis://{address}"),
        format!("postgres://app@{address}/app"),
    ] {
        let output = place
            .output(&["run", "job:one", "--url", &url, "--", "echo", "ran"])
            .await;
        assert_eq!(output.status.code(), Some(69), "{url}");
        assert_eq!(text(&output.stdout), "");
    }
    for url in [
        "redis://host?no-such-option=1",
        "file:/dev/null",
        "mysql://host/db",
    ] {
        let output = place
            .output(&["run", "job:one", "--url", url, "--", "echo", "ran"])
            .await;
        assert_eq!(
            output.status.code(),
            Some(78),
            "{url}: {}",
            text(&output.stderr)
        );
        assert_eq!(text(&output.stdout), "");
    }
}

#[tokio::test]
async fn a_password_on_the_command_line_is_a_warning_and_in_a_file_it_is_none() {
    let place = Place::redis().await;
    let server = place.redis.as_ref().unwrap();
    let url = server.url_for("default:hunter2");
    let at_url = place
        .output(&["run", "job:one", "--url", &url, "--", "true"])
        .await;
    let said = text(&at_url.stderr);
    assert!(said.contains("warning: --url has a password"), "{said}");
    let file = place.directory.path().join("url");
    std::fs::write(&file, format!("{}\n", server.url())).unwrap();
    let file = file.to_str().unwrap();
    let in_file = place
        .output(&["run", "job:one", "--url-file", file, "--", "true"])
        .await;
    assert!(in_file.status.success());
    assert_eq!(text(&in_file.stderr), "");
    for output in [at_url, in_file] {
        assert!(!text(&output.stderr).contains("hunter2"));
    }
}
