//! What closures of `.param(..)` may return.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use lock_core::LockError;

/// What a closure of [`LockLayer::param`](crate::LockLayer::param) may return: text or a number,
/// also as an `Option` (`None`: the request has no such value) or a `Result`.
///
/// A value that is not there, or is an error, refuses the request with 400; a
/// [`LockError`] keeps its kind.
///
/// ```
/// # use lock_core::{LockError, LockProvider, memory::MemoryBackend};
/// # use lock_tower::LockLayer;
/// # let locks = LockProvider::new(MemoryBackend::new());
/// let layer = LockLayer::new(locks, "report:rebuild:<tenant>:<year>")?
///     .param("tenant", |parts| Some(parts.uri.host()?.to_owned()))
///     .param("year", |parts| parts.uri.path().trim_start_matches('/').parse::<u32>());
/// # Ok::<(), LockError>(())
/// ```
pub trait ParamValue {
    /// The value as text; `None` when the request has none.
    ///
    /// # Errors
    ///
    /// Why the request has none that can be used.
    fn into_value(self) -> Result<Option<String>, LockError>;
}

impl ParamValue for String {
    fn into_value(self) -> Result<Option<String>, LockError> {
        Ok(Some(self))
    }
}

impl<T: ParamValue> ParamValue for Option<T> {
    fn into_value(self) -> Result<Option<String>, LockError> {
        self.map_or(Ok(None), T::into_value)
    }
}

impl<T, E> ParamValue for Result<T, E>
where
    T: ParamValue,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    fn into_value(self) -> Result<Option<String>, LockError> {
        match self {
            Ok(value) => value.into_value(),
            Err(error) => Err(match error.into().downcast::<LockError>() {
                Ok(error) => *error,
                Err(source) => LockError::invalid_name("a value of the request could not be read")
                    .with_source(source),
            }),
        }
    }
}

macro_rules! param_values {
    ($($type:ty),* $(,)?) => {$(
        impl ParamValue for $type {
            fn into_value(self) -> Result<Option<String>, LockError> {
                Ok(Some(self.to_string()))
            }
        }
    )*};
}

param_values!(
    &'static str,
    Cow<'static, str>,
    Box<str>,
    Arc<str>,
    char,
    bool,
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
);
