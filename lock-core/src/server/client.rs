//! The two ends of a driver: what its users hold, and what it takes from them.
//!
//! There are two queues. *Requests* come from the backend, and their replies can carry grants. *Commands of
//! grants*, releases above all, are plain data: a grant knows nothing of requests.

use std::process;
use std::sync::Arc;

use super::inbox::{Inbox, Signal};
use super::stop::Stop;
use crate::LockError;
use crate::backend::Lease;
use crate::oneshot;
use crate::panics::catch;

/// Where an answer of the driver goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, LockError>>;

/// What grants leave to the driver of a backend.
pub(crate) trait Releases: Send + Sync + 'static {
    /// What the driver knows a granted lock by.
    type Hold: Send + Sync;

    /// What a grant asks of the driver.
    type Command: Send;

    /// The command that releases a lock; called once for each grant.
    fn release(&self, hold: &Self::Hold, lease: &Lease, reply: Option<Reply<()>>) -> Self::Command;

    /// Why the driver has not answered, unless the backend was closed.
    fn disconnected(&self) -> LockError;
}

/// What the backend, its grants and its requests hold of the driver. The drop of the last one ends the
/// driver, after what is in the queues.
pub(crate) struct Client<R: Releases> {
    pub(crate) releases: R,
    /// The process of the driver: only there is a lock granted.
    pub(super) process: u32,
    commands: Arc<Inbox<R::Command>>,
    signal: Arc<Signal>,
    stop: Arc<Stop>,
}

impl<R: Releases> Client<R> {
    /// Leaves a command of a grant.
    pub(super) fn push(&self, command: R::Command) {
        self.commands.push(command);
    }

    /// Leaves a command of a grant and waits for the answer.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> R::Command,
    ) -> Result<T, LockError> {
        let (reply, answer) = oneshot::channel();
        self.push(command(reply));
        self.answered(answer).await
    }

    /// Waits for an answer of the driver. A driver that is gone gives none.
    pub(crate) async fn answered<T>(
        &self,
        answer: oneshot::Receiver<Result<T, LockError>>,
    ) -> Result<T, LockError> {
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Why there is no answer.
    pub(crate) fn gone(&self) -> LockError {
        if self.stop.is_asked() {
            LockError::closed()
        } else {
            self.releases.disconnected()
        }
    }

    /// Ends the driver, also while others use it.
    pub(crate) fn stop(&self) {
        self.stop.ask();
        self.signal.close();
    }

    /// Completes when the driver has closed its connections.
    pub(crate) async fn finished(&self) {
        self.stop.finished().await;
    }
}

impl<R: Releases> Drop for Client<R> {
    fn drop(&mut self) {
        self.signal.close();
    }
}

/// The queues of a driver: requests `Q`, and commands of grants `C`.
pub(crate) struct Queues<Q, C> {
    pub(crate) requests: Inbox<Q>,
    commands: Arc<Inbox<C>>,
    pub(crate) signal: Arc<Signal>,
    pub(crate) stop: Arc<Stop>,
}

impl<Q, C> Default for Queues<Q, C> {
    fn default() -> Self {
        let signal = Arc::<Signal>::default();
        Self {
            requests: Inbox::new(Arc::clone(&signal)),
            commands: Arc::new(Inbox::new(Arc::clone(&signal))),
            signal,
            stop: Arc::default(),
        }
    }
}

impl<Q, C> Queues<Q, C> {
    /// The other end.
    pub(crate) fn client<R: Releases<Command = C>>(&self, releases: R) -> Arc<Client<R>> {
        Arc::new(Client {
            releases,
            process: process::id(),
            commands: Arc::clone(&self.commands),
            signal: Arc::clone(&self.signal),
            stop: Arc::clone(&self.stop),
        })
    }

    /// Moves all that was left. Tells whether more can come.
    ///
    /// Requests first: the release that a caller has left before its request is taken with that, or earlier.
    pub(crate) fn take(
        &self,
        requests: &mut impl Extend<Q>,
        commands: &mut impl Extend<C>,
    ) -> bool {
        let is_last = self.signal.is_closed();
        self.signal.set_awake();
        self.requests.take(requests);
        self.commands.take(commands);
        !is_last
    }

    pub(crate) fn has_some(&self) -> bool {
        self.requests.has_commands() || self.commands.has_commands()
    }

    /// Completes when something was left, or may have changed.
    pub(crate) async fn rung(&self) {
        self.signal.rung(|| self.has_some()).await;
    }

    /// Completes when something else may have changed, such as that no user is left; what is left meanwhile
    /// stays where it is.
    #[cfg(feature = "redis")]
    pub(crate) async fn rung_beside_commands(&self) {
        self.signal.rung_beside_commands().await;
    }

    /// The driver is gone: nothing will be answered.
    pub(crate) fn abandon(&self) {
        // Each runs wakers, which are the application's and can panic.
        let _ = catch(|| self.requests.abandon());
        let _ = catch(|| self.commands.abandon());
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Each command is pushed while the driver goes to sleep after the one before.
    #[tokio::test]
    async fn no_command_is_slept_over() {
        const ROUNDS: usize = 20_000;
        let queues = Arc::new(Queues::<(), ()>::default());
        let (taken, is_taken) = mpsc::channel();
        let users = Arc::clone(&queues);
        let users = thread::spawn(move || {
            for round in 0..ROUNDS {
                if round % 2 == 0 {
                    users.requests.push(());
                } else {
                    users.commands.push(());
                }
                is_taken.recv().unwrap();
            }
            users.signal.close();
        });
        let (mut requests, mut commands) = (Vec::new(), Vec::new());
        while queues.take(&mut requests, &mut commands) {
            for () in requests.drain(..).chain(commands.drain(..)) {
                taken.send(()).unwrap();
            }
            let rung = timeout(Duration::from_secs(10), queues.rung());
            rung.await.expect("the driver sleeps over a command");
        }
        users.join().unwrap();
    }
}
