//! What is left of a test: nothing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use lock_tests::eventually;
use lock_tests::servers::{Lan, PostgresServer, Server, descendants, lives};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{connect, number};

#[tokio::test]
async fn a_server_answers_and_leaves_nothing_behind() {
    let server = PostgresServer::start().await;
    let mut connection = connect(&server.url()).await;
    assert_eq!(number(&mut connection, "SELECT 1::bigint").await, 1);
    let (directory, processes) = (server.daemon().directory().to_owned(), server.processes());
    assert!(processes.len() > 3 && directory.is_dir());
    let shared_memory = std::fs::read_to_string(server.data().join("postmaster.pid")).unwrap();
    let shared_memory = shared_memory
        .lines()
        .nth(6)
        .unwrap()
        .split_whitespace()
        .next_back();
    let shared_memory = shared_memory.unwrap().to_owned();
    assert!(segments().contains(&shared_memory));
    drop(server);
    assert!(!directory.exists());
    assert!(processes.into_iter().all(|pid| !lives(pid)));
    assert!(!segments().contains(&shared_memory));
}

/// The ids of all System V shared memory.
fn segments() -> Vec<String> {
    let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let ids = segments
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1));
    ids.map(str::to_owned).collect()
}

/// What the next test starts, itself in another process, to be killed.
#[allow(clippy::print_stdout, reason = "the other test reads it")]
async fn wait_to_be_killed() {
    let lan = Lan::new().await;
    let frozen = PostgresServer::start().await;
    let other = PostgresServer::options().inside(lan.left()).start().await;
    frozen.freeze().await;
    println!(
        "ready {} {} {}",
        frozen.daemon().directory().display(),
        other.daemon().directory().display(),
        lan.left().name()
    );
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_test_leaves_no_process_no_directory_and_no_namespace() {
    if std::env::var_os("WAIT_TO_BE_KILLED").is_some() {
        return wait_to_be_killed().await;
    }
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "ending::a_killed_test_leaves_no_process_no_directory_and_no_namespace",
        ])
        .env("WAIT_TO_BE_KILLED", "yes")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(test.stdout.take().unwrap()).lines();
    let ready = lines
        .map(Result::unwrap)
        .find(|line| line.contains("ready "));
    let words = ready.expect("it starts its servers");
    let words: Vec<_> = words.split("ready ").nth(1).unwrap().split(' ').collect();
    let left = [
        words[0].to_owned(),
        words[1].to_owned(),
        format!("/run/netns/{}", words[2]),
    ];
    assert!(left.iter().all(|path| Path::new(path).exists()), "{left:?}");
    let pid = Pid::from_raw(test.id().cast_signed()).unwrap();
    let processes = descendants(pid);
    // Three guardians, two servers.
    assert!(processes.len() > 10, "{processes:?}");
    kill_process(pid, Signal::KILL).unwrap();
    test.wait().unwrap();
    eventually("nothing is left", || async {
        !processes.iter().any(|pid| lives(*pid))
            && !left.iter().any(|path| Path::new(path).exists())
    })
    .await;
}
