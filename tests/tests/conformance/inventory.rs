//! No backend misses a case, and no case the list.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use lock_tests::{
    Case, DirectLeaseTableStore, FileStore, GrantedStore, LeaseTableStore, MemoryStore,
    PollingFileStore, RedisClusterStore, RedisSentinelStore, RedisStore, Store,
};

/// The backends of the library; `every_backend_runs_every_case` fails for one that is not in `main.rs`.
const BACKENDS: &[&str] = &[
    "memory",
    "file",
    "file_polling",
    "postgres",
    "postgres_granted",
    "lease_table",
    "lease_table_direct",
    "redis",
    "redis_cluster",
    "redis_sentinel",
];

const CASES: &[Case] = lock_tests::conformance!(@cases @inventory []);

/// Promises of the list which are checked elsewhere: properties of names, which no backend sees.
const ELSEWHERE: [u32; 2] = [13, 15];

#[test]
fn every_backend_runs_every_case() {
    let list = Command::new(env::current_exe().unwrap())
        .args(["--list", "--format", "terse"])
        .output();
    let list = String::from_utf8(list.unwrap().stdout).unwrap();
    let tests: BTreeSet<_> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    for backend in BACKENDS {
        for Case { topic, name, .. } in CASES {
            let test = format!("{backend}::{topic}::{name}");
            assert!(tests.contains(test.as_str()), "{test} is missing");
        }
    }
    let cases = tests
        .iter()
        .filter(|test| !test.starts_with("inventory::"))
        .count();
    assert_eq!(
        cases,
        BACKENDS.len() * CASES.len(),
        "a backend is missing in `BACKENDS`"
    );
}

#[test]
fn every_case_that_is_written_is_listed() {
    let mut written = BTreeSet::new();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cases");
    for file in fs::read_dir(directory).unwrap() {
        let file = file.unwrap().path();
        let topic = file.file_stem().unwrap().to_str().unwrap().to_owned();
        for line in fs::read_to_string(&file).unwrap().lines() {
            if let Some(case) = line.strip_prefix("pub async fn ") {
                let name = case.split(['<', '(']).next().unwrap();
                written.insert((topic.clone(), name.to_owned()));
            }
        }
    }
    let listed = CASES
        .iter()
        .map(|case| (case.topic.to_owned(), case.name.to_owned()));
    assert_eq!(listed.collect::<BTreeSet<_>>(), written);
    assert!(!written.is_empty());
}

#[test]
fn every_promise_has_a_case() {
    for promise in (1..=32).filter(|promise| !ELSEWHERE.contains(promise)) {
        assert!(
            CASES.iter().any(|case| case.promises.contains(&promise)),
            "{promise} has none"
        );
    }
}

fn exceptions_exist<S: Store>() {
    for (name, reason) in S::NOT_FOR {
        assert!(
            CASES.iter().any(|case| case.name == *name),
            "there is no case `{name}`"
        );
        assert!(!reason.is_empty(), "why does `{name}` not apply?");
    }
}

#[test]
fn what_does_not_apply_to_a_backend_is_a_case() {
    exceptions_exist::<MemoryStore>();
    exceptions_exist::<FileStore>();
    exceptions_exist::<PollingFileStore>();
    exceptions_exist::<GrantedStore>();
    exceptions_exist::<LeaseTableStore>();
    exceptions_exist::<DirectLeaseTableStore>();
    exceptions_exist::<RedisStore>();
    exceptions_exist::<RedisClusterStore>();
    exceptions_exist::<RedisSentinelStore>();
}
