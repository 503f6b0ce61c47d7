//! Acquiring one lock: the turn, the tries, the waits between them, the deadline over all.

mod future;
mod permits;
mod seeking;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, Span};

pub use self::future::Acquire;
use super::closing::Closing;
use super::exchange::Exchange;
use super::wait::{Wait, answer, until};
use super::{Shared, Turn};
use crate::backend::{Attempt, Begun, Granted, Held, LockRequest};
use crate::guard::seat;
use crate::nesting::{Asking, Group};
use crate::observe::{AcquireOutcome, Keys};
use crate::queue::{self, Called, Entry, Stage};
use crate::terms::Terms;
use crate::{LockError, LockGuard, LockMode, LockName, LockPolicy, trace};

/// Between tries of a backend that is unavailable.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(10))
    .with_max_delay(Duration::from_secs(1))
    .without_max_times()
    .with_jitter();

/// When the wait begins, and what is followed.
pub(super) enum Waiting {
    /// With the first poll, under a policy of its own.
    From(LockPolicy),
    /// It has begun, for several locks. The policy says what is asked of the store; it is followed once all are held.
    Within(Wait, LockPolicy, Group),
}

/// An acquire that has to wait.
type Slow = Pin<Box<dyn Future<Output = Result<LockGuard, LockError>> + Send>>;

/// How an acquire began: over without a wait, or with one.
enum Started {
    Over(Result<LockGuard, LockError>),
    Slow(Slow),
}

/// The part that needs no waiting, and so no allocation.
fn start(
    shared: Arc<Shared>,
    name: LockName,
    terms: Terms,
    waiting: Waiting,
    cx: &Context<'_>,
) -> Started {
    let mut caller = Caller::new(shared, name, terms.mode(), waiting, cx.waker());
    match terms.check(&caller.policy, &*caller.shared.backend) {
        Ok(None) => {}
        Ok(Some(permits)) => return permits::start(caller, permits),
        Err(error) => return Started::Over(caller.conclude(Err(error))),
    }
    let span = caller.span.clone();
    let (mode, is_impatient) = (caller.mode, caller.wait.zero);
    match (caller.shared.queue).enter(&caller.name, mode, is_impatient) {
        Entry::Turn(turn) => match caller.shared.backend.begin(caller.request()) {
            Begun::Ready(Ok(Attempt::Granted(granted))) => {
                Started::Over(caller.conclude(Ok((turn, granted))))
            }
            begun => {
                let exchange = caller.exchange(turn, begun);
                Started::Slow(Box::pin(async move {
                    let waiting = caller.keys.waiting();
                    let outcome = caller.ask(exchange).instrument(span).await;
                    drop(waiting);
                    caller.conclude(outcome)
                }))
            }
        },
        Entry::Ticket(mut ticket, holder) => {
            if let Some(held) = holder.and_then(watched) {
                caller.waits_behind(&held);
            }
            if caller.asking.is_some() {
                caller.waits_behind_readers(ticket.awaited_readers());
            }
            Started::Slow(Box::pin(async move {
                let waiting = caller.keys.waiting();
                let outcome = match caller.in_line(&mut ticket).await {
                    // Boxed: only the first in line needs it, and the line can be long.
                    Ok((turn, gift)) => Box::pin(caller.called(turn, gift).instrument(span)).await,
                    Err(error) => Err(error),
                };
                drop(waiting);
                caller.conclude(outcome)
            }))
        }
        Entry::Refused(holder) => {
            holder.and_then(watched);
            Started::Over(caller.conclude(Err(LockError::contended())))
        }
        Entry::Closed => Started::Over(caller.conclude(Err(LockError::closed()))),
    }
}

/// What is asked of the store under a policy, by one who would hold the lock alone.
pub(super) fn request(name: LockName, policy: &LockPolicy) -> LockRequest {
    LockRequest::new(name).with_at_least(policy.at_least())
}

/// The hold that a waiter is behind. From now on it is watched: one that is lost, and whose guard is
/// kept, must not keep others from the lock, be it those who wait or those who try again and again.
pub(super) fn watched(holder: Weak<Held>) -> Option<Granted> {
    let held = holder.upgrade()?;
    held.watch();
    Some(held)
}

/// Who acquires, what, and until when. Dropped before it has concluded, it was cancelled.
pub(super) struct Caller {
    shared: Arc<Shared>,
    name: LockName,
    mode: LockMode,
    keys: Arc<Keys>,
    wait: Wait,
    policy: LockPolicy,
    /// Whether the hold follows the policy from its begin on.
    is_alone: bool,
    /// For the watch over the order of locks, where that is on.
    asking: Option<Asking>,
    span: Span,
    reported: bool,
}

