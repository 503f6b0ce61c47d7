//! Words that comments and documentation do without: the actor has a name, and what happens has a term.

use std::fmt::Write as _;
use std::fs;

use crate::{files, root};

/// What is not written, and what is.
const UNWANTED: &[(&str, &str)] = &[
    (
        "anybody",
        "name the actor: the caller, a waiter, another process",
    ),
    (
        "everybody",
        "name the actor: the caller, a waiter, another process",
    ),
    (
        "nobody",
        "name the actor: no caller, no waiter, no other process",
    ),
    (
        "somebody",
        "name the actor: the caller, a waiter, another process",
    ),
    (
        "whoever",
        "name the actor: the caller, a waiter, another process",
    ),
    ("at once", "immediately; or: together"),
    ("are had", "are acquired"),
    ("be had", "be acquired"),
    ("is had", "is acquired"),
    ("was had", "was acquired"),
    ("are told", "are notified; of what is printed: are logged"),
    ("be told", "be notified; of what is printed: be logged"),
    (
        "been told",
        "been notified; of what is printed: been logged",
    ),
    ("is told", "is notified; of what is printed: is logged"),
    ("was told", "was notified; of what is printed: was logged"),
    (
        "were told",
        "were notified; of what is printed: were logged",
    ),
    ("hears", "receives, learns"),
    ("is asked how it is", "its health is checked"),
    ("that is none", "that is not a .."),
];

/// What is meant by these is a difference.
const WANTED: &[&str] = &["told apart", "told from"];

#[test]
fn comments_and_documentation_have_no_unwanted_words() {
    let mut found = String::new();
    for file in files(root(), "rs").into_iter().chain(files(root(), "md")) {
        let text = fs::read_to_string(&file).unwrap();
        let is_code = file.extension().is_some_and(|extension| extension == "rs");
        for (number, line) in text.lines().enumerate() {
            let prose = if is_code { comment(line) } else { Some(line) };
            for (word, instead) in prose.into_iter().flat_map(unwanted) {
                let at = format!("{}:{}", file.display(), number + 1);
                writeln!(found, "{at}: \"{word}\"; {instead}").unwrap();
            }
        }
    }
    assert!(found.is_empty(), "\n{found}");
}

#[test]
fn an_unwanted_word_is_found_where_it_is_meant() {
    let words = |line| unwanted(line).map(|(word, _)| word).collect::<Vec<_>>();
    assert_eq!(words("The guard is told, at once."), ["at once", "is told"]);
    assert!(words("The user `nobody`; two that can be told apart.").is_empty());
    assert_eq!(comment("let a = 1; // of one"), Some("of one"));
    assert_eq!(comment("let url = \"redis://nobody\";"), None);
}

/// The comment of a line of Rust.
fn comment(line: &str) -> Option<&str> {
    let start = line
        .find("// ")
        .or_else(|| line.find("/// "))
        .or_else(|| line.find("//! "))?;
    Some(line[start..].trim_start_matches(['/', '!', ' ']))
}

/// The unwanted words of a line, code in backticks left out.
fn unwanted(line: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" x ");
    let words: Vec<_> = prose
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let mut text = format!(" {} ", words.join(" "));
    for wanted in WANTED {
        text = text.replace(wanted, "x");
    }
    let is_in = move |word: &str| text.contains(&format!(" {word} "));
    UNWANTED
        .iter()
        .copied()
        .filter(move |(word, _)| is_in(word))
}
