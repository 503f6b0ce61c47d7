//! What is a name, and what the errors say about other text.

use lock_grammar::{
    GrammarErrorKind as Kind, MAX_NAME, check_entity, check_job, check_name, check_operation,
    is_readable,
};

const HASH: &str = "eHhC7jhMw2yJ_tx2M-yqwA";

#[test]
fn names_are_accepted() {
    for name in [
        "order:process:42",
        "a:b:c",
        "0:1:2",
        "order.v2:re-process_all:A-Z.a_z@0+9",
        "order:process:eu:42:43",
        "order:process:%3A%25%7E%00%FF",
        "order:process:-",
        "job:process-outbox",
        "job:process:outbox",
        "job:process:outbox:7",
        // Left by a template with a placeholder.
        "job:rebuild-A%2FB",
        "job:Ada",
    ] {
        check_name(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    for place in ["", "prefix", "%C3%A9"] {
        for suffix in ["", ".pdf", "-v2", "%3A", ":next"] {
            let name = format!("order:process:{place}~{HASH}{suffix}");
            check_name(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    check_name(&format!("order:process:~{HASH}:~{HASH}")).unwrap();
}

#[test]
fn what_is_no_name_is_refused() {
    let long = "x".repeat(1 << 20);
    let cases = [
        ("", Kind::Empty),
        (&long, Kind::TooLong),
        ("order", Kind::Shape),
        ("order:process", Kind::Shape),
        (":process:42", Kind::Empty),
        ("order::42", Kind::Empty),
        ("order:process:", Kind::Empty),
        ("order:process::42", Kind::Empty),
        ("order:process:42:", Kind::Empty),
        ("order:process:4::2", Kind::Empty),
        ("job:", Kind::Empty),
        (":", Kind::Empty),
        ("Order:process:42", Kind::Character),
        ("order:Process:42", Kind::Character),
        ("-order:process:42", Kind::Character),
        ("order:_process:42", Kind::Character),
        ("order:process:4 2", Kind::Character),
        ("order:process:4\0", Kind::Character),
        ("order:process:42\n", Kind::Character),
        ("order:process:é", Kind::Character),
        ("order:process:a/b", Kind::Character),
        ("order:process:{id}", Kind::Character),
        ("order:process:<id>", Kind::Unclosed),
        ("order:process:%", Kind::Escape),
        ("order:process:%3", Kind::Escape),
        ("order:process:%3a", Kind::Escape),
        ("order:process:%g0", Kind::Escape),
        ("order:process:%é0", Kind::Escape),
        // A second spelling of `A`.
        ("order:process:%41", Kind::Escape),
        ("order:process:%2D", Kind::Escape),
        ("order:process:~", Kind::Hash),
        ("order:process:~eHhC7jhMw2yJ_tx2M-yqw", Kind::Hash),
        ("order:process:~eHhC7jhMw2yJ_tx2M.yqwA", Kind::Hash),
        ("order:process:~~eHhC7jhMw2yJ_tx2M-yqwA", Kind::Hash),
        (
            "order:process:~eHhC7jhMw2yJ_tx2M-yqwA~eHhC7jhMw2yJ_tx2M-yqwA",
            Kind::Hash,
        ),
        ("order:process:~eHhC7jhMw2yJ_tx2M-yqwé", Kind::Hash),
        ("order:process:~eHhC7jhMw2yJ_tx2M-yqwA%", Kind::Escape),
        ("order:process:a b~eHhC7jhMw2yJ_tx2M-yqwA", Kind::Character),
    ];
    for (name, kind) in cases {
        let error = check_name(name).unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
    }
}

#[test]
fn a_name_has_at_most_100_bytes() {
    let name = |len: usize| format!("a:b:{}", "x".repeat(len - 4));
    check_name(&name(99)).unwrap();
    check_name(&name(MAX_NAME)).unwrap();
    let error = check_name(&name(101)).unwrap_err();
    assert_eq!(error.kind(), Kind::TooLong);
    assert!(
        error.to_string().contains("has 101 bytes and may have 100"),
        "{error}"
    );
}

#[test]
fn words_are_lower_case() {
    for check in [check_entity, check_operation, check_job] {
        for word in ["a", "0", "order", "a_b.c-d", "a-", "2fa"] {
            check(word).unwrap();
        }
        assert_eq!(check("").unwrap_err().kind(), Kind::Empty);
        for word in [
            "A", "aB", "-", ".a", "_a", "a b", "a:b", "a/b", "a@b", "a%20", "é", "a\u{a0}",
        ] {
            assert_eq!(check(word).unwrap_err().kind(), Kind::Character, "{word}");
        }
    }
}

#[test]
fn errors_name_the_part_and_tell_what_to_do() {
    let message = |name: &str| check_name(name).unwrap_err().to_string();
    assert_eq!(
        message("Order:process:42"),
        "the entity contains an upper-case letter; use lower-case letters, digits, `_`, `.` and `-`"
    );
    assert_eq!(
        message("order:.process:42"),
        "the operation begins with punctuation; begin it with a lower-case letter or digit"
    );
    assert_eq!(
        message("order:process"),
        "the name has no id; write `entity:operation:id`, or `job:name` for a lock there is only one of"
    );
    assert_eq!(
        message("order:process:a b"),
        "the id contains white space; make the name from a template or from its parts, which escapes \
         the value"
    );
    assert_eq!(
        check_job("Sweep").unwrap_err().to_string(),
        "the name of the job contains an upper-case letter; use lower-case letters, digits, `_`, `.` \
         and `-`"
    );
}

#[test]
fn what_is_readable_is_frozen() {
    let readable: String = (0..=u8::MAX)
        .filter(|&b| is_readable(b))
        .map(char::from)
        .collect();
    assert_eq!(
        readable,
        "+-.0123456789@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
    );
}
