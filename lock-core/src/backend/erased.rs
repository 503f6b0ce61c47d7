//! The one place where a [`Backend`] loses its type: futures are boxed, grants share one
//! allocation with what the library keeps about them.

use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::providers::Member;
use super::{Attempt, Backend, Grant, LockRequest};
use crate::guard::Hold;
use crate::{Holder, Listing, LockError, LockName};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A lock that was granted, and that is not a guard yet; dropping it releases the lock.
pub(crate) type Granted = Arc<Held>;

/// A try on its way.
pub(crate) type Command = BoxFuture<Result<Attempt<Granted>, LockError>>;

/// A try of several names on its way.
pub(crate) type ManyCommand = BoxFuture<Result<Vec<(usize, Granted)>, LockError>>;

/// A try that has begun.
pub(crate) enum Begun {
    Ready(Result<Attempt<Granted>, LockError>),
    Pending(Command),
}

/// What is known of a held lock, and its grant.
pub(crate) struct Held<S: ?Sized = dyn Slot> {
    pub(crate) hold: Hold,
    slot: S,
}

/// Where the grant is until it is released.
pub(crate) trait Slot: Send + Sync {
    /// Starts the release, once, and gives what tells its end; `None` if it has ended already.
    fn release(&self) -> Option<BoxFuture<Result<(), LockError>>>;
    /// Moves the grant to the next hold, if it can serve another holder.
    fn hand_over(&self, next: Hold) -> Option<Granted>;
    /// Whether the store keeps the lock closed after the release that follows.
    fn keep(&self) -> bool;
    /// Asks for a token; `None` if the lock was released.
    fn fencing_token(&self) -> Option<BoxFuture<Result<u64, LockError>>>;
}

impl Held {
    pub(crate) fn slot(&self) -> &dyn Slot {
        &self.slot
    }
}

struct GrantSlot<B: Backend>(Mutex<Option<B::Grant>>);

impl<B: Backend> GrantSlot<B> {
    fn grant(&self) -> MutexGuard<'_, Option<B::Grant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> Slot for GrantSlot<B> {
    fn release(&self) -> Option<BoxFuture<Result<(), LockError>>> {
        let grant = self.grant().take()?;
        if B::IMMEDIATE {
            // Outside the lock: it is the backend's code.
            drop(grant);
            return None;
        }
        Some(Box::pin(grant.release()))
    }

    fn hand_over(&self, next: Hold) -> Option<Granted> {
        let grant = self.grant().take_if(Grant::hand_over)?;
        Some(join::<B>(next, grant))
    }

    fn keep(&self) -> bool {
        self.grant().as_mut().is_some_and(Grant::keep)
    }

    fn fencing_token(&self) -> Option<BoxFuture<Result<u64, LockError>>> {
        let grant = self.grant();
        Some(Box::pin(grant.as_ref()?.fencing_token()))
    }
}

fn hold<B: Backend>(request: LockRequest, grant: B::Grant) -> Granted {
    let (mode, at_least) = (request.mode(), request.at_least());
    let hold = Hold::new(request.into_name(), mode, grant.lease().clone());
    if at_least.is_some() {
        hold.tie();
    }
    join::<B>(hold, grant)
}

fn join<B: Backend>(hold: Hold, grant: B::Grant) -> Granted {
    let slot = GrantSlot::<B>(Mutex::new(Some(grant)));
    Arc::new(Held { hold, slot })
}

/// A [`Backend`] without its type.
pub(crate) trait DynBackend: Send + Sync {
    fn kind(&self) -> &'static str;
    /// Whether it grants locks that are shared.
    fn has_readers(&self) -> bool;
    fn begin(&self, request: LockRequest) -> Begun;
    fn begin_many(&self, requests: Vec<LockRequest>, limit: usize) -> ManyCommand;
    fn changed(&self, request: &LockRequest) -> BoxFuture<()>;
    fn holder(&self, name: LockName) -> BoxFuture<Result<Option<Holder>, LockError>>;
    fn list(&self, limit: usize) -> BoxFuture<Result<Listing, LockError>>;
    fn instance(&self) -> Option<String>;
    fn health(&self) -> BoxFuture<Result<(), LockError>>;
    /// Closes the backend, unless another provider uses it.
    fn close(&self) -> BoxFuture<()>;
}

