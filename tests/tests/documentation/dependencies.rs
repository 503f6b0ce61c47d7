//! What the crates depend on, and whether they do.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{files, root};

#[test]
fn every_dependency_is_named_in_the_code() {
    let cargo = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&cargo.stdout).unwrap();
    let mut unused = String::new();
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let code: String = files(manifest.parent().unwrap(), "rs")
            .iter()
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap();
            let name = dependency["rename"]
                .as_str()
                .unwrap_or(name)
                .replace('-', "_");
            if !names(&code, &name) {
                writeln!(unused, "{}: {name}", package["name"]).unwrap();
            }
        }
    }
    assert!(unused.is_empty(), "not used:\n{unused}");
}

/// Whether the word is there, and not a part of another.
fn names(code: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        !is_part(before.chars().next_back()) && !is_part(after.chars().next())
    })
}
