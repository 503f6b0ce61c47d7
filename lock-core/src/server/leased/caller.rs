//! What a backend asks of its driver, and waits for.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::grant::{Client, KeyGrant};
use super::question::WhoHolds;
use super::request::{Acquire, Answer, Command, Reply, WaiterTable};
use crate::backend::{Attempt, LockRequest};
use crate::server::inbox::Inbox;
use crate::server::terms::PATIENCE;
use crate::{Holder, LockError, oneshot};

/// The two ends that a backend has of its driver.
pub(crate) struct Caller<'a, W: WaiterTable> {
    pub(crate) requests: &'a Inbox<Command<W>>,
    pub(crate) client: &'a Arc<Client<W::Key>>,
}

impl<W: WaiterTable> Caller<'_, W> {
    /// An acquire for this request, which is not sent yet, and where its answer comes.
    pub(crate) fn acquire(
        &self,
        key: W::Key,
        request: &LockRequest,
    ) -> (Acquire<W>, oneshot::Receiver<Answer<W::Key>>) {
        let (reply, answer) = oneshot::channel();
        let mut acquire = Acquire::new(Arc::clone(self.client), key, Reply::Caller(reply));
        acquire.at_least = request.at_least();
        acquire.part = request.mode().into();
        (acquire, answer)
    }

    /// Acquires the lock of this key, if it is free.
    pub(crate) async fn try_acquire(
        &self,
        key: W::Key,
        request: &LockRequest,
    ) -> Result<Attempt<KeyGrant<W::Key>>, LockError> {
        let (acquire, answer) = self.acquire(key, request);
        self.requests.push(Command::Acquire(acquire));
        self.client.answered(answer).await
    }

    /// Who holds the lock of this key, if any client does.
    pub(crate) async fn holder(&self, key: W::Key) -> Result<Option<Holder>, LockError> {
        let (reply, answer) = oneshot::channel();
        let until = self.client.releases.clock.now() + PATIENCE;
        let question = WhoHolds { key, reply, until };
        self.requests.push(Command::WhoHolds(question));
        self.client.answered(answer).await
    }

    /// Whether each server could grant a lock.
    pub(crate) async fn health(&self) -> Result<(), LockError> {
        match self.probe().await {
            // That a server has closed a connection, for being idle or at a restart, is noticed by the first request
            // over it, and says nothing of the next.
            Err(error) if error.is_unavailable() => self.probe().await,
            answer => answer,
        }
    }

    /// The same, when all servers have answered: what one of them is asked after that goes over no connection that was
    /// found dead.
    async fn probe(&self) -> Result<(), LockError> {
        let (probe, mut answers) = mpsc::unbounded_channel();
        self.requests.push(Command::Probe(probe));
        let mut all = None;
        while let Some(answer) = answers.recv().await {
            all = Some(all.unwrap_or(Ok(())).and(answer));
        }
        all.unwrap_or_else(|| Err(self.client.gone()))
    }
}
