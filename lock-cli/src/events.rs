//! What the library says, on standard error.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

use crate::output::in_seconds;
use crate::telling::say;

/// How the line begins that says where the locks are. It is a warning for files, which a service should
/// know, and a command that runs every minute should not repeat.
const WHERE: &str = "Distributed locks: ";

/// Whether warnings and errors are shown only where more was asked for.
static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// The target by which the library tells that the store grants nothing for a while.
pub(crate) const QUARANTINE: &str = "lock_core::quarantine";

/// Until when it does, as far as is known.
static GRANTS_FROM: Mutex<Option<Instant>> = Mutex::new(None);

/// That the store grants no lock now, if it has said so: a lock that is not held is refused.
pub(crate) fn granting_nothing() -> Option<String> {
    let from = *GRANTS_FROM.lock().unwrap_or_else(PoisonError::into_inner);
    let left = from?.checked_duration_since(Instant::now())?;
    // Not 0 s.
    let left = in_seconds(left + Duration::from_secs(1));
    Some(format!(
        "the store grants no lock for {left} more: it was restarted or replaced, or its clock has jumped, and it may \
         have forgotten who holds what (quarantine)"
    ))
}

/// From here on `dlock` says itself what becomes of the lock, among what its command says.
pub(crate) fn quiet() {
    IS_QUIET.store(true, Ordering::Relaxed);
}

/// Shows warnings and errors; with more verbosity, more.
pub(crate) fn show(verbose: u8) {
    let level = match verbose {
        0 => Level::WARN,
        1 => Level::INFO,
        _ => Level::DEBUG,
    };
    let shown = registry().with(Shown { level });
    // There is no other: this is the first thing that the process does.
    let _ = tracing::subscriber::set_global_default(shown);
}

struct Shown {
    level: Level,
}

impl<S: Subscriber> Layer<S> for Shown {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target() == QUARANTINE {
            Said::of(event).note_quarantine();
        }
        // Drivers say nothing that a user of this command could act upon.
        let is_ours = ["lock_core", "dlock"]
            .iter()
            .any(|ours| metadata.target().starts_with(ours));
        if *metadata.level() > self.level || !is_ours {
            return;
        }
        let said = Said::of(event);
        if self.level == Level::WARN && (said.is_place() || IS_QUIET.load(Ordering::Relaxed)) {
            return;
        }
        say(&match *metadata.level() {
            Level::ERROR => format!("error: {said}"),
            Level::WARN => format!("warning: {said}"),
            _ => said.to_string(),
        });
    }
}

/// The words of an event, and its fields.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) message: String,
    /// The field `check` of what the library has checked.
    pub(crate) check: String,
    /// The field `left_ms` of what is over by itself.
    left: Option<Duration>,
    fields: String,
}

impl Said {
    /// Whether it says where the locks are.
    pub(crate) fn is_place(&self) -> bool {
        self.message.starts_with(WHERE)
    }

    /// Takes note of how long a store grants nothing.
    pub(crate) fn note_quarantine(&self) {
        if let Some(from) = self.left.and_then(|left| Instant::now().checked_add(left)) {
            *GRANTS_FROM.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
        }
    }

    pub(crate) fn of(event: &Event<'_>) -> Self {
        let mut said = Self::default();
        event.record(&mut said);
        said
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // It writes to text, which does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "check" => write!(self.check, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "left_ms" {
            self.left = Some(Duration::from_millis(value));
        }
        self.record_debug(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.fields.trim_start() {
            "" => Ok(()),
            fields => write!(f, " ({fields})"),
        }
    }
}
