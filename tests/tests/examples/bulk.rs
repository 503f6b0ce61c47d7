//! The example `bulk`: processes that share a data set.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::path::Path;
use std::process::Stdio;

use futures_util::future::join_all;
use lock_tests::eventually;
use lock_tests::examples::program;
use tempfile::TempDir;
use tokio::process::{Child, Command};

const PARTS: usize = 200;

/// As many as there are below 2,000,000.
const PRIMES: u32 = 148_933;

fn start(program: &Path, directory: &Path) -> Child {
    Command::new(program)
        .arg(directory)
        .args([PARTS.to_string().as_str(), "3"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// How many parts this process did, and how many primes it found in all.
async fn outcome(process: Child) -> (usize, u32) {
    let output = process.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<u32> = said
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    let [done, parts, primes] = numbers[..] else {
        panic!("{said}");
    };
    assert_eq!(parts as usize, PARTS);
    (done as usize, primes)
}

fn results(directory: &Path) -> usize {
    let results = std::fs::read_dir(directory.join("results"));
    results.map_or(0, |results| {
        let names = results.map(|entry| entry.unwrap().path());
        names.filter(|name| name.extension().is_none()).count()
    })
}

#[tokio::test]
async fn each_part_is_done_once_by_three_processes() {
    let (program, directory) = (program("bulk"), TempDir::new().unwrap());
    let processes = [(); 3].map(|()| start(&program, directory.path()));
    let outcomes = join_all(processes.map(outcome)).await;
    let done: usize = outcomes.iter().map(|(done, _)| done).sum();
    assert_eq!(done, PARTS, "{outcomes:?}");
    for (done, primes) in outcomes {
        assert!(done > 0, "everybody does a share");
        assert_eq!(primes, PRIMES);
    }
    assert_eq!(results(directory.path()), PARTS);
}

#[tokio::test]
async fn the_parts_of_a_killed_process_are_done_by_the_others() {
    let (program, directory) = (program("bulk"), TempDir::new().unwrap());
    let [mut killed, one, other] = [(); 3].map(|()| start(&program, directory.path()));
    let under_way = || async { results(directory.path()) >= PARTS / 10 };
    eventually("some parts are done", under_way).await;
    killed.kill().await.unwrap();
    assert!(
        results(directory.path()) < PARTS,
        "it was killed in its work"
    );
    for (_, primes) in join_all([outcome(one), outcome(other)]).await {
        assert_eq!(primes, PRIMES);
    }
    assert_eq!(results(directory.path()), PARTS);
}
