//! The tests that are named in the documentation of the tests.

use std::fs;

use crate::{files, root};

#[test]
fn the_tests_that_the_documentation_names_exist() {
    let all: String = ["tests", "lock-core", "lock-tower", "lock-idempotency"]
        .iter()
        .flat_map(|directory| files(&root().join(directory), "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let documented = include_str!("../../README.md");
    let names: Vec<_> = (documented.split('`').skip(1).step_by(2))
        .filter(|name| name.matches('_').count() >= 4)
        .filter(|name| {
            name.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
        .collect();
    assert!(names.len() > 50, "{}", names.len());
    // Some are made by macros, which are given the name.
    let is_there =
        |name: &str| all.contains(&format!("fn {name}(")) || all.contains(&format!("{name} "));
    let missing: Vec<_> = names.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
