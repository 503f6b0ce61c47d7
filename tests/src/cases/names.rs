//! Every name that is accepted is a lock of its own.

use lock_core::{LockName, LockTemplate};

use super::take;
use crate::{Harness, is_held};

fn with_id(bed_name: &LockName, len: usize, last: char) -> LockName {
    // Unique by its beginning, so that stores can be shared.
    let mut text = format!("{bed_name}-");
    text.push_str(&"x".repeat(len - text.len() - 1));
    text.push(last);
    text.parse().unwrap()
}

/// Short and long, escaped and shortened, jobs and ids of several parts.
pub async fn every_name_that_is_accepted_works(harness: Harness) {
    let (here, there) = (harness.client().await, harness.client().await);
    let unique = harness.name();
    let id = unique.as_str().rsplit(':').next().unwrap();
    let names = [
        // The least that a name can be, alone in its store where stores are not shared.
        "a:b:c".parse().unwrap(),
        with_id(&unique, 99, 'x'),
        with_id(&unique, 100, 'x'),
        LockName::new("test", "escaped", format_args!("{id} a/b:c%d~\u{e9}\0\n")).unwrap(),
        LockName::new("test", "shortened", id.repeat(100)).unwrap(),
        LockName::job(&format!("test-{id}")).unwrap(),
        format!("test:several:{id}:b:C").parse().unwrap(),
    ];
    assert_eq!(
        (names[1].as_str().len(), names[2].as_str().len()),
        (99, 100)
    );
    for name in &names {
        let guard = take(&here, name).await;
        assert!(is_held(&there, name).await, "{name}");
        assert_eq!(guard.name(), name);
        guard.fencing_token().await.unwrap();
        guard.release().await.unwrap();
    }
    let guards = here.acquire_all(&names, super::PATIENCE).await.unwrap();
    assert_eq!(guards.len(), names.len());
}

/// Almost the same is not the same.
pub async fn names_that_differ_in_the_last_byte_or_in_case_are_different(harness: Harness) {
    let (here, there) = (harness.client().await, harness.client().await);
    let unique = harness.name();
    let names = [
        with_id(&unique, 100, 'x'),
        with_id(&unique, 100, 'y'),
        with_id(&unique, 100, 'X'),
    ];
    let mut guards = Vec::new();
    for (client, name) in [&here, &there, &here].into_iter().zip(&names) {
        guards.push(take(client, name).await);
    }
    assert_eq!(guards.len(), 3);
}

/// A lock is held under the name that another process makes of the same value.
pub async fn a_name_is_made_the_same_in_every_process(harness: Harness) {
    let (client, mut child) = (harness.client().await, harness.child().await);
    let template: LockTemplate = "test:shared:<id>".parse().unwrap();
    let unique = harness.name();
    let values = [
        unique.to_string(),
        format!("{unique} with/what:is%escaped~\u{e9}"),
        format!("{unique} {}", "long".repeat(1_000)),
        format!("{unique} {}!", "long".repeat(1_000)),
    ];
    let mut names = Vec::new();
    for value in &values {
        let name = template.fill([("id", value)]).unwrap();
        assert_eq!(
            child.ask(&format!("name test shared {value}")).await,
            format!("name {name}")
        );
        let guard = take(&client, &name).await;
        assert_eq!(child.ask(&format!("acquire {name} 0")).await, "contended");
        guard.release().await.unwrap();
        names.push(name);
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), values.len());
}
