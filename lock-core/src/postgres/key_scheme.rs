//! Which keys a backend locks.

use std::sync::Arc;

use super::key::Keys;
use super::medallion;
use crate::{LockError, LockName};

/// How a name becomes the [key](super::AdvisoryKey) of an advisory lock: by
/// [`PostgresBuilder::keys`](super::PostgresBuilder::keys). Processes with different schemes do not exclude
/// each other: all that lock the same things need the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyScheme {
    /// That of [`advisory_key`](super::advisory_key).
    #[default]
    Sha256,
    /// That of [DistributedLock.Postgres](https://github.com/madelson/DistributedLock)
    /// (`Medallion.Threading`), which .NET services use: its `PostgresDistributedLock` of the same name, with
    /// hashing allowed as its provider has it, excludes guards, and guards exclude it.
    ///
    /// The name is that of the lock, `order:process:42`, or the text that
    /// [`key_text`](super::PostgresBuilder::key_text) gives for it. There are no namespaces.
    ///
    /// What is promised for guards here stays as it is. Of the locks of .NET services it is not:
    ///
    /// - Their release notifies no process: waiters here try for the lock a few times a second. A release
    ///   here wakes them immediately, since they wait in the server. For that they come first, and while
    ///   always one of them waits, waiters here get nothing.
    /// - They have no lease: the lock of a .NET process that is frozen or cut off stays until the server ends
    ///   its connection (`tcp_keepalives_idle` of the server, `Keepalive` of its connection string).
    /// - They have no fencing token: a [`Fence`](super::Fence) does not stop what they write late.
    /// - A .NET lock that its program multiplexes, or takes through a pooler in transaction mode, is
    ///   no lock here either.
    ///
    /// Its `PostgresDistributedReaderWriterLock` has the same keys: a guard here excludes readers and
    /// writers.
    Medallion,
}

/// The text that takes the place of a name in its key.
type Text = dyn Fn(&LockName) -> String + Send + Sync;

/// How the names of one backend become keys.
#[derive(Clone, Default)]
pub(super) struct Names {
    pub(super) namespace: Box<str>,
    pub(super) scheme: KeyScheme,
    pub(super) text: Option<Arc<Text>>,
}

impl Names {
    /// # Errors
    ///
    /// Where the scheme has no place for the namespace.
    pub(super) fn check(&self) -> Result<(), LockError> {
        if self.scheme == KeyScheme::Medallion && !self.namespace.is_empty() {
            return Err(LockError::misconfigured(
                "the keys of `KeyScheme::Medallion` have no namespace; leave it empty, and put what tells \
                 applications apart into the text of `key_text`, as the .NET services have it",
            ));
        }
        Ok(())
    }

    pub(super) fn keys(&self, name: &LockName) -> Keys {
        match &self.text {
            None => self.keys_of(name.as_str()),
            Some(text) => self.keys_of(&text(name)),
        }
    }

    fn keys_of(&self, text: &str) -> Keys {
        match self.scheme {
            KeyScheme::Sha256 => Keys::new(&self.namespace, text),
            KeyScheme::Medallion => Keys::of_others(medallion::key(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::AdvisoryKey;

    fn names(scheme: KeyScheme, namespace: &str) -> Names {
        Names {
            namespace: namespace.into(),
            scheme,
            text: None,
        }
    }

    #[test]
    fn a_namespace_that_keys_have_no_place_for_is_refused() {
        let error = names(KeyScheme::Medallion, "shop").check().unwrap_err();
        assert!(error.is_misconfigured() && error.to_string().contains("key_text"));
        assert!(names(KeyScheme::Medallion, "").check().is_ok());
        assert!(names(KeyScheme::Sha256, "shop").check().is_ok());
    }

    #[test]
    fn a_key_is_of_the_text_that_is_given_for_the_name() {
        let name: LockName = "order:process:42".parse().unwrap();
        let mut names = names(KeyScheme::Medallion, "");
        let hashed = AdvisoryKey::Bigint(-7201617905283468966);
        assert_eq!(names.keys(&name).key(), hashed);
        names.text = Some(Arc::new(|_| "job:abc".to_owned()));
        let short = AdvisoryKey::Pair(-708897876, 951173119);
        assert_eq!(names.keys(&name).key(), short);
    }
}
