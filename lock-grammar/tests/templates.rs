//! What is a template, and what the errors say about other text.

use lock_grammar::{
    GrammarErrorKind as Kind, MAX_NAME, MAX_PLACEHOLDERS, MIN_SHARE, Piece, Placeholder, Template,
};

/// Sources of the placeholders of a template, with `#` before those that are hashed.
fn sources(text: &str) -> Vec<String> {
    let template = Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    template
        .placeholders()
        .map(|p| format!("{}{}", if p.hashed { "#" } else { "" }, p.source))
        .collect()
}

fn mistake(text: &str) -> (Kind, String) {
    let error = Template::parse(text)
        .err()
        .unwrap_or_else(|| panic!("{text} was accepted"));
    (error.kind(), error.to_string())
}

#[test]
fn a_template_is_taken_apart() {
    let template = Template::parse("file:sync:v2-<tenant>:x:< self.path : hashed >.md").unwrap();
    let placeholder = |source, hashed| Piece::Placeholder(Placeholder { source, hashed });
    assert_eq!(
        template.pieces(),
        [
            Piece::Literal("file:sync:v2-"),
            placeholder("tenant", false),
            Piece::Literal(":x:"),
            placeholder("self.path", true),
            Piece::Literal(".md"),
        ]
    );
    assert_eq!(template.literal_len(), "file:sync:v2-:x:.md".len());
}

#[test]
fn placeholders_stand_in_the_id_or_the_name_of_a_job() {
    for (text, expected) in [
        ("order:process:<id>", vec!["id"]),
        ("order:process:<id>:<line>", vec!["id", "line"]),
        ("order:process:<id>:<id>", vec!["id", "id"]),
        ("order:process:eu:<id>", vec!["id"]),
        ("order:process:<id>.Z@+%3A", vec!["id"]),
        ("job:rebuild-<x>", vec!["x"]),
        ("job:rebuild-<x>-now", vec!["x"]),
        ("job:rebuild:<x>", vec!["x"]),
        ("job:rebuild", vec![]),
        ("order:process:42", vec![]),
    ] {
        assert_eq!(sources(text), expected, "{text}");
    }
}

#[test]
fn sources_are_any_expression_in_one_line() {
    for (source, expected) in [
        ("cmd.order_id", "cmd.order_id"),
        ("id.0", "id.0"),
        ("user.id()", "user.id()"),
        (" id ", "id"),
        ("größe", "größe"),
        ("email:hashed", "#email"),
        ("email : hashed", "#email"),
        ("Self::ID", "Self::ID"),
        ("Self::ID:hashed", "#Self::ID"),
        ("::a::B", "::a::B"),
        ("ids[0]", "ids[0]"),
    ] {
        assert_eq!(sources(&format!("a:b:<{source}>")), [expected], "{source}");
    }
}

