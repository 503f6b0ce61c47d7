//! The name of one lock.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt::{self, Display};
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use lock_grammar::{
    GrammarError, MAX_NAME, MIN_SHARE, check_entity, check_job, check_name, check_operation,
};
use smol_str::SmolStr;

use super::values::{NameBuffer, ValueError, Values};
use crate::LockError;

/// The name of a lock: `order:process:42`, `job:process-outbox`.
///
/// It is `{entity}:{operation}:{id}`, or `job:{name}` for work that has no id, and at most 100 bytes
/// long. Entity, operation and the name of a job begin with a lower-case letter or a digit and go on
/// with `a-z 0-9 _ . -`.
///
/// Names are equal, ordered and hashed by their text, whichever way they were made. A clone costs
/// next to nothing, and a name of up to 23 bytes allocates nothing.
///
/// # Values
///
/// What goes into an id is escaped, so that two values never give one name:
///
/// - ASCII letters, digits and `. _ - @ +` stay as they are; each other byte of the UTF-8 text becomes
///   `%XX`. A value holds no `:` when it is escaped, and cannot pass for a longer name.
/// - An empty value is an error: `order:process:` is more often a bug than a lock.
/// - Values that do not fit share what the literal text leaves of the 100 bytes, in equal parts. Each
///   one that is longer than its part becomes a prefix of its escaped form, a `~`, and 128 bits of a
///   hash of the whole value in base64url. This depends on nothing but the template and the values:
///   every process finds the same name.
/// - `<email:hashed>` never shows the value: its place takes a `~` and 128 bits of an HMAC-SHA-256,
///   keyed by the environment variable `LOCK_NAME_SECRET`, which every process of a fleet needs to
///   have alike: 16 random bytes or more. The literal text of the template and the place are hashed
///   with it, so that a value has another hash in another template; what the placeholder is called is
///   not. Without the secret (or when it is empty) it is a plain SHA-256: the value stays out of logs,
///   but a reader who guesses it can recognise it. That, and a shorter secret, is a warning, once.
///
/// A shortened value still begins readable; one that must not be seen is to be `hashed`.
///
/// # Labels
///
/// The text carries values: metrics, errors and logs show the [`label`](Self::label).
///
/// ```
/// use lock_core::{LockName, LockTemplate};
///
/// let name = LockName::new("order", "process", 42)?;
/// assert_eq!(name.as_str(), "order:process:42");
/// assert_eq!(name, "order:process:42".parse()?);
/// assert_eq!(name.label(), "order:process");
///
/// let template = LockTemplate::parse("file:sync:<tenant>:<path>")?;
/// let name = template.fill([("tenant", "acme"), ("path", "/var/a:b")])?;
/// assert_eq!(name.as_str(), "file:sync:acme:%2Fvar%2Fa%3Ab");
/// assert_eq!(name.label(), "file:sync:<tenant>:<path>");
/// # Ok::<(), lock_core::LockError>(())
/// ```
#[derive(Clone)]
pub struct LockName {
    text: SmolStr,
    label: Label,
}

/// What may be shown of a name.
#[derive(Clone)]
pub(super) enum Label {
    /// The template, known when the program was compiled.
    Static(&'static str),
    /// The template, shared with it.
    Shared(Arc<str>),
    /// This many bytes of the name itself.
    Prefix(u8),
}

impl LockName {
    /// The name `{entity}:{operation}:{id}`. The id is escaped, and shortened when it is too long.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](crate::LockErrorKind::InvalidName): entity or operation are not words of
    /// `a-z 0-9 _ . -`, or too long to leave 23 bytes for an id, or the id is empty.
    pub fn new(entity: &str, operation: &str, id: impl Display) -> Result<Self, LockError> {
        check_entity(entity).map_err(invalid)?;
        check_operation(operation).map_err(invalid)?;
        let label = entity.len() + 1 + operation.len();
        let Some(room) = MAX_NAME
            .checked_sub(label + 1)
            .filter(|&room| room >= MIN_SHARE)
        else {
            return Err(LockError::invalid_name(format!(
                "entity and operation have {} bytes and may have {}; shorten them",
                label - 1,
                MAX_NAME - MIN_SHARE - 2,
            )));
        };
        let mut values = Values::new(room, 1);
        values.take(0, &id).map_err(|error| {
            LockError::invalid_name(match error {
                ValueError::Empty => "the id is empty; give it a value",
                ValueError::Unformattable => "the id could not be formatted: its `Display` failed",
            })
        })?;
        let mut name = NameBuffer::new();
        name.push(entity.as_bytes());
        name.push(b":");
        name.push(operation.as_bytes());
        name.push(b":");
        name.push(values.get(0));
        Ok(Self::labelled(name.finish(), prefix(label)))
    }

