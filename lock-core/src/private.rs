//! What the expansions of `#[distributed_lock(..)]` and `lock_name!(..)` stand on, and `lock-tower`. No
//! part of the public interface: it changes with these.
//!
//! An expansion takes these in turn: [`provider`] or [`installed`], a [`StaticTemplate`] filled with
//! [`value`]s, [`lock`] or [`locks`], `acquire`, [`catch`] around `guard.protect(..)`, [`finish`]; and
//! where one of them refuses, [`Refused`], [`Skipped`] or what [`refuse_with`] was given make the
//! return value.

use std::any::Any;
use std::error::Error;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::Poll;

pub use crate::guard::{Settle, SharedGuard};
pub use crate::name::StaticTemplate;
pub use crate::outage::Repeated;
pub use crate::provider::Server;
/// Lets other tasks run, where a call is over without having waited for anything.
pub use tokio::task::coop::consume_budget;

use crate::permits::Permits;
use crate::terms::Terms;
use crate::{Acquire, LockError, LockGuard, LockGuards, LockName, LockPolicy, LockProvider};

/// A return type that can say that the lock was refused, or lost.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot say that the lock was refused",
    label = "this function can be refused its lock",
    note = "return `Result<T, E>` with `E: From<lock_core::LockError>`; in an axum handler `LockError` \
            is such an `E`, with the feature `axum` of `lock-core`",
    note = "or say what to return instead: `refused = |error| ..`",
    note = "or, for a job that may be left out when its lock is held, add `skip`"
)]
pub trait Refused {
    /// The return value for this error.
    fn refused(error: LockError) -> Self;
}

impl<T, E: FromLockError> Refused for Result<T, E> {
    fn refused(error: LockError) -> Self {
        Err(E::from_lock_error(error))
    }
}

/// A return type for jobs that are left out while another does them.
#[diagnostic::on_unimplemented(
    message = "`skip` does not know what `{Self}` is when the lock is held by another",
    label = "no value of this type means that the work was skipped",
    note = "`skip` works with `()`, `Option<T>`, `Result<(), E>` and `Result<Option<T>, E>`",
    note = "for other types leave `skip` out and give `busy = ..` or `refused = |error| ..`"
)]
pub trait Skipped {
    /// The return value for this error; contention is none.
    fn skipped(error: LockError) -> Self;
}

impl Skipped for () {
    fn skipped(error: LockError) {
        log_skipped(&error);
    }
}

impl<T> Skipped for Option<T> {
    fn skipped(error: LockError) -> Self {
        log_skipped(&error);
        None
    }
}

impl<E: FromLockError> Skipped for Result<(), E> {
    fn skipped(error: LockError) -> Self {
        skipped_or(error, ())
    }
}

impl<T, E: FromLockError> Skipped for Result<Option<T>, E> {
    fn skipped(error: LockError) -> Self {
        skipped_or(error, None)
    }
}

fn skipped_or<T, E: FromLockError>(error: LockError, skipped: T) -> Result<T, E> {
    if !error.is_contended() {
        return Err(E::from_lock_error(error));
    }
    log_skipped(&error);
    Ok(skipped)
}

/// The only trace of an error that the return type cannot carry.
fn log_skipped(error: &LockError) {
    const JOB: &str = "lock_core::job";
    let cause = error.source();
    if error.is_contended() {
        tracing::debug!(target: JOB, %error, "skipped: another has the lock");
    } else if error.is_lost() {
        tracing::error!(target: JOB, %error, cause, "stopped: the lock was lost, outcome unknown");
    } else {
        tracing::error!(target: JOB, %error, cause, "skipped: the lock could not be acquired");
    }
}

/// An error type that takes in a [`LockError`].
#[diagnostic::on_unimplemented(
    message = "the error type `{Self}` cannot say that the lock was refused",
    label = "this function can be refused its lock",
    note = "implement `From<lock_core::LockError>` for `{Self}`",
    note = "or say what to return instead: `refused = |error| ..`"
)]
pub trait FromLockError {
    /// The error.
    fn from_lock_error(error: LockError) -> Self;
}

#[diagnostic::do_not_recommend]
impl<E: From<LockError>> FromLockError for E {
    fn from_lock_error(error: LockError) -> Self {
        error.into()
    }
}

/// What a policy can be made of.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no policy",
    label = "this is no policy",
    note = "`policy` takes a `LockPolicy`, or a `Duration`: how long to wait"
)]
pub trait IntoPolicy: Into<LockPolicy> {}

#[diagnostic::do_not_recommend]
impl<P: Into<LockPolicy>> IntoPolicy for P {}

/// The policy of an expression.
pub fn policy<P: IntoPolicy>(policy: P) -> LockPolicy {
    policy.into()
}

/// Tells a closure which error it takes and what it is to return.
pub fn refuse_with<R, F: FnOnce(LockError) -> R>(refused: F) -> F {
    refused
}

/// A value for a placeholder.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a lock name",
    label = "a placeholder of this template has no text",
    note = "a placeholder takes any value that implements `Display`; it can also be a field or a \
            method of a parameter: `<order.id>`, `<order.key()>`"
)]
pub trait Value: Display {}