#[test]
fn what_is_no_template_is_refused() {
    for (text, kind) in [
        ("", Kind::Empty),
        ("order", Kind::Shape),
        ("order:process", Kind::Shape),
        ("order:process:", Kind::Empty),
        ("order:process::<id>", Kind::Empty),
        ("order:process:<id>:", Kind::Empty),
        ("order:process:<a>::<b>", Kind::Empty),
        ("order::<id>", Kind::Empty),
        ("job:", Kind::Empty),
        ("<entity>:process:42", Kind::Misplaced),
        ("<id>", Kind::Misplaced),
        ("order<x>:process:42", Kind::Misplaced),
        ("order:<operation>:42", Kind::Misplaced),
        ("order:<id>", Kind::Misplaced),
        ("order:process-<x>:42", Kind::Misplaced),
        ("job:<x>", Kind::Misplaced),
        ("job:<x:hashed>", Kind::Misplaced),
        ("job:<x>-now", Kind::Misplaced),
        ("job:<x>:42", Kind::Misplaced),
        ("job:a-<x>:<y>", Kind::Misplaced),
        ("Order:process:<id>", Kind::Character),
        ("order:pro cess:<id>", Kind::Character),
        ("order:process:{id}", Kind::Character),
        ("order:process:a b:<id>", Kind::Character),
        ("order:process:<id>é", Kind::Character),
        ("job:Rebuild-<x>", Kind::Character),
        ("job:-<x>", Kind::Character),
        ("job:rebuild-<x>-Now", Kind::Character),
        ("job:rebuild-<x>@now", Kind::Character),
        ("order:process:%<id>", Kind::Escape),
        ("order:process:%4<id>", Kind::Escape),
        ("order:process:%41<id>", Kind::Escape),
        ("order:process:~<id>", Kind::Hash),
        ("order:process:~eHhC7jhMw2yJ_tx2M-yqwA", Kind::Hash),
        ("order:process:<id", Kind::Unclosed),
        ("order:process:<id:<x>", Kind::Unclosed),
        ("order:process:id>", Kind::Unclosed),
        ("order:process:<id>>", Kind::Unclosed),
        ("order:process:<Vec<u8>>", Kind::Unclosed),
        ("order:process:<>", Kind::Source),
        ("order:process:< >", Kind::Source),
        ("order:process:<:hashed>", Kind::Source),
        ("order:process:<user.id(>", Kind::Source),
        ("order:process:<user.id)(>", Kind::Source),
        ("order:process:<ids[0)>", Kind::Source),
        ("order:process:<a\nb>", Kind::Source),
        ("order:process:<id:hash>", Kind::Modifier),
        ("order:process:<id:>", Kind::Modifier),
        ("order:process:<id:HASHED>", Kind::Modifier),
        ("order:process:<id:04x>", Kind::Modifier),
        ("order:process:<a><b>", Kind::Ambiguous),
        ("order:process:<a>-<b>", Kind::Ambiguous),
        ("order:process:<a>:<b>.<c>", Kind::Ambiguous),
        ("job:rebuild-<a>-<b>", Kind::Ambiguous),
    ] {
        let (found, message) = mistake(text);
        assert_eq!(found, kind, "{text}: {message}");
    }
}

#[test]
fn literal_text_leaves_a_share_for_each_placeholder() {
    let text = |len: usize, tail: &str| format!("a:b:{}{tail}", "x".repeat(len - 4));
    Template::parse(&text(MAX_NAME, "")).unwrap();
    assert_eq!(mistake(&text(MAX_NAME + 1, "")).0, Kind::TooLong);
    Template::parse(&text(MAX_NAME - MIN_SHARE, "<x>")).unwrap();
    assert_eq!(
        mistake(&text(MAX_NAME - MIN_SHARE + 1, "<x>")).0,
        Kind::NoRoom
    );
    Template::parse(&text(MAX_NAME - 2 * MIN_SHARE - 1, "<x>:<y:hashed>")).unwrap();
    let (kind, message) = mistake(&text(MAX_NAME - 2 * MIN_SHARE, "<x>:<y:hashed>"));
    assert_eq!(kind, Kind::NoRoom);
    assert!(
        message.contains("has 55 bytes and its placeholders need 46"),
        "{message}"
    );

    Template::parse("a:b:<w>:<x>:<y>:<z>").unwrap();
    assert_eq!(mistake("a:b:<v>:<w>:<x>:<y>:<z>").0, Kind::NoRoom);
    assert_eq!(sources("a:b:<w>:<x>:<y>:<z>").len(), MAX_PLACEHOLDERS);
}

#[test]
fn errors_tell_what_to_do() {
    for (text, part) in [
        ("order:process:<id:hash>", "write `<id:hashed>` or `<id>`"),
        ("order:process:<a>-<b>", "write `<a>:<b>`"),
        (
            "order:process:{id}",
            "contains a brace; write a value as a placeholder, such as `<id>`",
        ),
        (
            "order:<id>",
            "a placeholder in the operation; write entity and operation out",
        ),
        ("order:process:<id", "a `<` that is not closed"),
        ("order:process:id>", "a `>` without its `<`"),
        (
            "order:process:<user.id(>",
            "brackets in the placeholder `<user.id(>`",
        ),
        ("order:process", "has no id; write `entity:operation:id`"),
    ] {
        let (_, message) = mistake(text);
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn endless_text_is_read_in_reasonable_time() {
    for text in ["<", ">", "<a>", "<a>:", ":", "a:", "<a:", "é", "\0"] {
        let text = format!("order:process:{}", text.repeat(1 << 18));
        Template::parse(&text).unwrap_err();
    }
}
