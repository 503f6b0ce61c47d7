//! Names and templates from outside: frozen vectors, labels, and what the errors say about mistakes.

#![allow(clippy::unwrap_used, reason = "the helpers are part of the tests")]

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::process::Command;

use lock_core::{LockError, LockName, LockTemplate};

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

fn detail(result: Result<LockName, LockError>) -> String {
    let error = result.unwrap_err();
    assert!(error.is_invalid_name());
    error.to_string()
}

#[test]
fn short_values_are_frozen() {
    let vectors = [
        ("42", "42"),
        ("Order-42_b.c@d+e", "Order-42_b.c@d+e"),
        ("a:b", "a%3Ab"),
        ("100%", "100%25"),
        ("~", "%7E"),
        ("a b", "a%20b"),
        ("a/b", "a%2Fb"),
        ("a\nb\0", "a%0Ab%00"),
        ("é", "%C3%A9"),
        ("🔒", "%F0%9F%94%92"),
        ("<x>{y}", "%3Cx%3E%7By%7D"),
    ];
    for (value, escaped) in vectors {
        let name = format!("order:process:{escaped}");
        assert_eq!(one("order:process:<a>", value), name);
        assert_eq!(
            LockName::new("order", "process", value).unwrap().as_str(),
            name
        );
    }
}

#[test]
fn shortened_values_are_frozen() {
    let x = |n| "x".repeat(n);
    assert_eq!(
        one("order:process:<a>", x(86)),
        format!("order:process:{}", x(86))
    );
    let vectors = [
        (
            one("order:process:<a>", x(87)),
            format!("order:process:{}~eHhC7jhMw2yJ_tx2MwyqwA", x(63)),
        ),
        (
            one("order:process:<a>", x(1 << 20)),
            format!("order:process:{}~K3RPLhmct07eot5A08whoQ", x(63)),
        ),
        (
            LockName::new("order", "process", x(87))
                .unwrap()
                .to_string(),
            format!("order:process:{}~eHhC7jhMw2yJ_tx2MwyqwA", x(63)),
        ),
        // The share ends inside of an escape, after it, and before its last digit.
        (
            one("order:process:<a>", "é".repeat(50)),
            format!(
                "order:process:{}%C3~DOTy60QuPrI62rACq6Wb6A",
                "%C3%A9".repeat(10)
            ),
        ),
        (
            one("order:process:<a>", format!("a{}", "é".repeat(50))),
            format!(
                "order:process:a{}~n2IiaBSvLYbXzQbyI-Gc2g",
                "%C3%A9".repeat(10)
            ),
        ),
        (
            one("order:process:<a>", format!("aa{}", "é".repeat(50))),
            format!(
                "order:process:aa{}~EwHiQJQONLTGHFc7WR4crQ",
                "%C3%A9".repeat(10)
            ),
        ),
        // Of two values, the one that is longer than its share; or both.
        (
            two("file:sync:<a>:<b>", "acme", "/".repeat(40)),
            "file:sync:acme:%2F%2F%2F%2F%2F%2F%2F~7IZYFoU3xSBk3qE15YEp9A".into(),
        ),
        (
            two("file:sync:<a>:<b>", "t".repeat(50), "p".repeat(60)),
            format!(
                "file:sync:{}~_QDyGhADgbpLGxDa5SJOVA:{}~onylIG4ouoWgRpMvkqQlWA",
                "t".repeat(21),
                "p".repeat(21)
            ),
        ),
        (
            one("report:build:<a>.pdf", "q".repeat(100)),
            format!("report:build:{}~Z7lGHWomMUcTiDIi82hUGg.pdf", "q".repeat(60)),
        ),
        (
            one("job:rebuild-<a>", "q".repeat(100)),
            format!("job:rebuild-{}~Z7lGHWomMUcTiDIi82hUGg", "q".repeat(65)),
        ),
    ];
    for (name, frozen) in vectors {
        assert_eq!(name, frozen);
    }
}

