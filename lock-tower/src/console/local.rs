//! What this instance holds, waits for, has lost and was refused. No store is asked.

use std::cmp::Reverse;
use std::time::SystemTime;

use lock_core::{Activity, LocalLock, LockName, LockProvider};
use serde::Serialize;

use super::rows::{SHOWN, millis};

/// How many losses the library remembers.
pub(super) const LOSSES: usize = 50;

/// What this instance knows by itself.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Local {
    /// What it is called in the store.
    pub(super) instance: Option<String>,
    pub(super) taken_at: String,
    pub(super) here: Vec<Here>,
    pub(super) here_total: usize,
    pub(super) lost: Vec<Lost>,
    pub(super) templates: Vec<Template>,
    pub(super) templates_total: usize,
    /// The longest line of all, also of a lock that is not shown.
    #[serde(skip)]
    pub(super) line: Option<Here>,
}

/// A lock that tasks of this instance hold or wait for.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Here {
    pub(super) lock: String,
    pub(super) name: Option<String>,
    pub(super) held_ms: Option<u64>,
    pub(super) readers: usize,
    pub(super) waiting: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Lost {
    pub(super) lock: String,
    pub(super) name: Option<String>,
    pub(super) at: String,
    pub(super) held_ms: u64,
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Template {
    pub(super) lock: String,
    pub(super) held: u64,
    pub(super) waiting: u64,
    pub(super) contended: u64,
    pub(super) failed: u64,
}

impl Local {
    pub(super) fn of(provider: &LockProvider, has_names: bool) -> Self {
        let activity = provider.activity();
        let here = |lock: &LocalLock| Here {
            lock: lock.name().label().to_owned(),
            name: shown(lock.name(), has_names),
            held_ms: lock.held_for().map(millis),
            readers: lock.readers(),
            waiting: lock.waiting(),
        };
        let mut locks: Vec<_> = activity.locks().iter().collect();
        let line = locks.iter().max_by_key(|lock| lock.waiting());
        let line = line
            .filter(|lock| lock.waiting() > 0)
            .map(|lock| here(lock));
        // Held ones, the longest first, then lines, the longest first.
        locks.sort_by_key(|lock| Reverse((lock.held_for(), lock.waiting())));
        locks.truncate(SHOWN);
        Self {
            instance: provider.instance(),
            taken_at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            here: locks.into_iter().map(here).collect(),
            here_total: activity.locks().len(),
            lost: lost(&activity, has_names),
            templates: templates(&activity),
            templates_total: activity.labels().len(),
            line,
        }
    }
}

fn lost(activity: &Activity, has_names: bool) -> Vec<Lost> {
    let lost = activity.losses().iter().map(|loss| Lost {
        lock: loss.name().label().to_owned(),
        name: shown(loss.name(), has_names),
        at: humantime::format_rfc3339_millis(loss.at()).to_string(),
        held_ms: millis(loss.held_for()),
        reason: loss.reason().as_str(),
    });
    lost.collect()
}

/// Those with the most that wait, then the most that were refused, first.
fn templates(activity: &Activity) -> Vec<Template> {
    let mut labels: Vec<_> = activity.labels().iter().collect();
    labels.sort_by_key(|label| {
        let busy = Reverse((label.waiting(), label.contended(), label.held()));
        (busy, label.label())
    });
    labels.truncate(SHOWN);
    let templates = labels.into_iter().map(|label| Template {
        lock: label.label().to_owned(),
        held: label.held(),
        waiting: label.waiting(),
        contended: label.contended(),
        failed: label.failed(),
    });
    templates.collect()
}

/// The name, where names are shown.
fn shown(name: &LockName, has_names: bool) -> Option<String> {
    has_names.then(|| name.as_str().to_owned())
}
