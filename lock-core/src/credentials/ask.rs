//! Asks the function of the application for its credentials.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::Credentials;
use crate::LockError;
use crate::panics::catch_async;

/// How long an answer is waited for.
const WITHIN: Duration = Duration::from_secs(5);

type BoxError = Box<dyn Error + Send + Sync>;
type Answer = Result<Credentials, BoxError>;
type Function = dyn Fn() -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync;

/// The function of the application.
#[derive(Clone)]
pub(crate) struct Ask(Arc<Function>);

impl Ask {
    pub(crate) fn new<F, A, E>(function: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Arc::new(move || {
            let answer = function();
            Box::pin(async move { answer.await.map_err(Into::into) })
        }))
    }

    /// Asked from now on, on the runtime that is current here.
    pub(crate) fn here(self) -> Asker {
        Asker {
            ask: self,
            runtime: Handle::try_current().ok(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").finish_non_exhaustive()
    }
}

/// Asks, once at a time: a function that blocks for ever takes one thread, and not one more with each
/// connect.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    ask: Ask,
    runtime: Option<Handle>,
    turn: Arc<Semaphore>,
}

impl Asker {
    /// The credentials of now.
    ///
    /// # Errors
    ///
    /// What the function says; that it did not answer in time, that it panicked, that no server takes what
    /// it gave.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the future of the function is dropped.
    pub(crate) async fn ask(&self) -> Result<Credentials, LockError> {
        let asked = timeout(WITHIN, self.answer()).await;
        let credentials = asked.unwrap_or_else(|_| {
            Err(LockError::unavailable(format!(
                "the function given to `credentials` did not answer within {WITHIN:?}"
            )))
        })?;
        credentials.check()?;
        Ok(credentials)
    }

    async fn answer(&self) -> Result<Credentials, LockError> {
        let mut answer = None;
        if let Some(runtime) = &self.runtime {
            let (asking, answered) = self.asking().await;
            runtime.spawn(asking);
            answer = answered.await.ok();
        }
        // There was no runtime, or it has ended.
        let answer = match answer {
            Some(answer) => answer,
            None => {
                let (asking, answered) = self.asking().await;
                run_alone(asking)?;
                let gone = "its thread has ended".to_owned();
                answered.await.unwrap_or(Err(gone))
            }
        };
        let answer = answer.map_err(|_| {
            // Its words are the application's, and may be secret.
            LockError::unavailable(
                "the function given to `credentials` panicked; its message is on standard error",
            )
        })?;
        answer.map_err(|error| {
            LockError::unavailable("the function given to `credentials` failed").with_source(error)
        })
    }

    /// The work, which ends when its answer is not waited for any more, and where that arrives: of a panic
    /// it is what that says.
    async fn asking(
        &self,
    ) -> (
        impl Future<Output = ()> + Send + 'static,
        oneshot::Receiver<Result<Answer, String>>,
    ) {
        // Never closed: an error would be no turn at all.
        let turn = Arc::clone(&self.turn).acquire_owned().await.ok();
        let (mut reply, answered) = oneshot::channel();
        let ask = self.ask.clone();
        let asking = async move {
            let answer = catch_async(async { (ask.0)().await });
            tokio::select! {
                biased;
                answer = answer => drop(reply.send(answer)),
                () = reply.closed() => {}
            }
            drop(turn);
        };
        (asking, answered)
    }
}

/// Runs it on a thread with a runtime of its own, which nothing else waits for.
fn run_alone(asking: impl Future<Output = ()> + Send + 'static) -> Result<(), LockError> {
    let failed = |error| LockError::unavailable("no thread could be started").with_source(error);
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let thread = thread::Builder::new().name("lock-credentials".to_owned());
    let run = move || {
        runtime.block_on(asking);
        runtime.shutdown_background();
    };
    thread.spawn(run).map(drop).map_err(failed)
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use std::convert::Infallible;
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::Instant;

    use super::*;

    fn given() -> Credentials {
        Credentials::new("app", "hunter2")
    }

    async fn refused<A, E>(function: impl Fn() -> A + Send + Sync + 'static) -> LockError
    where
        A: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let error = Ask::new(function).here().ask().await.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(!said.contains("hunter2"), "{said}");
        error
    }

    #[tokio::test]
    async fn it_is_asked_on_the_runtime_where_the_backend_was_made() {
        let here = Handle::current().id();
        let asker = Ask::new(move || {
            ready(match Handle::current().id() == here {
                true => Ok(given()),
                false => Err("elsewhere"),
            })
        });
        let asker = asker.here();
        let elsewhere = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(asker.ask()).unwrap()
        });
        let joined = tokio::task::spawn_blocking(move || elsewhere.join().unwrap());
        assert_eq!(joined.await.unwrap(), given());
    }

    #[test]
    fn without_that_runtime_it_is_asked_on_a_thread_of_its_own() {
        let asker = Ask::new(|| async {
            // Which takes a runtime.
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<_, Infallible>(given())
        });
        let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
        let none = asker.clone().here();
        assert_eq!(runtime().block_on(none.ask()).unwrap(), given());
        let ended = runtime().block_on(async { asker.here() });
        assert!(ended.runtime.is_some());
        assert_eq!(runtime().block_on(ended.ask()).unwrap(), given());
    }

    #[tokio::test]
    async fn what_it_says_and_that_it_panics_are_errors() {
        let failed = refused(|| async { Err("the vault is sealed") }).await;
        assert!(failed.is_unavailable());
        let source = Error::source(&failed).unwrap().to_string();
        assert_eq!(source, "the vault is sealed");
        let says = [
            refused(|| async { panic!("hunter2") as Result<_, Infallible> }).await,
            refused(|| panic!("hunter2") as std::future::Ready<Result<_, Infallible>>).await,
        ];
        for error in says {
            assert!(error.is_unavailable() && error.to_string().contains("panicked"));
        }
    }

    #[tokio::test]
    async fn what_no_server_takes_is_said() {
        for (user, password, says) in [
            ("", "hunter2", "empty user"),
            ("a\0", "hunter2", "user with a NUL"),
            ("app", "", "empty password"),
            ("app", "hunter2\0", "password with a NUL"),
            ("app", "hunter2\n", "line break"),
        ] {
            let error =
                refused(move || ready(Ok::<_, Infallible>(Credentials::new(user, password)))).await;
            assert!(error.is_misconfigured() && error.to_string().contains(says));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_given_up_and_asked_again() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let asker = Ask::new(move || {
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if first {
                    pending::<()>().await;
                }
                Ok::<_, Infallible>(given())
            }
        });
        let asker = asker.here();
        let begun = Instant::now();
        let error = asker.ask().await.unwrap_err();
        assert!(error.is_unavailable() && error.to_string().contains("within 5s"));
        assert_eq!(begun.elapsed(), WITHIN);
        assert_eq!(asker.ask().await.unwrap(), given());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_that_blocks_its_thread_takes_no_other() {
        let (asked, (go_on, blocked)) = (Arc::new(AtomicUsize::new(0)), std::sync::mpsc::channel());
        let (count, blocked) = (Arc::clone(&asked), std::sync::Mutex::new(blocked));
        let asker = Ask::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = blocked.lock().map(
                |blocked: std::sync::MutexGuard<'_, std::sync::mpsc::Receiver<()>>| blocked.recv(),
            );
            ready(Ok::<_, Infallible>(given()))
        });
        let asker = asker.here();
        for _ in 0..3 {
            let asking = timeout(Duration::from_millis(20), asker.ask());
            assert!(asking.await.is_err());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        drop(go_on);
        assert_eq!(asker.ask().await.unwrap(), given());
    }
}
