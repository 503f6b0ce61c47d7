//! Names with placeholders, and how they are filled.

use std::fmt::{self, Display, Write};
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use lock_grammar::{GrammarError, MAX_NAME, MAX_PLACEHOLDERS, Template};

use super::hashed::{NameSecret, ValueHash};
use super::lock_name::{Label, LockName};
use super::values::{NameBuffer, ValueError, Values};
use crate::LockError;
use crate::permits::Permits;

/// A name with placeholders: `order:process:<id>`, `user:login:<email:hashed>`.
///
/// It is read and checked once and filled often: a fill allocates nothing for a name of up to 23
/// bytes, and once for a longer one. A clone is a reference. The text is the
/// [label](LockName::label) of the names that it makes.
///
/// Placeholders stand in the id, or in the name of a job, and have a `:` between them; the rules for
/// their values are those of every [`LockName`]: escaped, shortened when they do not fit, hashed with
/// `:hashed`.
///
/// ```
/// use lock_core::LockTemplate;
///
/// let template: LockTemplate = "order:process:<id>".parse()?;
/// assert_eq!(template.fill([("id", 42)])?.as_str(), "order:process:42");
/// assert!(template.fill([("order", 42)]).is_err());
/// # Ok::<(), lock_core::LockError>(())
/// ```
#[derive(Clone)]
pub struct LockTemplate {
    inner: Arc<Inner>,
    permits: Option<Permits>,
    is_shared: bool,
}

struct Inner {
    text: Text,
    pieces: Box<[Piece]>,
    params: Box<[Param]>,
    /// What the literal text leaves for values.
    room: usize,
}

#[derive(Clone)]
enum Text {
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

impl LockTemplate {
    /// Reads and checks a template.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](crate::LockErrorKind::InvalidName), with what is wrong and what to do.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        Self::of(Text::Shared(text.into())).map_err(|error| Self::refusal(text, &error))
    }

    pub(super) fn parse_static(text: &'static str) -> Result<Self, GrammarError> {
        Self::of(Text::Static(text))
    }

    fn of(text: Text) -> Result<Self, GrammarError> {
        let parsed = Template::parse(text.as_str())?;
        // Both borrow from the text: the place of a piece in it is the distance of its start.
        let place = |part: &str| {
            let start = part.as_ptr().addr() - text.as_str().as_ptr().addr();
            start..start + part.len()
        };
        let pieces = parsed
            .pieces()
            .iter()
            .map(|piece| match piece {
                lock_grammar::Piece::Literal(part) => Piece::Literal(place(part)),
                lock_grammar::Piece::Placeholder(_) => Piece::Param,
            })
            .collect();
        let params = parsed
            .placeholders()
            .map(|placeholder| Param {
                source: place(placeholder.source),
                hashed: placeholder.hashed,
            })
            .collect();
        let room = MAX_NAME - parsed.literal_len();
        let inner = Inner {
            text,
            pieces,
            params,
            room,
        };
        Ok(Self {
            inner: Arc::new(inner),
            permits: None,
            is_shared: false,
        })
    }

    pub(super) fn refusal(text: &str, error: &GrammarError) -> LockError {
        LockError::invalid_name(format!("in the template `{}`, {error}", Shown(text)))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.inner.text.as_str()
    }

    /// The same template for locks of which so many may be held at a time, as
    /// [`DistributedLock::permits`](crate::DistributedLock::permits) says. For the layers of `lock-tower`,
    /// which are given a template; the names that it [fills](Self::fill) are as without.
    ///
    /// A number that cannot be, 0 or more than 256, is an error of the layer or the table that the template is
    /// given to.
    #[must_use]
    pub fn permits(mut self, number: usize) -> Self {
        self.permits = Some(Permits::new(number));
        self
    }

