//! One error type for every way in: what went wrong, for which lock, after how long.

use std::borrow::Cow;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::time::{Duration, Instant};

use crate::LockName;

/// Any source of a [`LockError`].
type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// What kind of failure a [`LockError`] is; decide on this, not on the text.
///
/// ```
/// use lock_core::{LockError, LockErrorKind};
///
/// fn advice(error: &LockError) -> &'static str {
///     match error.kind() {
///         LockErrorKind::Contended | LockErrorKind::Unavailable | LockErrorKind::Closed => "try again",
///         LockErrorKind::Lost => "look at what was done, then repeat it",
///         _ => "mend the program or its settings",
///     }
/// }
/// assert_eq!(advice(&LockError::unavailable("the server is down")), "try again");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LockErrorKind {
    /// The lock was held by another for the whole wait. Nothing is wrong.
    Contended,
    /// The lock was ours and is not any more; the outcome of the work is unknown.
    Lost,
    /// The backend did not answer, or answered that it cannot work now. Worth a retry later.
    Unavailable,
    /// The text or value cannot make a lock name.
    InvalidName,
    /// The set-up is wrong; a retry will not help.
    Misconfigured,
    /// The provider is shutting down.
    Closed,
}

/// Why a lock was not acquired, or was not ours to the end.
///
/// The text tells what happened and, where it can, what to do. It never repeats
/// [`source()`](StdError::source), and it shows a lock by its template or `entity:operation`, never
/// by its filled name: names can carry what must not reach a log. [`lock`](Self::lock) gives the
/// name to code that may see it.
///
/// ```
/// use lock_core::{LockError, LockErrorKind};
///
/// let error = LockError::unavailable("the lock server closed the connection");
/// assert_eq!(error.kind(), LockErrorKind::Unavailable);
/// assert!(!error.is_contended());
/// ```
pub struct LockError(Box<Inner>);

struct Inner {
    kind: LockErrorKind,
    detail: Cow<'static, str>,
    lock: Option<LockName>,
    waited: Option<Duration>,
    source: Option<BoxError>,
    /// Whether it came once the lock was held.
    after_acquire: bool,
}

impl LockError {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> LockErrorKind {
        self.0.kind
    }

    /// The lock that this is about, where one is.
    #[must_use]
    pub fn lock(&self) -> Option<&LockName> {
        self.0.lock.as_ref()
    }

    /// How long the caller had waited for the lock, where it had.
    #[must_use]
    pub fn waited(&self) -> Option<Duration> {
        self.0.waited
    }

    /// Whether the lock was held by another: the one refusal that is not a failure.
    #[must_use]
    pub fn is_contended(&self) -> bool {
        self.0.kind == LockErrorKind::Contended
    }

    /// Whether the lock was lost while it was held.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.kind == LockErrorKind::Lost
    }

    /// Whether work under the lock may have been done, in part or to its end: the lock was lost, or the
    /// error is one of a guard (its release or its fencing token had no answer). Such work is not to be
    /// repeated as if nothing had happened, which a retry does.
    ///
    /// ```
    /// use lock_core::LockError;
    ///
    /// assert!(LockError::lost("the lease ended").is_outcome_unknown());
    /// assert!(!LockError::unavailable("no connection").is_outcome_unknown());
    /// ```
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        self.0.after_acquire || self.is_lost()
    }

    /// Whether the backend could not be reached or did not answer.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.0.kind == LockErrorKind::Unavailable
    }

    /// Whether a value could not make a lock name.
    #[must_use]
    pub fn is_invalid_name(&self) -> bool {
        self.0.kind == LockErrorKind::InvalidName
    }

    /// Whether the set-up is wrong.
    #[must_use]
    pub fn is_misconfigured(&self) -> bool {
        self.0.kind == LockErrorKind::Misconfigured
    }

    /// Whether the provider was shutting down.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.kind == LockErrorKind::Closed
    }
}

/// Making one: for authors of [backends](crate::backend), and for tests.
impl LockError {
    /// An error of kind [`Contended`](LockErrorKind::Contended).
    #[must_use]
    pub fn contended() -> Self {
        Self::new(LockErrorKind::Contended, "held by another")
    }

    /// An error of kind [`Lost`](LockErrorKind::Lost); `detail` says how it was lost.
    pub fn lost(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(LockErrorKind::Lost, detail)
    }