#[test]
fn names_of_up_to_100_bytes_are_accepted() {
    for len in [5, 99, 100] {
        let name = format!("a:b:{}", "c".repeat(len - 4));
        assert_eq!(name.parse::<LockName>().unwrap().as_str(), name);
        let job = format!("job:{}", "c".repeat(len - 4));
        assert_eq!(job.parse::<LockName>().unwrap().as_str(), job);
        assert_eq!(LockName::job(&job[4..]).unwrap().as_str(), job);
    }
    let job = "c".repeat(97);
    for (refused, len) in [
        (format!("a:b:{job}").parse(), 101),
        (format!("job:{job}").parse(), 101),
        ("x".repeat(1 << 20).parse(), 1 << 20),
        (LockName::job(&job), 97),
    ] {
        let text = detail(refused);
        assert!(
            text.contains(&format!("has {len} bytes and may have ")),
            "{text}"
        );
    }
}

#[test]
fn entity_and_operation_leave_room_for_any_id() {
    let entity = "e".repeat(37);
    let longest = LockName::new(&entity, &entity, "x".repeat(500)).unwrap();
    assert_eq!(longest.as_str().len(), 100);
    let longest = LockName::new(&entity, &format!("{entity}o"), "x".repeat(500)).unwrap();
    assert_eq!(longest.as_str().len(), 100);
    let text = detail(LockName::new(
        &format!("{entity}e"),
        &format!("{entity}o"),
        1,
    ));
    assert!(text.contains("have 76 bytes and may have 75"), "{text}");
    detail(LockName::new(&"e".repeat(1 << 20), "o", 1));
}

#[test]
fn parts_that_are_no_words_are_refused() {
    for word in [
        "", "Order", "-a", "_a", ".a", "a b", "a:b", "a/b", "é", "a\0", "{a}", "<a>",
    ] {
        detail(LockName::new(word, "process", 1));
        detail(LockName::new("order", word, 1));
        detail(LockName::job(word));
    }
    for word in ["a", "0", "a_b.c-d", "2fa"] {
        LockName::new(word, word, 1).unwrap();
        LockName::job(word).unwrap();
    }
    detail(LockName::new("order", "process", ""));
}

#[test]
fn errors_never_show_a_value() {
    let secret = "SECRET";
    let errors = [
        detail(format!("order:process:{secret} x").parse()),
        detail(format!("order:{secret}:1").parse()),
        detail(secret.parse()),
        detail(format!("order:process:{secret}%zz").parse()),
        detail(format!("order:process:{secret}~abc").parse()),
        detail(format!("{secret}:process:{}", secret.repeat(100)).parse()),
        detail(LockName::new(secret, "process", 1)),
        detail(LockName::new("order", secret, 1)),
        detail(LockName::job(secret)),
        // Keys and values swapped.
        detail(template("order:process:<id>").fill([(secret, "id")])),
        detail(template("order:process:<id>").fill([("id", secret), ("id", secret)])),
    ];
    for error in errors {
        assert!(!error.contains(secret), "{error}");
    }
}

#[test]
fn a_fill_takes_every_parameter_once_in_any_order() {
    let transfer = template("account:transfer:<from>:<to>");
    let name = transfer.fill([("to", 2), ("from", 1)]).unwrap();
    assert_eq!(name.as_str(), "account:transfer:1:2");
    let map: HashMap<String, String> = [("to", "2"), ("from", "1")]
        .map(|(key, value)| (key.into(), value.into()))
        .into();
    assert_eq!(transfer.fill(&map).unwrap(), name);

    let wrong: [(&[(&str, &str)], &str); 5] = [
        (&[("from", "1")], "no value for `to`"),
        (
            &[("from", "1"), ("to", "2"), ("from", "1")],
            "two values for `from`",
        ),
        (
            &[("from", "1"), ("to", "2"), ("id", "3")],
            "a parameter that it does not have",
        ),
        (&[], "no value for `from`"),
        (&[("from", ""), ("to", "2")], "the value of `from`"),
    ];
    for (values, message) in wrong {
        let text = detail(transfer.fill(values.iter().copied()));
        assert!(text.contains(message), "{text}");
        assert!(text.contains("account:transfer:<from>:<to>"), "{text}");
    }
    let text = detail(transfer.fill([("from", 1)]));
    assert!(text.contains("once: `from`, `to`"), "{text}");
    let text = detail(template("job:sweep").fill([("id", 1)]));
    assert!(text.contains("it has no parameters"), "{text}");
}

