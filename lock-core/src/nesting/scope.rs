//! Whose protected work is being polled on this thread.

use std::cell::RefCell;
use std::sync::Arc;

use super::flow::Flow;
use super::{Mark, Watch};
use crate::LockGuard;

thread_local! {
    static SCOPES: RefCell<Vec<Scope>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Copy)]
struct Scope {
    /// Tells one watch from the other; it lives while its hold does.
    watch: *const Watch,
    flow: Flow,
    id: u64,
}

/// Calls back for each hold of this watch inside whose protection the caller is.
pub(super) fn each(watch: &Arc<Watch>, mut see: impl FnMut(Flow, u64)) {
    SCOPES.with_borrow(|scopes| {
        let mine = scopes
            .iter()
            .filter(|scope| scope.watch == Arc::as_ptr(watch));
        mine.for_each(|scope| see(scope.flow, scope.id));
    });
}

/// Whether the caller is inside the protection of this hold.
pub(super) fn contains(watch: &Watch, id: u64) -> bool {
    SCOPES.with_borrow(|scopes| {
        scopes
            .iter()
            .any(|scope| std::ptr::eq(scope.watch, watch) && scope.id == id)
    })
}

/// The marks of guards that protect work, until this is dropped. Of many guards few are watched.
pub(crate) struct Protection<'a>(Vec<&'a Mark>);

impl<'a> Protection<'a> {
    /// `None` where none of them is watched.
    pub(crate) fn of(guards: &'a [LockGuard]) -> Option<Self> {
        let marks: Vec<_> = guards.iter().filter_map(LockGuard::mark).collect();
        if marks.is_empty() {
            return None;
        }
        for mark in &marks {
            mark.change_protects(|protects| *protects += 1);
        }
        Some(Self(marks))
    }

    /// From now on, until the result is dropped, this thread polls the work.
    pub(crate) fn enter(&self) -> Entered {
        let scopes = self.0.iter().map(|mark| Scope {
            watch: Arc::as_ptr(&mark.watch),
            flow: mark.flow,
            id: mark.id,
        });
        SCOPES.with_borrow_mut(|entered| {
            let before = entered.len();
            entered.extend(scopes);
            Entered { before }
        })
    }
}

impl Drop for Protection<'_> {
    fn drop(&mut self) {
        for mark in &self.0 {
            mark.change_protects(|protects| *protects -= 1);
        }
    }
}

/// How many scopes there were before.
pub(crate) struct Entered {
    before: usize,
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Without a panic at the end of the thread.
        let _ = SCOPES.try_with(|scopes| scopes.borrow_mut().truncate(self.before));
    }
}
