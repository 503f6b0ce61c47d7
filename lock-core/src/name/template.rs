//! Names with placeholders.

use std::fmt::{self, Display, Write};
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use lock_grammar::{GrammarError, MAX_PLACEHOLDERS};

use super::LockName;
use super::parsed::{Parsed, Shown, Text};
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
    parsed: Arc<Parsed>,
    permits: Option<Permits>,
    is_shared: bool,
}

impl LockTemplate {
    /// Reads and checks a template.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](crate::LockErrorKind::InvalidName), with what is wrong and what to do.
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let parsed = Parsed::of(Text::Shared(text.into()));
        let parsed = parsed.map_err(|error| Self::refusal(text, &error))?;
        Ok(Self::new(parsed))
    }

    pub(super) fn parse_static(text: &'static str) -> Result<Self, GrammarError> {
        Parsed::of(Text::Static(text)).map(Self::new)
    }

    fn new(parsed: Parsed) -> Self {
        Self {
            parsed: Arc::new(parsed),
            permits: None,
            is_shared: false,
        }
    }

    pub(super) fn refusal(text: &str, error: &GrammarError) -> LockError {
        LockError::invalid_name(format!("in the template `{}`, {error}", Shown(text)))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.parsed.text()
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
        let is_first = move |&(n, source): &(usize, &str)| {
            let mut earlier = self.parsed.sources().take(n);
            !earlier.any(|earlier| earlier == source)
        };
        let sources = self.parsed.sources().enumerate();
        sources.filter(is_first).map(|(_, source)| source)
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
        let mut taken = self.parsed.values();
        let mut given = [false; MAX_PLACEHOLDERS];
        for (key, value) in values {
            let mut is_known = false;
            for (place, source) in self.parsed.sources().enumerate() {
                if source != key.as_ref() {
                    continue;
                }
                if std::mem::replace(&mut given[place], true) {
                    return Err(self.wrong_params(format_args!(
                        "was given two values for `{}`",
                        Shown(source)
                    )));
                }
                self.parsed.take(&mut taken, place, &value)?;
                is_known = true;
            }
            if !is_known {
                return Err(self.wrong_params(format_args!(
                    "was given a value for a parameter that it does not have"
                )));
            }
        }
        let mut sources = self.parsed.sources().zip(given);
        if let Some((source, _)) = sources.find(|(_, given)| !given) {
            return Err(
                self.wrong_params(format_args!("was given no value for `{}`", Shown(source)))
            );
        }
        Ok(self.parsed.name(&taken))
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
        let places = self.parsed.sources().len();
        if values.len() != places {
            return Err(LockError::invalid_name(format!(
                "the template `{}` takes {places} values and was given {}; give one for each placeholder",
                Shown(self.as_str()),
                values.len(),
            )));
        }
        let mut taken = self.parsed.values();
        for (place, value) in values.iter().enumerate() {
            self.parsed.take(&mut taken, place, value)?;
        }
        Ok(self.parsed.name(&taken))
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
