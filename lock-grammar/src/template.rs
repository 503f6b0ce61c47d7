//! Templates: names with placeholders.

use crate::name::{
    check_escaped, check_length, check_word_characters, empty_segment, no_colon, no_id,
};
use crate::{
    GrammarError, GrammarErrorKind as Kind, MAX_NAME, MIN_SHARE, check_entity, check_job,
    check_operation,
};

/// A template that was found in order, borrowed from its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template<'a> {
    pieces: Vec<Piece<'a>>,
    literal_len: usize,
}

/// A part of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text that every filling has in common.
    Literal(&'a str),
    /// Where a value goes.
    Placeholder(Placeholder<'a>),
}

/// Where a value goes, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placeholder<'a> {
    /// What gives the value: the text between the brackets, without modifier and outer white space.
    pub source: &'a str,
    /// Whether a hash of the value goes there instead of the value.
    pub hashed: bool,
}

impl<'a> Template<'a> {
    /// Reads a template. One without placeholders is in order too: a fixed name.
    ///
    /// ```
    /// use lock_grammar::Template;
    ///
    /// let template = Template::parse("user:login:<email:hashed>").unwrap();
    /// let email = template.placeholders().next().unwrap();
    /// assert_eq!((email.source, email.hashed), ("email", true));
    /// ```
    ///
    /// # Errors
    ///
    /// The first mistake, and what to do about it.
    pub fn parse(text: &'a str) -> Result<Self, GrammarError> {
        let pieces = split(text)?;
        check_shape(&pieces)?;
        check_apart(&pieces)?;
        let literal_len = check_room(&pieces)?;
        Ok(Self {
            pieces,
            literal_len,
        })
    }

    /// Its parts in order; two literals never follow each other.
    #[must_use]
    pub fn pieces(&self) -> &[Piece<'a>] {
        &self.pieces
    }

    /// Its placeholders in order. A source that is used twice comes twice.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder<'a>> {
        placeholders(&self.pieces)
    }

    /// How many bytes of a name its literal text takes.
    #[must_use]
    pub fn literal_len(&self) -> usize {
        self.literal_len
    }
}

fn placeholders<'p, 'a>(pieces: &'p [Piece<'a>]) -> impl Iterator<Item = &'p Placeholder<'a>> {
    pieces.iter().filter_map(|piece| match piece {
        Piece::Literal(_) => None,
        Piece::Placeholder(placeholder) => Some(placeholder),
    })
}

fn split(text: &str) -> Result<Vec<Piece<'_>>, GrammarError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['<', '>']) {
        if rest.as_bytes()[at] == b'>' {
            return Err(GrammarError::new(
                Kind::Unclosed,
                "there is a `>` without its `<`; write a placeholder as `<id>`",
            ));
        }
        if at > 0 {
            pieces.push(Piece::Literal(&rest[..at]));
        }
        let inside = &rest[at + 1..];
        let end = inside
            .find(['<', '>'])
            .filter(|&end| inside.as_bytes()[end] == b'>')
            .ok_or_else(|| {
                GrammarError::new(
                    Kind::Unclosed,
                    "there is a `<` that is not closed; write a placeholder as `<id>`, without \
                     another `<` or `>` inside",
                )
            })?;
        pieces.push(Piece::Placeholder(placeholder(&inside[..end])?));
        rest = &inside[end + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    Ok(pieces)
}

fn placeholder(inside: &str) -> Result<Placeholder<'_>, GrammarError> {
    let (source, modifier) = match modifier_colon(inside) {
        Some(at) => (inside[..at].trim(), Some(inside[at + 1..].trim())),
        None => (inside.trim(), None),
    };
    if source.is_empty() {
        return Err(GrammarError::new(
            Kind::Source,
            "there is a placeholder without a name; write what fills it, as in `<id>`",
        ));
    }
    if source.chars().any(char::is_control) {
        return Err(GrammarError::new(
            Kind::Source,
            "there is a placeholder with a control character in it; write it on one line",
        ));
    }
    if !is_balanced(source) {
        return Err(GrammarError::new(
            Kind::Source,
            format!("the brackets in the placeholder `<{source}>` are not in pairs"),
        ));
    }
    match modifier {
        None => Ok(Placeholder {
            source,
            hashed: false,
        }),
        Some("hashed") => Ok(Placeholder {
            source,
            hashed: true,
        }),
        Some(_) => Err(GrammarError::new(
            Kind::Modifier,
            format!(
                "the placeholder of `{source}` has an unknown modifier; the only one is `hashed`: \
                 write `<{source}:hashed>` or `<{source}>`"
            ),
        )),
    }
}

/// The last `:` that is not half of a `::`.
fn modifier_colon(inside: &str) -> Option<usize> {
    let bytes = inside.as_bytes();
    let is_colon = |at: Option<usize>| at.and_then(|at| bytes.get(at)) == Some(&b':');
    (0..bytes.len()).rev().find(|&at| {
        bytes[at] == b':' && !is_colon(at.checked_sub(1)) && !is_colon(at.checked_add(1))
    })
}

