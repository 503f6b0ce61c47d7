//! What is wrong with a name or template.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// What is wrong with a name or template, and what to do about it.
///
/// The text never repeats a name or a part of it, since names carry values; of a template it may
/// repeat the placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrammarError {
    kind: GrammarErrorKind,
    detail: Cow<'static, str>,
}

/// The kinds of [`GrammarError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GrammarErrorKind {
    /// A name, or a part of one, without any text.
    Empty,
    /// More than [`MAX_NAME`](crate::MAX_NAME) bytes.
    TooLong,
    /// Neither `entity:operation:id` nor `job:name`.
    Shape,
    /// A character that does not belong where it stands.
    Character,
    /// A `%` that escapes nothing, or what needs no escape.
    Escape,
    /// A `~` without a hash behind it, or in a template.
    Hash,
    /// A `<` or `>` that makes no placeholder.
    Unclosed,
    /// A placeholder whose source is empty or cannot be one.
    Source,
    /// A placeholder with a modifier other than `hashed`.
    Modifier,
    /// A placeholder in the entity or the operation.
    Misplaced,
    /// Two placeholders without a `:` between them.
    Ambiguous,
    /// Literal text that leaves too little for the placeholders.
    NoRoom,
}

impl GrammarError {
    pub(crate) fn new(kind: GrammarErrorKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    /// What kind of mistake this is.
    #[must_use]
    pub fn kind(&self) -> GrammarErrorKind {
        self.kind
    }
}

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl Error for GrammarError {}