    /// The same template for readers, as [`DistributedLock::shared`](crate::DistributedLock::shared) says. For
    /// the layers of `lock-tower`, which are given a template; the names that it [fills](Self::fill) are as
    /// without.
    ///
    /// Together with [`permits`](Self::permits) it is an error of the layer or the table that the template is
    /// given to.
    ///
    /// ```
    /// use lock_core::LockTemplate;
    ///
    /// let template = LockTemplate::parse("catalog:read:<id>")?.shared();
    /// assert!(template.is_shared());
    /// # Ok::<(), lock_core::LockError>(())
    /// ```
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.is_shared = true;
        self
    }

    /// Whether its locks are those of [readers](Self::shared).
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// How many [permits](Self::permits) its locks have, if they have any.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) when there cannot be so many, or the template is
    /// [shared](Self::shared) as well.
    pub fn permit_count(&self) -> Result<Option<usize>, LockError> {
        if self.is_shared && self.permits.is_some() {
            return Err(LockError::misconfigured(format!(
                "the template `{}` is `shared` and has `permits`: any number of readers hold a lock together; take \
                 one of the two off",
                Shown(self.as_str())
            )));
        }
        self.permits.map(Permits::check).transpose()
    }

    /// What has to be given to [`fill`](Self::fill): the sources of its placeholders, each once, in
    /// the order in which they stand there.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        let params = &self.inner.params;
        params
            .iter()
            .map(|param| self.source(param))
            .enumerate()
            .filter(|&(n, source)| !params[..n].iter().any(|p| self.source(p) == source))
            .map(|(_, source)| source)
    }

    /// Makes a name: every parameter with its value, once, in any order.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](crate::LockErrorKind::InvalidName): a parameter is missing, unknown or given
    /// twice, or a value is empty.
    pub fn fill<K, V>(
        &self,
        values: impl IntoIterator<Item = (K, V)>,
    ) -> Result<LockName, LockError>
    where
        K: AsRef<str>,
        V: Display,
    {
        let mut taken = self.values();
        let mut given = [false; MAX_PLACEHOLDERS];
        for (key, value) in values {
            let mut is_known = false;
            for (place, param) in self.inner.params.iter().enumerate() {
                if self.source(param) != key.as_ref() {
                    continue;
                }
                if std::mem::replace(&mut given[place], true) {
                    return Err(self.wrong_params(format_args!(
                        "was given two values for `{}`",
                        Shown(self.source(param))
                    )));
                }
                self.take(&mut taken, place, &value)?;
                is_known = true;
            }
            if !is_known {
                return Err(self.wrong_params(format_args!(
                    "was given a value for a parameter that it does not have"
                )));
            }
        }
        if let Some((param, _)) = self
            .inner
            .params
            .iter()
            .zip(given)
            .find(|(_, given)| !given)
        {
            return Err(self.wrong_params(format_args!(
                "was given no value for `{}`",
                Shown(self.source(param))
            )));
        }
        Ok(self.name(&taken))
    }

    /// Makes a name: one value for each placeholder, in their order; a source that stands there twice
    /// takes two.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](crate::LockErrorKind::InvalidName): too few or too many values, or an empty
    /// one.
    #[doc(hidden)]
    pub fn fill_positional(&self, values: &[&dyn Display]) -> Result<LockName, LockError> {
        if values.len() != self.inner.params.len() {
            return Err(LockError::invalid_name(format!(
                "the template `{}` takes {} values and was given {}; give one for each placeholder",
                Shown(self.as_str()),
                self.inner.params.len(),
                values.len(),
            )));
        }
        let mut taken = self.values();
        for (place, value) in values.iter().enumerate() {
            self.take(&mut taken, place, value)?;
        }
        Ok(self.name(&taken))
    }

    fn source(&self, param: &Param) -> &str {
        &self.as_str()[param.source.clone()]
    }

    fn values(&self) -> Values {
        Values::new(self.inner.room, self.inner.params.len())
    }

    fn take(&self, taken: &mut Values, place: usize, value: &dyn Display) -> Result<(), LockError> {
        let param = &self.inner.params[place];
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
                Shown(self.as_str()),
                match error {
                    ValueError::Empty => "is empty; refuse it before it becomes a lock",
                    ValueError::Unformattable => "could not be formatted: its `Display` failed",
                }
            ))
        })
    }

    fn hash_at(&self, place: usize, secret: &NameSecret) -> ValueHash {
        let pieces = self.inner.pieces.iter().map(|piece| match piece {
            Piece::Literal(part) => Some(&self.as_str().as_bytes()[part.clone()]),
            Piece::Param => None,
        });
        ValueHash::hashed(secret, pieces, place)
    }

    fn name(&self, values: &Values) -> LockName {
        let mut name = NameBuffer::new();
        let mut place = 0;
        for piece in &self.inner.pieces {
            match piece {
                Piece::Literal(part) => name.push(&self.as_str().as_bytes()[part.clone()]),
                Piece::Param => {
                    name.push(values.get(place));
                    place += 1;
                }
            }
        }
        let label = match &self.inner.text {
            Text::Static(text) => Label::Static(text),
            Text::Shared(text) => Label::Shared(Arc::clone(text)),
        };
        LockName::labelled(name.finish(), label)
    }

    /// What is wrong with the keys. Never a key: one that was swapped with its value would be shown.
    fn wrong_params(&self, wrong: fmt::Arguments<'_>) -> LockError {
        let mut advice = String::new();
        for param in self.params() {
            let lead = if advice.is_empty() {
                "give each of its parameters once: "
            } else {
                ", "
            };
            _ = write!(advice, "{lead}`{}`", Shown(param));
        }
        if advice.is_empty() {
            advice.push_str("it has no parameters");
        }
        LockError::invalid_name(format!(
            "the template `{}` {wrong}; {advice}",
            Shown(self.as_str())
        ))
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
struct Shown<'a>(&'a str);

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

impl FromStr for LockTemplate {
    type Err = LockError;

    fn from_str(text: &str) -> Result<Self, LockError> {
        Self::parse(text)
    }
}

impl TryFrom<&str> for LockTemplate {
    type Error = LockError;

    fn try_from(text: &str) -> Result<Self, LockError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for LockTemplate {
    type Error = LockError;

    fn try_from(text: String) -> Result<Self, LockError> {
        Self::parse(&text)
    }
}

impl From<&LockTemplate> for LockTemplate {
    fn from(template: &LockTemplate) -> Self {
        template.clone()
    }
}

impl AsRef<str> for LockTemplate {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for LockTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
            && self.permits == other.permits
            && self.is_shared == other.is_shared
    }
}

impl Eq for LockTemplate {}

impl Hash for LockTemplate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Display for LockTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for LockTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LockTemplate").field(&self.as_str()).finish()
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
