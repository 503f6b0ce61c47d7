//! What all handles of a candidate share: the term, if it leads, and whether a campaign is running.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use tokio::sync::watch;

use crate::lease::Registration;
use crate::provider::Shared;
use crate::{DistributedLock, LockGuard, LockName, LockProvider};

pub(super) struct Candidate {
    locks: LockProvider,
    lock: DistributedLock,
    /// Here and not in the campaign, whose runtime may end.
    term: watch::Sender<Option<Arc<Term>>>,
    terms: AtomicU64,
    /// Whether a task of some runtime campaigns.
    campaigning: AtomicBool,
    /// With the end of the provider.
    closing: Registration,
}

/// A time of leadership. Work that needs it keeps its lock held.
pub(super) struct Term {
    pub(super) number: u64,
    pub(super) guard: LockGuard,
}

impl Candidate {
    pub(super) fn new(locks: LockProvider, lock: DistributedLock) -> Arc<Self> {
        Arc::new_cyclic(|candidate| {
            let mut closing = Registration::default();
            let resign = Waker::from(Arc::new(Resign(candidate.clone())));
            // Closed already, there is nothing to resign from, now or later.
            let _ = locks.shared.poll_closing(&mut closing, &resign);
            Self {
                locks,
                lock,
                term: watch::Sender::new(None),
                terms: AtomicU64::new(0),
                campaigning: AtomicBool::new(false),
                closing,
            }
        })
    }

    pub(super) fn name(&self) -> &LockName {
        self.lock.name()
    }

    pub(super) fn lock(&self) -> &DistributedLock {
        &self.lock
    }

    pub(super) fn locks(&self) -> &LockProvider {
        &self.locks
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.locks.shared
    }

    /// Whether there is nothing to campaign for any more.
    pub(super) fn is_over(&self) -> bool {
        self.shared().is_closing()
    }

    /// The term, if it is valid at this moment.
    pub(super) fn leading(&self) -> Option<Arc<Term>> {
        let term = self.term();
        term.filter(|term| !self.is_over() && term.guard.is_valid())
    }

    /// The term, valid or not.
    pub(super) fn term(&self) -> Option<Arc<Term>> {
        self.term.borrow().clone()
    }

    pub(super) fn changes(&self) -> watch::Receiver<Option<Arc<Term>>> {
        self.term.subscribe()
    }

    pub(super) fn take_office(&self, guard: LockGuard) {
        let number = self.terms.fetch_add(1, Ordering::Relaxed);
        let term = Arc::new(Term { number, guard });
        self.term.send_replace(Some(term));
    }

    /// Lets go of the lock, unless work under way still needs it.
    pub(super) fn leave_office(&self) {
        self.term.send_replace(None);
    }

    /// Whether the caller is to campaign: there is something to campaign for, and no other task does.
    pub(super) fn begin_campaign(&self) -> bool {
        !self.is_over() && !self.campaigning.swap(true, Ordering::AcqRel)
    }

    /// The campaign has ended; a task that waits carries it on.
    pub(super) fn campaign_ended(&self) {
        self.campaigning.store(false, Ordering::Release);
        self.term.send_modify(|_| {});
    }
}

/// Leaves office when the provider is shut down, also where no runtime is left for the campaign.
struct Resign(Weak<Candidate>);

impl Wake for Resign {
    fn wake(self: Arc<Self>) {
        if let Some(candidate) = self.0.upgrade() {
            candidate.leave_office();
        }
    }
}

/// The last handle is gone.
impl Drop for Candidate {
    fn drop(&mut self) {
        self.locks.shared.forget_closing(&mut self.closing);
        // Immediately: the campaign, which sees the same value, ends when its runtime comes to that.
        self.leave_office();
    }
}