    /// An error of kind [`Unavailable`](LockErrorKind::Unavailable); `detail` says what did not
    /// work. No secrets, no lock names.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(LockErrorKind::Unavailable, detail)
    }

    /// An error of kind [`InvalidName`](LockErrorKind::InvalidName); `detail` says what is wrong
    /// with the name without repeating the value.
    pub fn invalid_name(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(LockErrorKind::InvalidName, detail)
    }

    /// An error of kind [`Misconfigured`](LockErrorKind::Misconfigured); `detail` says what to do.
    pub fn misconfigured(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(LockErrorKind::Misconfigured, detail)
    }

    /// An error of kind [`Closed`](LockErrorKind::Closed).
    #[must_use]
    pub fn closed() -> Self {
        Self::new(LockErrorKind::Closed, "the lock provider is shutting down")
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error with the lock that it is about; an error that has one keeps it.
    #[must_use]
    pub fn with_lock(mut self, lock: &LockName) -> Self {
        self.0.lock.get_or_insert_with(|| lock.clone());
        self
    }

    /// The same error, once work may have been done that a retry would repeat: for a second lock that is
    /// refused after the first write.
    ///
    /// ```
    /// # use lock_core::{LockError, LockPolicy, LockProvider};
    /// async fn bill(locks: LockProvider) -> Result<(), LockError> {
    ///     // .. the first write ..
    ///     let invoice = locks.acquire("invoice:number:2026", LockPolicy::user_request()).await;
    ///     let invoice = invoice.map_err(LockError::with_outcome_unknown)?;
    ///     invoice.protect(async { /* .. the second .. */ }).await
    /// }
    /// ```
    #[must_use]
    pub fn with_outcome_unknown(mut self) -> Self {
        self.0.after_acquire = true;
        self
    }

    /// The same error with how long the caller had waited.
    #[must_use]
    pub fn with_waited(mut self, waited: Duration) -> Self {
        self.0.waited = Some(waited);
        self
    }
}

impl LockError {
    pub(crate) fn new(kind: LockErrorKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            detail: detail.into(),
            lock: None,
            waited: None,
            source: None,
            after_acquire: false,
        }))
    }

    /// The backend was silent for longer than an exchange may take.
    pub(crate) fn unanswered() -> Self {
        Self::unavailable("the backend did not answer in time")
    }

    /// The same of a question that was asked then, where the runtime's timer says that `bound` is over.
    /// A clock of tokio that is paused moves on by itself while an answer is on its way.
    pub(crate) fn unanswered_since(asked: Instant, bound: Duration) -> Self {
        Self::late("the backend did not answer", asked, bound)
    }

    /// As [`unanswered_since`](Self::unanswered_since), of a release.
    pub(crate) fn release_unanswered_since(asked: Instant, bound: Duration) -> Self {
        Self::late("the release was not answered", asked, bound)
    }

    fn late(what: &str, asked: Instant, bound: Duration) -> Self {
        let hint = if asked.elapsed() < bound / 2 {
            ", by tokio's clock, which is paused and moves on by itself while an answer is on its way: \
             use a `MemoryBackend` with such a clock, or let it run with a real backend (without \
             `start_paused`, or after `tokio::time::resume()`)"
        } else {
            ""
        };
        Self::unavailable(format!("{what} in time{hint}"))
    }

    /// The same error for another caller, without its cause.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) fn duplicate(&self) -> Self {
        Self::new(self.0.kind, self.0.detail.clone())
    }

    /// The same error for another caller, as one that can be over at the next try.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) fn duplicate_as_unavailable(&self) -> Self {
        Self::unavailable(self.0.detail.clone())
    }

    /// The same error as one of this setting, by the name that it has in the environment.
    pub(crate) fn in_setting(mut self, name: &str) -> Self {
        self.0.detail = format!("{name}: {}", self.0.detail).into();
        self
    }

    /// The same error with what else it leads to, and what to do.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) fn with_advice(mut self, advice: &str) -> Self {
        self.0.detail = format!("{}; {advice}", self.0.detail).into();
        self
    }

    /// The same error without such [advice](Self::with_advice), where it would be the wrong one.
    #[cfg(feature = "postgres")]
    pub(crate) fn without_advice(mut self, advice: &str) -> Self {
        self.0.detail = self.0.detail.replace(&format!("; {advice}"), "").into();
        self
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            kind,
            detail,
            lock,
            waited,
            ..
        } = &*self.0;
        match lock {
            Some(name) => write!(f, "lock `{}`", name.label())?,
            None => f.write_str("lock")?,
        }
        f.write_str(match kind {
            LockErrorKind::Contended => " is contended: ",
            LockErrorKind::Lost => " was lost: ",
            LockErrorKind::Unavailable => " is unavailable: ",
            LockErrorKind::InvalidName => " name is invalid: ",
            LockErrorKind::Misconfigured => " is misconfigured: ",
            LockErrorKind::Closed => " is closed: ",
        })?;
        f.write_str(detail)?;
        match waited {
            Some(waited) if !waited.is_zero() => write!(f, " (waited {waited:.1?})"),
            _ => Ok(()),
        }
    }
}

/// One line, with the causes after it: it is what `main` and `unwrap` print. `{:#?}` shows the fields.
impl fmt::Debug for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            write!(f, "{self}")?;
            let mut source = self.source();
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
            return Ok(());
        }
        f.debug_struct("LockError")
            .field("kind", &self.0.kind)
            .field("detail", &self.0.detail)
            // The label and not the name: `{:?}` of an error ends up in logs.
            .field("lock", &self.0.lock.as_ref().map(LockName::label))
            .field("waited", &self.0.waited)
            .field("outcome_unknown", &self.is_outcome_unknown())
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for LockError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

impl From<Infallible> for LockError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_one_line_with_the_causes_and_its_alternate_has_the_fields() {
        let cause = LockError::unavailable("no route");
        let error = LockError::misconfigured("correct the host").with_source(cause);
        assert_eq!(
            format!("{error:?}"),
            "lock is misconfigured: correct the host: lock is unavailable: no route"
        );
        assert!(format!("{error:#?}").contains("kind: Misconfigured"));
    }
}
