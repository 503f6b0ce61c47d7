//! Names from arbitrary values: no two fillings give one name.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::collections::HashSet;

use lock_core::{LockName, LockTemplate};
use proptest::prelude::*;

/// Values as users have them, and as attackers do: `:` and `%` are what could alias another lock.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9:%~._@+-]{1,12}",
        "(%|%2|%3A|%25|:|~|a){1,8}",
        "\\PC{1,20}",
        any::<String>().prop_filter("not empty", |value| !value.is_empty()),
        // Around the limit, where values begin to be shortened, with one byte of difference.
        (60_usize..110, "[ab:]").prop_map(|(len, last)| "x".repeat(len) + &last),
    ]
}

fn fill(template: &str, values: &[&str]) -> LockName {
    let template: LockTemplate = template.parse().unwrap();
    let names = ["a", "b"].into_iter();
    template.fill(names.zip(values)).unwrap()
}

/// Every text of the characters that mean something in a name, or look as if they did.
fn odd(longest: usize) -> Vec<String> {
    const CHARACTERS: [&str; 12] = [
        "a", "A", "%", "2", "5", ":", "~", "/", "\u{e9}", "e\u{301}", "\0", " ",
    ];
    let (mut all, mut last) = (Vec::new(), vec![String::new()]);
    for _ in 0..longest {
        let longer = last
            .iter()
            .flat_map(|text| CHARACTERS.map(|c| format!("{text}{c}")));
        last = longer.collect();
        all.extend_from_slice(&last);
    }
    all
}

/// Pairs of values at random are too few to meet those that would come to one name.
#[test]
fn odd_values_have_names_of_their_own_by_the_hundred_thousand() {
    let one: LockTemplate = "order:process:<a>".parse().unwrap();
    let two: LockTemplate = "account:transfer:<a>:<b>".parse().unwrap();
    let mut names = HashSet::new();
    let mut add = |name: LockName| assert!(names.insert(name.clone()), "{name} twice");
    let texts = odd(4);
    let (short, long) = (odd(2), odd(1));
    for text in &texts {
        add(one.fill([("a", text)]).unwrap());
    }
    for a in &short {
        for b in &short {
            add(two.fill([("a", a), ("b", b)]).unwrap());
        }
    }
    // Around the length at which a value is shortened, with one that is odd at each place.
    for length in 60..110 {
        for at in 0..length {
            for odd in &long {
                let text = format!("{}{odd}{}", "x".repeat(at), "x".repeat(length - at));
                add(one.fill([("a", &text)]).unwrap());
            }
        }
    }
    assert!(names.len() > 97_000, "{}", names.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn different_values_give_different_names(one in value(), other in value()) {
        let names = [&one, &other].map(|value| fill("order:process:<a>", &[value]));
        prop_assert_eq!(names[0] == names[1], one == other);
    }

    #[test]
    fn different_pairs_of_values_give_different_names(
        one in (value(), value()),
        other in (value(), value()),
    ) {
        let names = [&one, &other].map(|(a, b)| fill("account:transfer:<a>:<b>", &[a, b]));
        prop_assert_eq!(names[0] == names[1], one == other);
        // A part of one is never a part of the other's neighbour.
        let swapped = fill("account:transfer:<a>:<b>", &[&one.1, &one.0]);
        prop_assert_eq!(swapped == names[0], one.0 == one.1);
    }

    #[test]
    fn a_name_reads_back_as_it_was_written(value in value()) {
        let name = fill("order:process:<a>", &[&value]);
        prop_assert!(name.as_str().len() <= 100);
        prop_assert_eq!(name.to_string().parse::<LockName>().unwrap(), name.clone());
        prop_assert_eq!(LockName::new("order", "process", &value).unwrap(), name);
    }

    #[test]
    fn hashed_values_show_nothing_and_differ(one in value(), other in value()) {
        let names = [&one, &other].map(|value| fill("user:login:<a:hashed>", &[value]));
        prop_assert_eq!(names[0] == names[1], one == other);
        prop_assert_eq!(names[0].as_str().len(), names[1].as_str().len());
    }

    #[test]
    fn any_text_is_a_name_or_refused(text in any::<String>()) {
        match text.parse::<LockName>() {
            Ok(name) => prop_assert_eq!(name.as_str(), text),
            Err(error) => prop_assert!(error.is_invalid_name()),
        }
    }
}