impl Drop for Caller {
    fn drop(&mut self) {
        if !self.reported {
            self.report(AcquireOutcome::Cancelled);
        }
    }
}

impl Caller {
    pub(super) fn new(
        shared: Arc<Shared>,
        name: LockName,
        mode: LockMode,
        waiting: Waiting,
        waker: &Waker,
    ) -> Self {
        let (wait, policy, group, is_alone) = match waiting {
            Waiting::From(policy) => {
                let wait = Wait::new(policy, shared.response_timeout);
                (wait, policy, Group::default(), true)
            }
            Waiting::Within(wait, policy, group) => (wait, policy, group, false),
        };
        let keys = shared.observer.keys(name.label());
        let asking = shared.nesting.asks(&name, !wait.zero, group, waker);
        let span = trace::acquiring(shared.backend.kind(), &name, wait.limit());
        Self {
            shared,
            name,
            mode,
            keys,
            wait,
            policy,
            is_alone,
            asking,
            span,
            reported: false,
        }
    }

    pub(super) fn conclude(
        &mut self,
        outcome: Result<(Turn, Granted), LockError>,
    ) -> Result<LockGuard, LockError> {
        let Self {
            shared,
            name,
            keys,
            wait,
            policy,
            is_alone,
            asking,
            ..
        } = self;
        match outcome {
            Ok((turn, mut granted)) => {
                if let (Some(asking), Some(held)) = (asking, Arc::get_mut(&mut granted)) {
                    held.hold.watch_order(shared.nesting.granted(asking, name));
                }
                let guard = LockGuard::new(seat(shared, Arc::clone(keys), turn, granted));
                // After the hold is known: a shutdown that has not seen it is seen here.
                if shared.is_closing() {
                    return self.conclude(Err(LockError::closed()));
                }
                if *is_alone {
                    guard.follow(policy);
                }
                // The clock was read a moment ago.
                let waited = wait.waited_until(guard.since());
                self.report_after(AcquireOutcome::Acquired, waited);
                Ok(guard)
            }
            Err(error) => {
                let error = error.with_lock(name).with_waited(wait.waited());
                self.report(error.kind().into());
                Err(error)
            }
        }
    }

    /// A task of this process has the lock: it should not be the caller.
    fn waits_behind(&self, held: &Held) {
        if let (Some(asking), Some(holder)) = (&self.asking, held.hold.mark())
            && held.loss().is_none()
        {
            let nesting = &self.shared.nesting;
            nesting.waits_behind(asking, (&self.name, self.mode), (holder, held.hold.mode));
        }
    }

    /// Tasks of this process read, and it is their end that is waited for. They are watched as
    /// [others](watched) are.
    fn waits_behind_readers(&self, readers: Vec<Weak<Held>>) {
        for held in readers.into_iter().filter_map(watched) {
            self.waits_behind(&held);
        }
    }

    fn report(&mut self, outcome: AcquireOutcome) {
        self.report_after(outcome, self.wait.waited());
    }

    fn report_after(&mut self, outcome: AcquireOutcome, waited: Duration) {
        self.reported = true;
        self.keys.acquired(outcome, waited);
        trace::acquired(&self.span, outcome.as_str(), waited);
    }

    fn request(&self) -> LockRequest {
        request(self.name.clone(), &self.policy).with_mode(self.mode)
    }

    fn exchange(&self, turn: Turn, begun: Begun) -> Exchange {
        Exchange::new(turn, begun, self.shared.response_timeout)
    }

    /// Waits for our turn.
    async fn in_line<K: queue::Key, G, H>(
        &self,
        ticket: &mut queue::Ticket<K, G, H>,
    ) -> Result<(queue::Turn<K, G, H>, Option<G>), LockError> {
        let Wait {
            deadline,
            response_timeout,
            ..
        } = self.wait;
        // By hand, since there can be ten thousand of these: one timer for both deadlines.
        let mut timer = pin!(sleep_until(deadline.unwrap_or_else(Instant::now)));
        let mut hurried = false;
        let called = poll_fn(|cx| {
            loop {
                if let Poll::Ready(called) = Pin::new(&mut *ticket).poll(cx) {
                    return Poll::Ready(Ok(called));
                }
                let Some(deadline) = deadline else {
                    return Poll::Pending;
                };
                ready!(timer.as_mut().poll(cx));
                if hurried {
                    return Poll::Ready(Err(LockError::unanswered()));
                }
                // The answer that is due comes within a response timeout, or it does not come.
                hurried = true;
                ticket.hurry();
                timer.as_mut().reset(deadline + response_timeout);
            }
        });
        match called.await? {
            Called::Turn(turn, gift) => Ok((turn, gift)),
            Called::Refused => Err(LockError::contended()),
            Called::Closed => Err(LockError::closed()),
        }
    }