/// The backend of one provider.
pub(crate) fn erase<B: Backend>(backend: B) -> Box<dyn DynBackend> {
    let providers = backend.providers().cloned().unwrap_or_default();
    Box::new(Erased {
        member: providers.join(),
        backend: Arc::new(backend),
    })
}

struct Erased<B> {
    backend: Arc<B>,
    member: Member,
}

/// The same answer with the grant in the form that the library keeps.
fn held<B: Backend>(
    request: LockRequest,
    answer: Result<Attempt<B::Grant>, LockError>,
) -> Result<Attempt<Granted>, LockError> {
    Ok(match answer? {
        Attempt::Granted(grant) => Attempt::Granted(hold::<B>(request, grant)),
        Attempt::Held { retry_in } => Attempt::Held { retry_in },
    })
}

impl<B: Backend> DynBackend for Erased<B> {
    fn kind(&self) -> &'static str {
        B::KIND
    }

    fn has_readers(&self) -> bool {
        B::SHARED
    }

    fn begin(&self, request: LockRequest) -> Begun {
        if B::IMMEDIATE {
            let mut cx = Context::from_waker(Waker::noop());
            let answer = pin!(self.backend.try_acquire(&request)).poll(&mut cx);
            if let Poll::Ready(answer) = answer {
                return Begun::Ready(held::<B>(request, answer));
            }
        }
        let backend = Arc::clone(&self.backend);
        Begun::Pending(Box::pin(async move {
            let answer = backend.try_acquire(&request).await;
            held::<B>(request, answer)
        }))
    }

    fn begin_many(&self, requests: Vec<LockRequest>, limit: usize) -> ManyCommand {
        let backend = Arc::clone(&self.backend);
        // A backend sends tries of many callers together; each question for many goes by itself.
        if limit > 0
            && let [request] = &requests[..]
        {
            let request = request.clone();
            return Box::pin(async move {
                let answer = backend.try_acquire(&request).await;
                Ok(match held::<B>(request, answer)? {
                    Attempt::Granted(granted) => vec![(0, granted)],
                    Attempt::Held { .. } => Vec::new(),
                })
            });
        }
        Box::pin(async move {
            let granted = backend.try_acquire_many(&requests, limit).await?;
            let hold = |(position, grant): (usize, _)| {
                let request = requests[position].clone();
                (position, hold::<B>(request, grant))
            };
            Ok(granted.into_iter().map(hold).collect())
        })
    }

    fn changed(&self, request: &LockRequest) -> BoxFuture<()> {
        Box::pin(self.backend.changed(request))
    }

    fn holder(&self, name: LockName) -> BoxFuture<Result<Option<Holder>, LockError>> {
        let backend = Arc::clone(&self.backend);
        Box::pin(async move { backend.holder(&name).await })
    }

    fn list(&self, limit: usize) -> BoxFuture<Result<Listing, LockError>> {
        let backend = Arc::clone(&self.backend);
        Box::pin(async move { backend.list(limit).await })
    }

    fn instance(&self) -> Option<String> {
        self.backend.instance()
    }

    fn health(&self) -> BoxFuture<Result<(), LockError>> {
        let backend = Arc::clone(&self.backend);
        Box::pin(async move { backend.health().await })
    }

    fn close(&self) -> BoxFuture<()> {
        if !self.member.leave() {
            return Box::pin(ready(()));
        }
        let backend = Arc::clone(&self.backend);
        Box::pin(async move { backend.close().await })
    }
}
