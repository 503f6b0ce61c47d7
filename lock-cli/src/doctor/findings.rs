//! What is found, in the order in which it was.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

use crate::events::{QUARANTINE, Said};

/// The target of what the library has checked.
const CHECKS: &str = "lock_core::check";

/// Whether a check has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Result {
    Passed,
    Warning,
    Failed,
}

/// What a check has found, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: String,
    pub(super) result: Result,
    pub(super) found: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Findings(Arc<Mutex<Vec<Finding>>>);

impl Findings {
    /// Collects, from here on, what the library says.
    pub(super) fn collect() -> Self {
        let findings = Self::default();
        let subscriber = registry().with(findings.clone());
        // There is no other: this is the first thing that the process does.
        let _ = tracing::subscriber::set_global_default(subscriber);
        findings
    }

    pub(super) fn passed(&self, check: &str, found: &str) {
        self.add(check, Result::Passed, found.to_owned());
    }

    pub(super) fn warning(&self, check: &str, found: &str) {
        self.add(check, Result::Warning, found.to_owned());
    }

    pub(super) fn failed(&self, check: &str, found: &str) {
        self.add(check, Result::Failed, found.to_owned());
    }

    /// The same twice is one: a cluster has several servers, and each is checked.
    fn add(&self, check: &str, result: Result, found: String) {
        let finding = Finding {
            check: check.to_owned(),
            result,
            found,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&finding) {
            all.push(finding);
        }
    }

    pub(super) fn all(&self) -> Vec<Finding> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl<S: Subscriber> Layer<S> for Findings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (target, level) = (event.metadata().target(), *event.metadata().level());
        let said = Said::of(event);
        if target == QUARANTINE {
            return said.note_quarantine();
        }
        if target == CHECKS {
            return self.passed(&said.check, &said.message);
        }
        if !target.starts_with("lock_core") {
            return;
        }
        // Where the locks are, which is a warning for files: a fact here.
        if said.is_place() {
            return self.passed("store", &said.to_string());
        }
        match level {
            Level::ERROR => self.failed("library", &said.to_string()),
            Level::WARN => self.warning("library", &said.to_string()),
            _ => {}
        }
    }
}
