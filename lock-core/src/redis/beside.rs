//! A Redis server that does not hold the locks: it is asked how it is.

use std::future::Future;
use std::sync::Arc;

use ::redis::aio::MultiplexedConnection;
use ::redis::cmd;
use tokio::sync::Mutex;

use super::builder::{RedisBuilder, Settings};
use super::connect::{ask, open};
use crate::LockError;

/// A server, or the nodes of a cluster, of which one has to answer.
#[derive(Debug)]
pub(crate) struct RedisBeside(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    /// Made when it is needed, and again when it has failed.
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl RedisBeside {
    /// Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) for a connection string that is wrong.
    pub(crate) fn new(connection_string: &str) -> Result<Self, LockError> {
        Ok(Self(Arc::new(Inner {
            settings: RedisBuilder::parse(connection_string).settings()?,
            connection: Mutex::default(),
        })))
    }

    /// Whether the server answers.
    pub(crate) fn health(&self) -> impl Future<Output = Result<(), LockError>> + Send + 'static {
        let inner = Arc::clone(&self.0);
        async move {
            let mut connection = inner.connection.lock().await;
            // One that was lost since the last look says nothing about the server.
            if let Some(mut old) = connection.take()
                && inner.ping(&mut old).await.is_ok()
            {
                *connection = Some(old);
                return Ok(());
            }
            *connection = Some(inner.connect().await?);
            Ok(())
        }
    }
}

impl Inner {
    async fn connect(&self) -> Result<MultiplexedConnection, LockError> {
        let mut first = None;
        for seed in &self.settings.target.seeds {
            let answered = async {
                let mut new = open(seed, &self.settings, None).await?;
                self.ping(&mut new).await.map(|()| new)
            };
            match answered.await {
                Ok(connection) => return Ok(connection),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        Err(first.unwrap_or_else(LockError::unanswered))
    }

    async fn ping(&self, connection: &mut MultiplexedConnection) -> Result<(), LockError> {
        let within = self.settings.answer_within();
        ask(connection, &cmd("PING"), within).await.map(drop)
    }
}
