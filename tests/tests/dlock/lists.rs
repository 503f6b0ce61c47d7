//! `dlock list` where there are many, where its reader leaves, and where locks are kept.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::support::{PATIENCE, Place, Running, text};

async fn hold(place: &Place, name: &str) -> Running {
    let words = ["run", name, "--", "sh", "-c", "echo held; read line"];
    Running::spawn(place.dlock(&words)).await
}

#[tokio::test]
async fn those_that_are_held_longest_are_shown_and_the_others_counted() {
    for place in [Place::files(), Place::table().await, Place::redis().await] {
        let mut holders = Vec::new();
        let mut keys = Vec::new();
        for number in 0..5 {
            holders.push(hold(&place, &format!("job:n{number}")).await);
            let listed = place.output(&["list", "--json"]).await;
            let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
            let listed = listed["locks"].as_array().unwrap();
            let new = listed.iter().map(|lock| lock["key"].to_string());
            keys.extend(new.filter(|key| !keys.contains(key)).collect::<Vec<_>>());
        }
        for limit in 0..=5 {
            let count = limit.to_string();
            let listed = place.output(&["list", "--json", "--limit", &count]).await;
            let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
            assert_eq!(listed["complete"], limit == 5, "{listed}");
            let listed = listed["locks"].as_array().unwrap();
            let shown: Vec<_> = listed.iter().map(|lock| lock["key"].to_string()).collect();
            assert_eq!(shown, keys[..limit], "{limit}");
        }
        let table = place.output(&["list", "--limit", "2"]).await;
        assert_eq!(text(&table.stderr), "dlock: 3 more: --limit shows them\n");
        for mut holder in holders {
            holder.say("go\n").await;
            assert!(holder.ended().await.0.success());
        }
    }
}

#[tokio::test]
async fn a_reader_that_leaves_ends_what_is_watched() {
    let place = Place::files();
    for words in [
        &["list", "--watch"][..],
        &["list", "--watch", "--json"],
        &["list", "--json"],
        &["list"],
        &["doctor"],
        &["completions", "bash"],
        &["man"],
        &["help", "run"],
    ] {
        let mut dlock = place.dlock(words);
        let dlock = dlock.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = dlock.spawn().unwrap();
        let mut output = BufReader::with_capacity(1, process.stdout.take().unwrap());
        if words.contains(&"--watch") {
            let mut line = String::new();
            let first = output.read_line(&mut line);
            timeout(PATIENCE, first).await.expect("it lists").unwrap();
        }
        drop(output);
        let ended = timeout(PATIENCE, process.wait_with_output()).await;
        let ended = ended.expect("it ends").unwrap();
        assert_eq!(ended.status.code(), Some(0), "{words:?}: {ended:?}");
        assert_eq!(text(&ended.stderr), "", "{words:?}");
    }
}

#[tokio::test]
async fn a_lock_that_is_kept_is_told_from_one_that_is_held() {
    for place in [Place::table().await, Place::redis().await] {
        let output = place.run(&["--at-least", "1h", "--", "true"]).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let table = text(&place.output(&["list"]).await.stdout);
        assert!(table.contains("kept 59m"), "{table}");
        assert!(!table.contains("exclusive"), "{table}");
    }
}
