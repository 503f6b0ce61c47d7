//! A template as it was read, and how values fill it.

use std::fmt::{self, Display, Write};
use std::ops::Range;
use std::sync::Arc;

use lock_grammar::{GrammarError, MAX_NAME, Template};

use super::hashed::{NameSecret, ValueHash};
use super::lock_name::{Label, LockName};
use super::values::{NameBuffer, ValueError, Values};
use crate::LockError;

/// A template that was read.
pub(super) struct Parsed {
    text: Text,
    pieces: Box<[Piece]>,
    params: Box<[Param]>,
    /// What the literal text leaves for values.
    room: usize,
}

/// The text of a template.
pub(super) enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

enum Piece {
    /// Where in the text it stands.
    Literal(Range<usize>),
    /// The next of the params.
    Param,
}

/// A placeholder.
struct Param {
    source: Range<usize>,
    hashed: bool,
}

impl Parsed {
    /// Reads and checks a template.
    pub(super) fn of(text: Text) -> Result<Self, GrammarError> {
        let template = Template::parse(text.as_str())?;
        // Both borrow from the text: the place of a piece in it is the distance of its start.
        let place = |part: &str| {
            let start = part.as_ptr().addr() - text.as_str().as_ptr().addr();
            start..start + part.len()
        };
        let pieces = template
            .pieces()
            .iter()
            .map(|piece| match piece {
                lock_grammar::Piece::Literal(part) => Piece::Literal(place(part)),
                lock_grammar::Piece::Placeholder(_) => Piece::Param,
            })
            .collect();
        let params = template
            .placeholders()
            .map(|placeholder| Param {
                source: place(placeholder.source),
                hashed: placeholder.hashed,
            })
            .collect();
        let room = MAX_NAME - template.literal_len();
        Ok(Self {
            text,
            pieces,
            params,
            room,
        })
    }

    pub(super) fn text(&self) -> &str {
        self.text.as_str()
    }

    /// What the placeholders are filled with, in order; one that stands there twice comes twice.
    pub(super) fn sources(&self) -> impl ExactSizeIterator<Item = &str> {
        self.params.iter().map(|param| self.source(param))
    }

    fn source(&self, param: &Param) -> &str {
        &self.text()[param.source.clone()]
    }

    /// No values yet, with the room that there is for them.
    pub(super) fn values(&self) -> Values {
        Values::new(self.room, self.params.len())
    }

    /// Takes the value of the placeholder at this place.
    pub(super) fn take(
        &self,
        taken: &mut Values,
        place: usize,
        value: &dyn Display,
    ) -> Result<(), LockError> {
        let param = &self.params[place];
        let result = if param.hashed {
            // Not before: which secret the process has is decided by the first that needs it.
            let secret = NameSecret::of_process();
            secret.warn_if_weak();
            taken.take_hashed(place, value, self.hash_at(place, secret))
        } else {
            taken.take(place, value)
        };
        result.map_err(|error| {
            LockError::invalid_name(format!(
                "the value of `{}` in the template `{}` {}",
                Shown(self.source(param)),
                Shown(self.text()),
                match error {
                    ValueError::Empty => "is empty; refuse it before it becomes a lock",
                    ValueError::Unformattable => "could not be formatted: its `Display` failed",
                }
            ))
        })
    }

    fn literal(&self, part: &Range<usize>) -> &[u8] {
        &self.text().as_bytes()[part.clone()]
    }

    /// The hash of a value at this place, begun with the literal text.
    fn hash_at(&self, place: usize, secret: &NameSecret) -> ValueHash {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Literal(part) => Some(self.literal(part)),
            Piece::Param => None,
        });
        ValueHash::hashed(secret, pieces, place)
    }

    /// The name with these values.
    pub(super) fn name(&self, values: &Values) -> LockName {
        let mut name = NameBuffer::new();
        let mut place = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Literal(part) => name.push(self.literal(part)),
                Piece::Param => {
                    name.push(values.get(place));
                    place += 1;
                }
            }
        }
        let label = match &self.text {
            Text::Static(text) => Label::Static(text),
            Text::Shared(text) => Label::Shared(Arc::clone(text)),
        };
        LockName::labelled(name.finish(), label)
    }
}

impl Text {
    fn as_str(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// Text of a template in an error: on one line, and not endless.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 120;
        for c in self.0.chars().take(MOST).flat_map(char::escape_debug) {
            f.write_char(c)?;
        }
        if self.0.chars().nth(MOST).is_some() {
            f.write_str("...")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Shown;

    #[test]
    fn text_in_errors_is_on_one_line_and_not_endless() {
        assert_eq!(Shown("a\n\u{1b}b").to_string(), "a\\n\\u{1b}b");
        let shown = Shown(&"é".repeat(121)).to_string();
        assert_eq!(shown, format!("{}...", "é".repeat(120)));
    }
}
