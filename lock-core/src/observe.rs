//! What operators see: metrics through the `metrics` facade.
//!
//! | metric | labels | counts |
//! |---|---|---|
//! | `distributed_lock_acquire_duration_seconds` | `backend`, `lock`, `outcome` | each acquire, by how it ended: `acquired`; `contended`, which is no failure; `cancelled` where its future was dropped; `unavailable`, `closed`, `failed` |
//! | `distributed_lock_hold_duration_seconds` | `backend`, `lock`, `outcome` | each hold that ended: `released` or `lost` |
//! | `distributed_lock_held`, `distributed_lock_waiting` | `backend`, `lock` | what the process holds and waits for now, set at each change: right also where the recorder came later or has forgotten an idle series |
//! | `distributed_lock_lost_total` | `reason` | losses |
//! | `distributed_lock_renew_headroom_seconds` | `backend` | what was left of the lease, or of the shortest of several, when a renewal was answered |
//! | `distributed_lock_release_failures_total` | | releases after the work was done that failed |
//!
//! `lock` is a template or `entity:operation`. A claim is an acquire of each lock that it gets. A
//! question for many that fails or is dropped, of a claim or of an `acquire_all`, counts once for each
//! `lock` in it. A job that was skipped is an acquire of `job:..` that
//! was `contended`. Keys are built once per label and backend; a cycle costs no allocation here.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use metrics::{Key, Label, Level, Metadata, with_recorder};

use crate::outage::Crowd;
use crate::{LabelActivity, LockErrorKind, LossReason};

/// Labels beyond this many are counted together: a label per entity is bounded, but a mistake
/// (an entity made from user input) must not cost a series each.
const MAX_LABELS: usize = 1_000;
const OTHER: &str = "other";

const ACQUIRE: &str = "distributed_lock_acquire_duration_seconds";
const HOLD: &str = "distributed_lock_hold_duration_seconds";
const HELD: &str = "distributed_lock_held";
const WAITING: &str = "distributed_lock_waiting";
const LOST: &str = "distributed_lock_lost_total";
const RENEW_HEADROOM: &str = "distributed_lock_renew_headroom_seconds";
const RELEASE_FAILURES: &str = "distributed_lock_release_failures_total";

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// How asking for a lock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcquireOutcome {
    Acquired,
    Contended,
    Cancelled,
    Unavailable,
    Closed,
    Failed,
}

impl AcquireOutcome {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Acquired, "acquired"),
        (Self::Contended, "contended"),
        (Self::Cancelled, "cancelled"),
        (Self::Unavailable, "unavailable"),
        (Self::Closed, "closed"),
        (Self::Failed, "failed"),
    ];

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl From<LockErrorKind> for AcquireOutcome {
    fn from(kind: LockErrorKind) -> Self {
        match kind {
            LockErrorKind::Contended => Self::Contended,
            LockErrorKind::Unavailable => Self::Unavailable,
            LockErrorKind::Closed => Self::Closed,
            LockErrorKind::Lost | LockErrorKind::InvalidName | LockErrorKind::Misconfigured => {
                Self::Failed
            }
        }
    }
}

/// How holding a lock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldOutcome {
    Released,
    Lost,
}

impl HoldOutcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Lost => "lost",
        }
    }
}

/// The metric keys of every label of one provider.
pub(crate) struct Observer {
    backend: &'static str,
    keys: RwLock<HashMap<Box<str>, Arc<Keys>>>,
}

/// The metric keys of one label.
pub(crate) struct Keys {
    acquire: [Key; AcquireOutcome::ALL.len()],
    released: Key,
    lost: Key,
    held: Key,
    waiting: Key,
    counts: Arc<Counts>,
}

/// What the gauges of one backend and label show, for all providers of this process. Counted here and
/// not by the recorder: that can forget a series which did not change for long, or begin in the middle.
#[derive(Default)]
struct Counts {
    held: AtomicI64,
    waiting: AtomicI64,
    contended: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    fn of(backend: &'static str, lock: &Arc<str>) -> Arc<Self> {
        /// Weak: a label that no provider has any more counts nothing.
        type All = BTreeMap<(&'static str, Arc<str>), Weak<Counts>>;
        static ALL: Mutex<All> = Mutex::new(BTreeMap::new());

        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (backend, Arc::clone(lock));
        if let Some(counts) = all.get(&key).and_then(Weak::upgrade) {
            return counts;
        }
        all.retain(|_, counts| counts.strong_count() > 0);
        let counts = Arc::default();
        all.insert(key, Arc::downgrade(&counts));
        counts
    }
}

/// Changes a count and shows it.
fn count(key: &Key, count: &AtomicI64, change: i64) {
    let mut now = count.fetch_add(change, Ordering::SeqCst) + change;
    with_recorder(|recorder| {
        let gauge = recorder.register_gauge(key, &METADATA);
        loop {
            gauge.set(now as f64);
            // Two threads can show their counts in the wrong order: the last to show one looks again.
            match count.load(Ordering::SeqCst) {
                same if same == now => return,
                newer => now = newer,
            }
        }
    });
}

impl Observer {
    pub(crate) fn new(backend: &'static str) -> Self {
        describe();
        Self {
            backend,
            keys: RwLock::default(),
        }
    }

