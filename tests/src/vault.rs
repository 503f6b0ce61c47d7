//! An application whose credentials change.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lock_core::Credentials;

/// What the application knows, and how often it was asked for it.
#[derive(Clone, Debug)]
pub struct Vault(Arc<(Mutex<Credentials>, AtomicUsize)>);

impl Vault {
    /// One that gives these.
    #[must_use]
    pub fn with(given: Credentials) -> Self {
        Self(Arc::new((Mutex::new(given), AtomicUsize::new(0))))
    }

    /// Gives these from now on.
    pub fn set(&self, given: Credentials) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = given;
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }

    /// The credentials of now.
    ///
    /// # Errors
    ///
    /// None.
    pub async fn read(self) -> Result<Credentials, Infallible> {
        self.0.1.fetch_add(1, Ordering::Relaxed);
        // Which takes the runtime of the application.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let given = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(given.clone())
    }
}