    /// Whether a grant that another has asked for serves: not one of the other mode, nor where the lock is to be
    /// kept, which the store was not asked for.
    fn takes(&self, granted: &Granted) -> bool {
        granted.is_fresh() && granted.hold.mode == self.mode && self.policy.at_least().is_none()
    }

    /// Takes what a caller that left before us was granted, or asks.
    async fn called(
        &self,
        turn: Turn,
        gift: Option<Granted>,
    ) -> Result<(Turn, Granted), LockError> {
        match gift {
            Some(granted) if self.takes(&granted) => return Ok((turn, granted)),
            // Given back before we ask: we would meet ourselves.
            Some(granted) => {
                if let Some(release) = granted.slot().release() {
                    // Unanswered, it goes on by itself. Boxed: few callers come here, and all would be larger.
                    let _ = Box::pin(until(self.wait.give_up(), release)).await;
                }
            }
            None => {}
        }
        let begun = self.shared.backend.begin(self.request());
        self.ask(self.exchange(turn, begun)).await
    }

    /// Asks until the lock is ours or the wait is over.
    ///
    /// No release is missed: after the first refusal each try is made with a registration for
    /// changes, so that a release before the try is seen by the try, and one after it by the
    /// registration.
    async fn ask(&self, mut exchange: Exchange) -> Result<(Turn, Granted), LockError> {
        let Self { shared, wait, .. } = self;
        let request = self.request();
        let mut changed = None;
        // Boxed: most callers have no use for it.
        let mut backoff: Option<Box<ExponentialBackoff>> = None;
        loop {
            // Left alone, the exchange goes on by itself when it is dropped here.
            let (turn, attempt) = answer(shared, wait, &mut exchange).await?;
            let attempt = match attempt {
                // This process stood still on its way here. Given back before we ask again.
                Ok(Attempt::Granted(stale)) if !stale.is_fresh() => Err(LockError::unanswered()),
                attempt => attempt,
            };
            match attempt {
                Ok(Attempt::Granted(granted)) => return Ok((turn, granted)),
                Ok(Attempt::Held { retry_in }) => {
                    backoff = None;
                    if changed.is_none() {
                        self.waits_behind_readers(turn.readers());
                    }
                    if wait.is_over() {
                        turn.refuse_impatient();
                        return Err(LockError::contended());
                    }
                    turn.stage(Stage::Waiting);
                    if let Some(changed) = &mut changed {
                        let retry = retry_in.and_then(|retry| Instant::now().checked_add(retry));
                        self.pause(retry, changed).await?;
                    }
                    // The one before ends after this: a writer that waits keeps readers out all the time.
                    changed = Some(shared.backend.changed(&request));
                    turn.stage(Stage::Asking);
                }
                Err(error) if error.is_unavailable() && !wait.is_over() => {
                    let delays = backoff.get_or_insert_with(|| Box::new(BACKOFF.build()));
                    let retry = delays.next().map(|delay| Instant::now() + delay);
                    // A registration is used up, also here: what is granted to it is not left lying. A
                    // store that is back says so to those who are registered.
                    let changed =
                        (changed.take()).unwrap_or_else(|| shared.backend.changed(&request));
                    let paused = self.pause(retry, changed).await;
                    // The last cause tells more than that the wait is over.
                    paused.map_err(|over| if over.is_contended() { error } else { over })?;
                }
                Err(error) => return Err(error),
            }
            exchange = self.exchange(turn, shared.backend.begin(request.clone()));
        }
    }

    /// Waits for a change, for the time of the next try, for the end of the wait (contended) or of
    /// the provider (closed), whichever is first.
    async fn pause(
        &self,
        retry: Option<Instant>,
        changed: impl Future<Output = ()>,
    ) -> Result<(), LockError> {
        let at = self.wait.bounded(retry);
        let woken = tokio::select! {
            biased;
            () = Closing::of(&self.shared) => return Err(LockError::closed()),
            woken = until(at, changed) => woken,
        };
        match woken {
            None if self.wait.is_over() => Err(LockError::contended()),
            _ => Ok(()),
        }
    }
}