#[test]
fn a_source_that_is_used_twice_is_one_parameter() {
    let template = template("mail:send:<to>:<id>:<to:hashed>");
    assert_eq!(template.params().collect::<Vec<_>>(), ["to", "id"]);
    let name = template.fill([("id", "7"), ("to", "ada")]).unwrap();
    assert!(name.as_str().starts_with("mail:send:ada:7:~"), "{name}");
    let positional = template.fill_positional(&[&"ada", &7, &"ada"]).unwrap();
    assert_eq!(positional, name);
    let text = detail(template.fill_positional(&[&"ada", &7]));
    assert!(text.contains("takes 3 values and was given 2"), "{text}");
}

#[test]
fn a_template_without_placeholders_is_a_name() {
    let name = template("job:sweep").fill::<&str, &str>([]).unwrap();
    assert_eq!(name, LockName::job("sweep").unwrap());
    assert_eq!(name.label(), "job:sweep");
    assert_eq!(template("job:sweep").params().count(), 0);
}

/// Runs itself in processes that have one secret or another, since a process reads it once.
#[test]
fn hashed_values_are_keyed_by_the_environment() {
    const EXPECTED: &str = "LOCK_NAMES_TEST_EXPECTED";
    if let Ok(hash) = std::env::var(EXPECTED) {
        let name = one("user:login:<a:hashed>", "ada@example.org");
        assert_eq!(name, format!("user:login:~{hash}"));
        return;
    }
    for (secret, hash) in [
        (None, "fX0xOQ5DgAS3Y8_4HRX8DQ"),
        (Some(""), "fX0xOQ5DgAS3Y8_4HRX8DQ"),
        (Some("correct horse"), "2TvtabCNbT-_aaDs7grwvA"),
        // From a file that ends with a newline.
        (Some("correct horse\n"), "2TvtabCNbT-_aaDs7grwvA"),
    ] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "hashed_values_are_keyed_by_the_environment"])
            .env_remove("LOCK_NAME_SECRET")
            .envs(secret.map(|secret| ("LOCK_NAME_SECRET", secret)))
            .env(EXPECTED, hash);
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{secret:?}: {said}"
        );
    }
}

#[test]
fn a_value_has_a_hash_for_each_template_and_place() {
    let name = |text: &str, key| {
        let name = template(text).fill([(key, "ada@example.org")]).unwrap();
        let hashes = name.as_str().split('~').skip(1);
        hashes.map(|hash| hash[..22].to_owned()).collect::<Vec<_>>()
    };
    let login = name("user:login:<email:hashed>", "email");
    // However the value is called there: macro, layer and a fill by hand are one lock.
    assert_eq!(name("user:login:<cmd.email:hashed>", "cmd.email"), login);
    for other in [
        "user:export:<email:hashed>",
        "users:login:<email:hashed>",
        "user:login:x-<email:hashed>",
        "user:login:<email:hashed>-x",
        "job:login-<email:hashed>",
    ] {
        assert_ne!(name(other, "email"), login, "{other}");
    }
    let twice = name("user:login:<email:hashed>:<email:hashed>", "email");
    assert!(twice.len() == 2 && twice[0] != twice[1], "{twice:?}");
}