    /// The name `job:{name}`, of work that there is only one of.
    ///
    /// All of it is the [label](Self::label): it stands in metrics, errors and logs. Give it a constant.
    /// `LockName::job(&format!("import-{tenant}"))` would show each tenant there, and make a series of
    /// metrics for each (the first 1,000; then they are counted as `other`). A job for each of many
    /// things is a template, whose label has no value:
    ///
    /// ```
    /// use lock_core::{LockName, LockTemplate};
    ///
    /// let name = LockName::job("process-outbox")?;
    /// assert_eq!(name.as_str(), "job:process-outbox");
    ///
    /// let import = LockTemplate::parse("job:import-<tenant>")?;
    /// let name = import.fill([("tenant", "acme")])?;
    /// assert_eq!(name.as_str(), "job:import-acme");
    /// assert_eq!(name.label(), "job:import-<tenant>");
    /// # Ok::<(), lock_core::LockError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidName`](crate::LockErrorKind::InvalidName): it is not a word of `a-z 0-9 _ . -`, or
    /// longer than 96 bytes.
    pub fn job(name: &str) -> Result<Self, LockError> {
        check_job(name).map_err(invalid)?;
        let len = "job:".len() + name.len();
        if len > MAX_NAME {
            return Err(LockError::invalid_name(format!(
                "the name of the job has {} bytes and may have {}; shorten it",
                name.len(),
                MAX_NAME - "job:".len(),
            )));
        }
        let mut text = NameBuffer::new();
        text.push(b"job:");
        text.push(name.as_bytes());
        Ok(Self::labelled(text.finish(), prefix(len)))
    }

    /// A text that is known to be a name.
    pub(super) fn labelled(text: SmolStr, label: Label) -> Self {
        debug_assert!(check_name(&text).is_ok(), "made an invalid name");
        Self { text, label }
    }

    /// A name of a part of this lock, which has its label.
    pub(super) fn derived(&self, text: SmolStr) -> Self {
        let label = match &self.label {
            Label::Prefix(_) if !text.starts_with(self.label()) => {
                Label::Shared(self.label().into())
            }
            label => label.clone(),
        };
        Self { text, label }
    }

    fn checked(text: &str) -> Result<Self, LockError> {
        check_name(text).map_err(invalid)?;
        Ok(Self {
            text: SmolStr::new(text),
            label: prefix(label_len(text)),
        })
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What may be shown of it in logs, metrics and errors: the template that it was filled from, else
    /// its `entity:operation`, else its `job:name`. Entity, operation and the name of a job are to be
    /// constants, so that the label has no value of a user in it.
    ///
    /// The name of a job that was parsed and cannot have been written out (`job:import-A%2FB`) shows
    /// as `job`.
    #[must_use]
    pub fn label(&self) -> &str {
        match &self.label {
            Label::Static(text) => text,
            Label::Shared(text) => text,
            Label::Prefix(len) => &self.text[..usize::from(*len)],
        }
    }
}

fn prefix(len: usize) -> Label {
    Label::Prefix(u8::try_from(len).expect("a name has at most 100 bytes"))
}

/// How much of a name may be shown when nothing but its text is known.
fn label_len(name: &str) -> usize {
    let entity = name.find(':').unwrap_or(name.len());
    let rest = name.get(entity + 1..).unwrap_or_default();
    match rest.find(':') {
        Some(operation) => entity + 1 + operation,
        None if check_job(rest).is_ok() => name.len(),
        None => entity,
    }
}

fn invalid(error: GrammarError) -> LockError {
    LockError::invalid_name(error.to_string())
}

impl FromStr for LockName {
    type Err = LockError;

    fn from_str(text: &str) -> Result<Self, LockError> {
        Self::checked(text)
    }
}

impl TryFrom<&str> for LockName {
    type Error = LockError;

    fn try_from(text: &str) -> Result<Self, LockError> {
        Self::checked(text)
    }
}

impl TryFrom<String> for LockName {
    type Error = LockError;

    fn try_from(text: String) -> Result<Self, LockError> {
        Self::checked(&text)
    }
}

impl TryFrom<&String> for LockName {
    type Error = LockError;

    fn try_from(text: &String) -> Result<Self, LockError> {
        Self::checked(text)
    }
}

/// So that what makes a name can be passed on as it is, checked in one place.
impl TryFrom<Result<LockName, LockError>> for LockName {
    type Error = LockError;

    fn try_from(name: Result<LockName, LockError>) -> Result<Self, LockError> {
        name
    }
}

impl From<&LockName> for LockName {
    fn from(name: &LockName) -> Self {
        name.clone()
    }
}

impl AsRef<str> for LockName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for LockName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for LockName {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for LockName {}

impl PartialOrd for LockName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LockName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for LockName {
    // As `str` does: `Borrow<str>` promises it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LockName").field(&self.as_str()).finish()
    }
}
