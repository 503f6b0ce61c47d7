//! A server of a provider, to be asked for its health.

use std::fmt;
use std::future::ready;
use std::sync::Arc;

use super::Shared;
use crate::LockError;
use crate::health::{Companion, ServerHealth, ServerRole};

/// The server that holds the locks, or one that is only reported.
#[doc(hidden)]
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    /// 0 is the backend; the companions follow.
    number: usize,
}

impl Server {
    pub(super) fn new(shared: &Arc<Shared>, number: usize) -> Self {
        Self {
            shared: Arc::clone(shared),
            number,
        }
    }

    fn companion(&self) -> Option<&dyn Companion> {
        let number = self.number.checked_sub(1)?;
        self.shared.companions.get(number).map(|one| &**one)
    }

    /// As [`ServerHealth::name`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.companion() {
            Some(companion) => companion.name(),
            None => self.shared.backend.kind(),
        }
    }

    /// What it is for.
    #[must_use]
    pub fn role(&self) -> ServerRole {
        match self.companion() {
            Some(_) => ServerRole::Reported,
            None => ServerRole::Locks,
        }
    }

    /// Asks it, for at most the response timeout.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn into_health(self) -> ServerHealth {
        let answer = match self.companion() {
            Some(companion) => companion.health(),
            // A load balancer is to look elsewhere.
            None if self.shared.is_closing() => Box::pin(ready(Err(LockError::closed()))),
            None => self.shared.backend.health(),
        };
        let within = self.shared.response_timeout;
        ServerHealth::ask(self.name(), self.role(), answer, within).await
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name())
            .field("role", &self.role())
            .finish()
    }
}