#[test]
fn labels_show_no_values() {
    let filled = template("job:import-<a>").fill([("a", "Ada")]).unwrap();
    assert_eq!(filled.label(), "job:import-<a>");
    let vectors = [
        (LockName::new("order", "process", 42), "order:process"),
        (LockName::new("job", "process", 42), "job:process"),
        ("order:process:42:43".parse(), "order:process"),
        (LockName::job("sweep"), "job:sweep"),
        ("job:sweep".parse(), "job:sweep"),
        (filled.as_str().parse(), "job"),
    ];
    for (name, label) in vectors {
        assert_eq!(name.unwrap().label(), label);
    }
}

#[test]
fn names_are_their_text() {
    let filled = template("order:process:<a>").fill([("a", 42)]).unwrap();
    let parsed: LockName = "order:process:42".parse().unwrap();
    assert_ne!(filled.label(), parsed.label());
    assert_eq!(filled, parsed);
    assert_eq!(filled.cmp(&parsed), std::cmp::Ordering::Equal);
    let held = HashMap::from([(filled.clone(), ())]);
    assert!(held.contains_key(&parsed));
    assert!(held.contains_key("order:process:42"));
    assert!(!held.contains_key("order:process:43"));

    let sorted: BTreeSet<LockName> = ["b:a:1", "a:b:2", "a:b:10", "a:b:A"]
        .map(|name| name.parse().unwrap())
        .into();
    let sorted: Vec<_> = sorted.iter().map(LockName::as_str).collect();
    assert_eq!(sorted, ["a:b:10", "a:b:2", "a:b:A", "b:a:1"]);

    assert_eq!(
        format!("{filled:>18}|{filled:?}"),
        "  order:process:42|LockName(\"order:process:42\")"
    );
}

#[test]
fn whatever_makes_a_name_is_taken_for_one() {
    fn lock<N: TryInto<LockName, Error: Into<LockError>>>(name: N) -> Result<LockName, LockError> {
        name.try_into().map_err(Into::into)
    }
    let name = LockName::new("order", "process", 42).unwrap();
    assert_eq!(lock("order:process:42").unwrap(), name);
    assert_eq!(lock(String::from("order:process:42")).unwrap(), name);
    let owned = String::from("order:process:42");
    assert_eq!(lock(&owned).unwrap(), name);
    assert_eq!(lock(LockName::new("order", "process", 42)).unwrap(), name);
    assert_eq!(lock(&name).unwrap(), name);
    assert_eq!(lock(name.clone()).unwrap(), name);
    detail(lock(LockName::new("order", "process", "")));
    detail(lock("order:process"));
}

#[test]
fn a_template_tells_what_is_wrong_with_it() {
    let error = LockTemplate::parse("order:process:<id:hash>").unwrap_err();
    assert!(error.is_invalid_name());
    let text = error.to_string();
    assert!(
        text.contains("in the template `order:process:<id:hash>`"),
        "{text}"
    );
    assert!(text.contains("write `<id:hashed>` or `<id>`"), "{text}");
    let text = LockTemplate::parse(&"é\n".repeat(1 << 20))
        .unwrap_err()
        .to_string();
    assert!(text.len() < 1000 && !text.contains('\n'), "{text}");
}

#[cfg(feature = "serde")]
#[test]
fn in_serde_a_name_is_a_checked_string() {
    let name = LockName::new("order", "process", "a b").unwrap();
    let json = serde_json::to_string(&name).unwrap();
    assert_eq!(json, r#""order:process:a%20b""#);
    assert_eq!(serde_json::from_str::<LockName>(&json).unwrap(), name);
    let escaped: LockName = serde_json::from_str(r#""order:process:\u0061""#).unwrap();
    assert_eq!(escaped.as_str(), "order:process:a");
    for wrong in [r#""order:process:a b""#, r#""""#, "42", "null"] {
        assert!(serde_json::from_str::<LockName>(wrong).is_err(), "{wrong}");
    }
}
