//! What the documentation of the tests says of them.

use std::fs;
use std::path::Path;

/// All sources below a directory.
fn sources(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "target" {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_tests_that_the_documentation_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut all = String::new();
    for directory in ["tests", "lock-core", "lock-tower"] {
        sources(&root.join(directory), &mut all);
    }
    let documented = include_str!("../README.md");
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
