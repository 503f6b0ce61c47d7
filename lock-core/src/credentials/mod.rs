//! Users and passwords that change while a process runs.

mod ask;
mod refusals;

use std::fmt;

use crate::LockError;

pub(crate) use ask::{Ask, Asker};
pub(crate) use refusals::Refusals;

/// Of credentials that a server refused.
pub(crate) const GIVEN: &str = "they came from the function given to `credentials`";

/// A user of a server and its password, as they are now: the answer of the function that is given to
/// `credentials(..)` of a builder. Its `Debug` does not show the password.
///
/// ```
/// use lock_core::Credentials;
///
/// let given = Credentials::new("app", "s3cret");
/// assert!(!format!("{given:?}").contains("s3cret"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: Option<String>,
    password: String,
}

impl Credentials {
    /// A user and its password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: Some(user.into()),
            password: password.into(),
        }
    }

    /// The password of the user that the connection string (or the pool) names.
    pub fn password(password: impl Into<String>) -> Self {
        Self {
            user: None,
            password: password.into(),
        }
    }

    pub(crate) fn get_user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(crate) fn get_password(&self) -> &str {
        &self.password
    }

    /// What no server takes would look like a wrong password.
    fn check(&self) -> Result<(), LockError> {
        let wrong = |what: &str| {
            let text = format!("the function given to `credentials` gave {what}");
            Err(LockError::misconfigured(text))
        };
        match self.get_user() {
            Some("") => return wrong("an empty user"),
            Some(user) if user.contains('\0') => return wrong("a user with a NUL in it"),
            _ => {}
        }
        match self.get_password() {
            "" => wrong("an empty password"),
            password if password.contains('\0') => wrong("a password with a NUL in it"),
            password if password.ends_with(['\n', '\r']) => {
                wrong("a password that ends with a line break; remove it, as with `trim_end()`")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