fn is_balanced(source: &str) -> bool {
    let mut open = Vec::new();
    source.chars().all(|c| match c {
        '(' | '[' | '{' => {
            open.push(c);
            true
        }
        ')' => open.pop() == Some('('),
        ']' => open.pop() == Some('['),
        '}' => open.pop() == Some('{'),
        _ => true,
    }) && open.is_empty()
}

fn check_shape(pieces: &[Piece<'_>]) -> Result<(), GrammarError> {
    let (first, rest) = match pieces {
        [] => {
            return Err(GrammarError::new(
                Kind::Empty,
                "the template is empty; write `entity:operation:<id>` or `job:name`",
            ));
        }
        [Piece::Literal(first), rest @ ..] => (*first, rest),
        [Piece::Placeholder(_), ..] => return Err(misplaced("entity")),
    };
    let Some((entity, first)) = first.split_once(':') else {
        return Err(if rest.is_empty() {
            no_colon()
        } else {
            misplaced("entity")
        });
    };
    check_entity(entity)?;
    if let Some((operation, first)) = first.split_once(':') {
        check_operation(operation)?;
        return check_id(first, rest);
    }
    match rest {
        [] if entity == "job" => check_job(first),
        [] => Err(no_id()),
        _ if entity == "job" && !rest.iter().any(has_colon) => check_job_pieces(first, rest),
        _ => Err(misplaced("operation")),
    }
}

fn misplaced(what: &str) -> GrammarError {
    GrammarError::new(
        Kind::Misplaced,
        format!(
            "there is a placeholder in the {what}; write entity and operation out and put the value \
             into the id, as in `order:process:<id>`"
        ),
    )
}

fn has_colon(piece: &Piece<'_>) -> bool {
    matches!(piece, Piece::Literal(text) if text.contains(':'))
}

fn check_job_pieces(first: &str, rest: &[Piece<'_>]) -> Result<(), GrammarError> {
    if first.is_empty() {
        return Err(GrammarError::new(
            Kind::Misplaced,
            "the name of the job begins with a placeholder, so that a value could name any other job; \
             begin with what the job does, as in `job:rebuild:<tenant>`",
        ));
    }
    check_job(first)?;
    rest.iter().try_for_each(|piece| match piece {
        Piece::Literal(text) => check_word_characters("the name of the job", text),
        Piece::Placeholder(_) => Ok(()),
    })
}

fn check_id(first: &str, rest: &[Piece<'_>]) -> Result<(), GrammarError> {
    let mut segment_is_empty = true;
    for piece in [Piece::Literal(first)].iter().chain(rest) {
        let Piece::Literal(text) = piece else {
            segment_is_empty = false;
            continue;
        };
        for (n, part) in text.split(':').enumerate() {
            if n > 0 && std::mem::replace(&mut segment_is_empty, true) {
                return Err(empty_segment());
            }
            if part.contains('~') {
                return Err(GrammarError::new(
                    Kind::Hash,
                    "the template contains a `~`, which stands only before the hash of a value; \
                     write another character",
                ));
            }
            check_escaped(part, "write a value as a placeholder, such as `<id>`")?;
            segment_is_empty &= part.is_empty();
        }
    }
    if segment_is_empty {
        return Err(empty_segment());
    }
    Ok(())
}

/// Checks that a name can be taken apart again: values contain no `:`.
fn check_apart(pieces: &[Piece<'_>]) -> Result<(), GrammarError> {
    let mut open: Option<&str> = None;
    for piece in pieces {
        match piece {
            Piece::Literal(_) if has_colon(piece) => open = None,
            Piece::Literal(_) => {}
            Piece::Placeholder(Placeholder { source, .. }) => {
                if let Some(before) = open.replace(source) {
                    return Err(GrammarError::new(
                        Kind::Ambiguous,
                        format!(
                            "there is no `:` between the placeholders of `{before}` and `{source}`, \
                             so that different values could give one name; write \
                             `<{before}>:<{source}>`"
                        ),
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Checks that any values fit, and returns how long the literal text is.
fn check_room(pieces: &[Piece<'_>]) -> Result<usize, GrammarError> {
    let literal_len = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Literal(text) => text.len(),
            Piece::Placeholder(_) => 0,
        })
        .sum();
    let needed = placeholders(pieces).count() * MIN_SHARE;
    if needed == 0 {
        check_length(literal_len)?;
    } else if literal_len + needed > MAX_NAME {
        return Err(GrammarError::new(
            Kind::NoRoom,
            format!(
                "the literal text has {literal_len} bytes and its placeholders need {needed}, but a \
                 name has {MAX_NAME}; shorten the text, or join values into one placeholder"
            ),
        ));
    }
    Ok(literal_len)
}
