//! How one question is answered.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How a question is answered.
#[derive(Clone, Copy, Debug, Default)]
pub enum Play {
    /// Immediately.
    #[default]
    Answer,
    /// After this long, with what is true then.
    Late(Duration),
    /// What is asked is done immediately, the answer comes after this long.
    DoneThenLate(Duration),
    /// What is asked is done immediately, the answer comes when it is [let go](super::ScriptedBackend::let_go).
    DoneThenHang,
    /// When it is [let go](super::ScriptedBackend::let_go), with what is true then.
    Hang,
    /// With an error, immediately: unavailable, for this reason.
    Fail(&'static str),
    /// With that error, after this long.
    FailLate(Duration, &'static str),
    /// With an error that no retry heals.
    Misconfigured,
    /// With a panic: the backend has a bug.
    Panic,
}

/// What is to be played.
#[derive(Debug, Default)]
pub(super) struct Script(Mutex<(VecDeque<Play>, Play)>);

impl Script {
    pub(super) fn add(&self, plays: impl IntoIterator<Item = Play>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .extend(plays);
    }

    pub(super) fn otherwise(&self, play: Play) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = play;
    }

    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }

    pub(super) fn next(&self) -> Play {
        let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        script.0.pop_front().unwrap_or(script.1)
    }
}
