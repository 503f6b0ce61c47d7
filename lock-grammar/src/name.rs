//! Whole names, and the words they begin with.

use crate::{GrammarError, GrammarErrorKind as Kind, HASH_LEN, MAX_NAME};

/// Whether a byte of a value stands for itself in a name; all others are escaped.
#[must_use]
pub const fn is_readable(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'@' | b'+')
}

/// Checks a whole name, as it is stored and passed on: escaped, nothing left to fill in.
///
/// The name of a job may hold whatever a filled placeholder leaves there; [`check_job`] is for one
/// that is written out.
///
/// ```
/// assert!(lock_grammar::check_name("order:process:42").is_ok());
/// let error = lock_grammar::check_name("order").unwrap_err();
/// assert!(error.to_string().contains("entity:operation:id"));
/// ```
///
/// # Errors
///
/// What is wrong with it, without repeating any of it.
pub fn check_name(text: &str) -> Result<(), GrammarError> {
    if text.is_empty() {
        return Err(GrammarError::new(
            Kind::Empty,
            "the name is empty; write `entity:operation:id` or `job:name`",
        ));
    }
    check_length(text.len())?;
    if text.contains(['<', '>']) {
        return Err(GrammarError::new(
            Kind::Unclosed,
            "the name contains `<` or `>`; a template has to be filled before it is a name",
        ));
    }
    let (entity, rest) = text.split_once(':').ok_or_else(no_colon)?;
    check_entity(entity)?;
    let id = match rest.split_once(':') {
        Some((operation, id)) => {
            check_operation(operation)?;
            id
        }
        None if entity == "job" => rest,
        None => return Err(no_id()),
    };
    id.split(':').try_for_each(check_segment)
}

/// Checks an entity, such as `order`.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_entity(text: &str) -> Result<(), GrammarError> {
    check_word("the entity", text)
}

/// Checks an operation, such as `process`.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_operation(text: &str) -> Result<(), GrammarError> {
    check_word("the operation", text)
}

/// Checks the name of a job without its `job:`, such as `process-outbox`.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_job(text: &str) -> Result<(), GrammarError> {
    check_word("the name of the job", text)
}

pub(crate) fn check_length(len: usize) -> Result<(), GrammarError> {
    if len <= MAX_NAME {
        return Ok(());
    }
    Err(GrammarError::new(
        Kind::TooLong,
        format!(
            "the name has {len} bytes and may have {MAX_NAME}; put what is long into a placeholder, \
             which shortens it by itself"
        ),
    ))
}

pub(crate) fn no_colon() -> GrammarError {
    GrammarError::new(
        Kind::Shape,
        "the name has no `:`; write `entity:operation:id` or `job:name`",
    )
}

pub(crate) fn no_id() -> GrammarError {
    GrammarError::new(
        Kind::Shape,
        "the name has no id; write `entity:operation:id`, or `job:name` for a lock there is only \
         one of",
    )
}

pub(crate) fn empty_segment() -> GrammarError {
    GrammarError::new(
        Kind::Empty,
        "the id is empty, or has nothing before, between or after its `:`; give every part a value",
    )
}

fn check_word(what: &str, text: &str) -> Result<(), GrammarError> {
    if text.is_empty() {
        return Err(GrammarError::new(
            Kind::Empty,
            format!("{what} is empty; write `entity:operation:id` or `job:name`"),
        ));
    }
    if text.starts_with(['_', '.', '-']) {
        return Err(GrammarError::new(
            Kind::Character,
            format!("{what} begins with punctuation; begin it with a lower-case letter or digit"),
        ));
    }
    check_word_characters(what, text)
}

/// What an entity, an operation and the literal text of a job are made of.
pub(crate) fn check_word_characters(what: &str, text: &str) -> Result<(), GrammarError> {
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '.' | '-');
    match text.chars().find(|&c| !allowed(c)) {
        None => Ok(()),
        Some(c) => Err(GrammarError::new(
            Kind::Character,
            format!(
                "{what} contains {}; use lower-case letters, digits, `_`, `.` and `-`",
                describe(c)
            ),
        )),
    }
}

fn check_segment(text: &str) -> Result<(), GrammarError> {
    if text.is_empty() {
        return Err(empty_segment());
    }
    let Some((before, after)) = text.split_once('~') else {
        return check_escaped(text, FILL);
    };
    check_escaped(before, FILL)?;
    let hash = after
        .as_bytes()
        .iter()
        .take(HASH_LEN)
        .filter(|b| matches!(b, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        .count();
    if hash < HASH_LEN || after.contains('~') {
        return Err(GrammarError::new(
            Kind::Hash,
            format!(
                "the id contains a `~` that is not followed by a hash of {HASH_LEN} characters; \
                 {FILL}"
            ),
        ));
    }
    check_escaped(&after[HASH_LEN..], FILL)
}

/// What to do about an id that is not escaped.
const FILL: &str = "make the name from a template or from its parts, which escapes the value";

/// Checks text that is readable or escaped; `advice` is what to do if it is neither.
pub(crate) fn check_escaped(text: &str, advice: &str) -> Result<(), GrammarError> {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c.is_ascii() && is_readable(c as u8) {
            continue;
        }
        if c != '%' {
            return Err(GrammarError::new(
                Kind::Character,
                format!("the id contains {}; {advice}", describe(c)),
            ));
        }
        let escaped = match (chars.next().and_then(hex), chars.next().and_then(hex)) {
            (Some(high), Some(low)) => high << 4 | low,
            _ => {
                return Err(GrammarError::new(
                    Kind::Escape,
                    format!(
                        "the id contains a `%` that is not followed by two upper-case hex digits; \
                         {advice}"
                    ),
                ));
            }
        };
        if is_readable(escaped) {
            return Err(GrammarError::new(
                Kind::Escape,
                format!("the id escapes a character that needs no escape; {advice}"),
            ));
        }
    }
    Ok(())
}

fn hex(digit: char) -> Option<u8> {
    match digit {
        '0'..='9' => Some(digit as u8 - b'0'),
        'A'..='F' => Some(digit as u8 - b'A' + 10),
        _ => None,
    }
}

/// Which sort of character this is; never the character, which may be part of a value.
fn describe(c: char) -> &'static str {
    match c {
        '{' | '}' => "a brace",
        'A'..='Z' => "an upper-case letter",
        ':' => "a `:`",
        '~' => "a `~`, which stands only before a hash",
        _ if c.is_control() => "a control character",
        _ if c.is_whitespace() => "white space",
        _ if !c.is_ascii() => "a character outside ASCII",
        _ => "a character that is not allowed there",
    }
}