#[diagnostic::do_not_recommend]
impl<T: Display> Value for T {}

/// The value that fills a placeholder.
pub fn value<T: Value>(value: &T) -> &dyn Display {
    value
}

/// The provider that the attribute or a parameter names. It may also be something that derefs to
/// one: an `Arc`, an axum `State`.
///
/// # Errors
///
/// None; the same shape as [`installed`].
pub fn provider(provider: &LockProvider) -> Result<&LockProvider, LockError> {
    Ok(provider)
}

/// The provider of the process.
///
/// # Errors
///
/// There is none.
pub fn installed() -> Result<&'static LockProvider, LockError> {
    LockProvider::installed()
}

/// One lock to be acquired; it borrows nothing.
#[derive(Debug)]
pub struct Lock {
    provider: LockProvider,
    name: LockName,
    terms: Terms,
}

/// The lock of this name, or the first reason why there is none.
///
/// # Errors
///
/// Those of its arguments.
pub fn lock(
    provider: Result<&LockProvider, LockError>,
    name: Result<LockName, LockError>,
) -> Result<Lock, LockError> {
    Ok(Lock {
        provider: provider?.clone(),
        name: name?,
        terms: Terms::EXCLUSIVE,
    })
}

impl Lock {
    /// One of so many permits of the lock.
    #[must_use]
    pub fn permits(mut self, number: usize) -> Self {
        self.terms = self.terms.with_permits(Permits::new(number));
        self
    }

    /// Together with others that ask for it so.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.terms = self.terms.shared();
        self
    }

    /// Acquires the lock.
    pub fn acquire(self, policy: LockPolicy) -> Acquire {
        Acquire::new(self.provider, self.name, self.terms, policy)
    }
}

/// Several locks to be acquired together.
#[derive(Debug)]
pub struct Locks {
    provider: LockProvider,
    names: Vec<LockName>,
}

/// As [`lock`], for several names.
///
/// # Errors
///
/// Those of its arguments.
pub fn locks<const N: usize>(
    provider: Result<&LockProvider, LockError>,
    names: [Result<LockName, LockError>; N],
) -> Result<Locks, LockError> {
    let provider = provider?.clone();
    let names = names.into_iter().collect::<Result<_, _>>()?;
    Ok(Locks { provider, names })
}

impl Locks {
    /// Acquires all of them, or none.
    ///
    /// # Errors
    ///
    /// Those of [`LockProvider::acquire_all`].
    ///
    /// # Cancel safety
    ///
    /// As [`LockProvider::acquire_all`].
    pub async fn acquire(self, policy: LockPolicy) -> Result<LockGuards, LockError> {
        self.provider.acquire_all(self.names, policy).await
    }
}

/// The servers of a provider, each to be asked for itself; the one that holds the locks is the first.
#[must_use]
pub fn servers(provider: &LockProvider) -> Vec<Server> {
    provider.servers().collect()
}

/// What a body that panicked has left.
pub type Panic = Box<dyn Any + Send + 'static>;

/// Runs `work` to its end, also when that is a panic: the lock is to be released first.
///
/// # Errors
///
/// What it panicked with.
///
/// # Cancel safety
///
/// Dropping it drops `work`.
pub async fn catch<F: Future>(work: F) -> Result<F::Output, Panic> {
    let mut work = pin!(work);
    // What the panic left half done is not visible: it goes on as soon as the lock is released.
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await
}

/// One guard, or several.
pub trait Guarded {
    /// Releases after work whose result stands, whatever comes of the release.
    fn settle(self) -> impl Future<Output = ()> + Send;

    /// Releases what is still there of a lock whose loss has been reported.
    fn give_up(self) -> impl Future<Output = ()> + Send;
}

impl Guarded for LockGuard {
    fn settle(self) -> impl Future<Output = ()> + Send {
        Self::settle(self)
    }

    async fn give_up(self) {
        // The loss has been reported.
        let _ = self.release().await;
    }
}

impl Guarded for LockGuards {
    async fn settle(self) {
        Self::settle(self).await;
    }

    async fn give_up(self) {
        // The loss has been reported.
        let _ = self.release().await;
    }
}

/// Releases the lock, and then gives the value of the body back or resumes its panic.
///
/// # Errors
///
/// [`Lost`](crate::LockErrorKind::Lost), when the lease ended before the body did.
///
/// # Panics
///
/// When the body did.
///
/// # Cancel safety
///
/// The release goes on when it is dropped; the value of the body is dropped with it.
pub async fn finish<G: Guarded, T>(
    guard: G,
    outcome: Result<Result<T, LockError>, Panic>,
) -> Result<T, LockError> {
    match outcome {
        Ok(Ok(value)) => {
            guard.settle().await;
            Ok(value)
        }
        Ok(Err(lost)) => {
            guard.give_up().await;
            Err(lost)
        }
        Err(panic) => {
            guard.settle().await;
            resume_unwind(panic)
        }
    }
}