    /// The keys of this label, or of `other` when there are too many.
    pub(crate) fn keys(&self, label: &str) -> Arc<Keys> {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let is_full = known.len() >= MAX_LABELS;
        let keys = known
            .get(label)
            .or_else(|| known.get(OTHER).filter(|_| is_full));
        if let Some(keys) = keys {
            return Arc::clone(keys);
        }
        drop(known);
        let label = if is_full { OTHER } else { label };
        let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Keys::new(self.backend, label));
        Arc::clone(known.entry(label.into()).or_insert_with(new))
    }

    /// What each label has come to.
    pub(crate) fn labels(&self) -> Vec<LabelActivity> {
        let known = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        (known.iter())
            .map(|(label, keys)| keys.activity(label))
            .collect()
    }
}

impl Keys {
    fn new(backend: &'static str, lock: &str) -> Self {
        let lock: Arc<str> = lock.into();
        let labels = || {
            vec![
                Label::new("backend", backend),
                Label::new("lock", Arc::clone(&lock)),
            ]
        };
        let outcome = |name, outcome| {
            let mut labels = labels();
            labels.push(Label::new("outcome", outcome));
            Key::from_parts(name, labels)
        };
        Self {
            acquire: AcquireOutcome::ALL.map(|(_, text)| outcome(ACQUIRE, text)),
            released: outcome(HOLD, HoldOutcome::Released.as_str()),
            lost: outcome(HOLD, HoldOutcome::Lost.as_str()),
            held: Key::from_parts(HELD, labels()),
            waiting: Key::from_parts(WAITING, labels()),
            counts: Counts::of(backend, &lock),
        }
    }

    pub(crate) fn acquired(&self, outcome: AcquireOutcome, after: Duration) {
        let key = &self.acquire[outcome as usize];
        with_recorder(|recorder| recorder.register_histogram(key, &METADATA).record(after));
        let refused = match outcome {
            AcquireOutcome::Contended => &self.counts.contended,
            AcquireOutcome::Unavailable | AcquireOutcome::Failed => &self.counts.failed,
            // What is well, or no fault, costs nothing here.
            AcquireOutcome::Acquired | AcquireOutcome::Cancelled | AcquireOutcome::Closed => return,
        };
        refused.fetch_add(1, Ordering::Relaxed);
    }

    fn activity(&self, label: &str) -> LabelActivity {
        let Counts {
            held,
            waiting,
            contended,
            failed,
        } = &*self.counts;
        let now = |count: &AtomicI64| count.load(Ordering::Relaxed).max(0).unsigned_abs();
        LabelActivity {
            label: label.into(),
            held: now(held),
            waiting: now(waiting),
            contended: contended.load(Ordering::Relaxed),
            failed: failed.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn held_for(&self, outcome: HoldOutcome, duration: Duration) {
        let key = match outcome {
            HoldOutcome::Released => &self.released,
            HoldOutcome::Lost => &self.lost,
        };
        with_recorder(|recorder| recorder.register_histogram(key, &METADATA).record(duration));
    }

    /// Counts one more lock that is held, or one less.
    pub(crate) fn held(&self, change: i64) {
        count(&self.held, &self.counts.held, change);
    }

    /// Counts one more that waits, until the result is dropped.
    pub(crate) fn waiting(self: &Arc<Self>) -> Waiting {
        self.change_waiting(1);
        Waiting(Arc::clone(self))
    }

    fn change_waiting(&self, change: i64) {
        count(&self.waiting, &self.counts.waiting, change);
    }
}

/// One that waits for a lock.
pub(crate) struct Waiting(Arc<Keys>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.change_waiting(-1);
    }
}

/// Tells the recorder, if there is one already, what the metrics are.
fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

    describe_histogram!(
        ACQUIRE,
        Unit::Seconds,
        "How long asking for a lock took, by how it ended"
    );
    describe_histogram!(
        HOLD,
        Unit::Seconds,
        "How long a lock was held, by how that ended"
    );
    describe_gauge!(HELD, "Locks that this process holds");
    describe_gauge!(WAITING, "Tasks of this process that wait for a lock");
    describe_counter!(LOST, "Locks that were lost while they were held");
    describe_histogram!(
        RENEW_HEADROOM,
        Unit::Seconds,
        "What was left of a lease when its renewal was answered"
    );
    describe_counter!(
        RELEASE_FAILURES,
        "Releases that failed after the work was done"
    );
}

/// Records what was left of a lease when its renewal was answered; of several that were renewed
/// together, the least.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) fn renew_headroom(backend: &'static str, left: Duration) {
    metrics::histogram!(RENEW_HEADROOM, "backend" => backend).record(left);
}

/// Counts a lock that was lost while it was held.
pub(crate) fn lost(reason: LossReason) {
    metrics::counter!(LOST, "reason" => reason.as_str()).increment(1);
}

/// Logs and counts a release that failed after the work was done: in an outage all of them do.
pub(crate) fn release_failed(error: &crate::LockError) {
    static FAILED: Crowd = Crowd::new();
    let further = |releases, error: &str| {
        tracing::warn!(
            releases,
            error,
            "further releases failed after their work was done"
        );
    };
    if FAILED.is_first(&error.to_string(), further) {
        tracing::warn!(%error, "the release of a distributed lock failed after its work was done");
    } else {
        tracing::debug!(%error, "a release failed after its work was done, as others do");
    }
    metrics::counter!(RELEASE_FAILURES).increment(1);
}
