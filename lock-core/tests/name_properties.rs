//! Two values never give one name, and every name that is made can be read again.

#![allow(clippy::unwrap_used, reason = "the helpers are part of the tests")]

use std::collections::BTreeSet;
use std::fmt::Display;

use lock_core::{LockName, LockTemplate};
use proptest::prelude::*;

fn template(text: &str) -> LockTemplate {
    LockTemplate::parse(text).unwrap()
}

fn one(text: &str, value: impl Display) -> String {
    template(text).fill([("a", value)]).unwrap().to_string()
}

fn two(text: &str, a: impl Display, b: impl Display) -> String {
    let values = [("a", &a as &dyn Display), ("b", &b)];
    template(text).fill(values).unwrap().to_string()
}

/// Every text of at most `len` characters, made of what could make two values collide.
fn texts(len: usize) -> Vec<String> {
    let mut all = Vec::new();
    let mut last = vec![String::new()];
    for _ in 0..len {
        last = last
            .iter()
            .flat_map(|text| "aA3:%~é<".chars().map(move |c| format!("{text}{c}")))
            .collect();
        all.extend_from_slice(&last);
    }
    all
}

#[test]
fn no_two_of_all_short_values_give_one_name() {
    let values = texts(4);
    let names: BTreeSet<String> = values.iter().map(|v| one("a:b:<a>", v)).collect();
    assert_eq!(names.len(), values.len());
    for text in ["a:b:<a>:<b>", "a:b:<a>-x:y-<b>", "a:b:<a>:3:<b>"] {
        let template = template(text);
        let values = texts(2);
        let names: BTreeSet<LockName> = values
            .iter()
            .flat_map(|a| values.iter().map(move |b| [("a", a), ("b", b)]))
            .map(|values| template.fill(values).unwrap())
            .collect();
        assert_eq!(names.len(), values.len() * values.len());
    }
}

#[test]
fn a_value_cannot_pass_for_a_shortened_or_hashed_one() {
    for text in ["a:b:<a>", "a:b:<a:hashed>"] {
        let name = one(text, "x".repeat(200));
        let forged = name.strip_prefix("a:b:").unwrap();
        assert_ne!(one("a:b:<a>", forged), name);
        assert_ne!(LockName::new("a", "b", forged).unwrap().as_str(), name);
    }
}

/// Values long and short, of all that is escaped and is not.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab:%~é]{1,6}",
        "[a-z]{1,150}",
        "[a/é]{20,120}",
        any::<String>().prop_filter("a value is not empty", |v| !v.is_empty()),
    ]
}

/// A value, and one that differs from it in one place.
fn neighbours() -> impl Strategy<Value = (String, String)> {
    (value(), any::<prop::sample::Index>(), any::<char>()).prop_map(|(value, at, c)| {
        let mut other: Vec<char> = value.chars().collect();
        let at = at.index(other.len());
        other[at] = c;
        (value, other.into_iter().collect())
    })
}

proptest! {
    #[test]
    fn one_value_gives_one_name((v, w) in neighbours()) {
        prop_assert_eq!(one("order:process:<a>", &v) == one("order:process:<a>", &w), v == w);
        let name = |v: &str| LockName::new("order", "process", v).unwrap();
        prop_assert_eq!(name(&v) == name(&w), v == w);
        prop_assert_eq!(one("a:b:<a:hashed>", &v) == one("a:b:<a:hashed>", &w), v == w);
    }

    #[test]
    fn two_values_give_one_name((v, w) in neighbours(), (x, y) in neighbours()) {
        let text = "order:process:<a>:<b>";
        prop_assert_eq!(two(text, &v, &x) == two(text, &w, &x), v == w);
        prop_assert_eq!(two(text, &x, &v) == two(text, &x, &w), v == w);
        prop_assert_eq!(two(text, &v, &x) == two(text, &w, &y), (&v, &x) == (&w, &y));
        prop_assert_eq!(two(text, &v, &x) == two(text, &x, &v), v == x);
    }

    #[test]
    fn every_name_that_is_made_can_be_parsed(v in value(), w in value()) {
        for name in [
            one("order:process:<a>", &v),
            one("order:process:v2-<a>.pdf", &v),
            one("job:rebuild:<a>", &v),
            one("job:rebuild-<a>-now", &v),
            one("order:process:<a:hashed>", &v),
            two("order:process:<a>:<b>", &v, &w),
            two("order:process:<a:hashed>-x:y-<b>", &v, &w),
            LockName::new("order", "process", &v).unwrap().to_string(),
        ] {
            prop_assert!(name.len() <= 100);
            prop_assert_eq!(name.parse::<LockName>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn any_text_is_a_name_or_an_error(text in "(?s)[ajob]{0,2}.{0,40}|(job|order:process):[a%~:A-Z0-9]{0,30}") {
        if let Ok(name) = text.parse::<LockName>() {
            prop_assert_eq!(name.as_str(), &text);
            prop_assert!(text.starts_with(name.label()));
        }
        if let Ok(template) = LockTemplate::parse(&text) {
            prop_assert_eq!(template.as_str(), &text);
        }
    }

    #[test]
    fn a_readable_value_stays_as_it_is(value in "[A-Za-z0-9._@+-]{1,86}") {
        prop_assert_eq!(one("order:process:<a>", &value), format!("order:process:{value}"));
    }
}
