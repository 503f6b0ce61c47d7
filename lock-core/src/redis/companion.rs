//! A Redis server that does not hold the locks: its health is reported.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionAddr, cmd};
use futures_util::future::select_ok;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::about::{About, Mode};
use super::backend::RedisBackend;
use super::connect::{ask, open};
use super::sentinel::Sentinels;
use super::settings::Settings;
use crate::LockError;
use crate::health::{Answer, Companion};
use crate::settings::ProviderKind;

/// A server, the master that Sentinels name, or the nodes of a cluster, of which one has to answer.
#[derive(Debug)]
pub(crate) struct RedisCompanion(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    /// Which say what server it is.
    sentinels: Option<Sentinels>,
    /// Made when it is needed, and again when it has failed or Sentinels name another server.
    connection: Mutex<Option<Connected>>,
    is_closed: AtomicBool,
}

/// A connection, and where its server is.
#[derive(Debug)]
struct Connected {
    to: ConnectionAddr,
    over: MultiplexedConnection,
}

impl RedisCompanion {
    /// Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) for a connection string that is wrong.
    pub(crate) fn new(connection_string: &str) -> Result<Self, LockError> {
        let settings = RedisBackend::builder(connection_string).settings()?;
        settings.target.warn_unless_verified();
        Ok(Self(Arc::new(Inner {
            sentinels: Sentinels::of(&settings),
            settings,
            connection: Mutex::default(),
            is_closed: AtomicBool::new(false),
        })))
    }
}

impl Companion for RedisCompanion {
    fn name(&self) -> &'static str {
        ProviderKind::Redis.as_str()
    }

    /// Whether the server answers.
    fn health(&self) -> Answer {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let mut connection = inner.connection.lock().await;
            if inner.is_closed.load(Ordering::Acquire) {
                return Err(LockError::closed());
            }
            let within = inner.settings.answer_within();
            // One that was lost since the last look, or hangs, says nothing about the other nodes: some
            // of the time is theirs.
            if let Some(mut old) = connection.take()
                && !inner.is_former(&old.to, within / 2).await
                && inner.ping(&mut old.over, within / 2).await.is_ok()
            {
                *connection = Some(old);
                return Ok(());
            }
            *connection = Some(inner.connect().await?);
            Ok(())
        })
    }

    /// Closes the connection, and makes no other.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            self.0.is_closed.store(true, Ordering::Release);
            if let Some(mut last) = self.0.connection.lock().await.take() {
                // Its answer is the last of the connection, which the driver closes later.
                let within = self.0.settings.answer_within();
                let _ = timeout(within, last.over.send_packed_command(&cmd("QUIT"))).await;
            }
        })
    }
}

impl Inner {
    /// To whichever node answers first: one that hangs does not use up the time of the others.
    async fn connect(&self) -> Result<Connected, LockError> {
        if let Some(sentinels) = &self.sentinels {
            let info = sentinels.find().await?;
            let mut over = open(&info, &self.settings, None).await?;
            self.ping(&mut over, self.settings.answer_within()).await?;
            let to = info.addr().clone();
            return Ok(Connected { to, over });
        }
        let seeds = self.settings.target.seeds.iter().map(|seed| {
            Box::pin(async move {
                let mut over = open(seed, &self.settings, None).await?;
                let settings = &self.settings;
                self.ping(&mut over, settings.answer_within()).await?;
                // Of servers that are no cluster none stands for the others.
                if settings.target.seeds.len() > 1
                    && About::of(&mut over, settings).await?.mode() != Mode::Cluster
                {
                    return Err(LockError::misconfigured(
                        "the Redis connection string names several addresses, and their servers are \
                         no cluster",
                    ));
                }
                let to = seed.addr().clone();
                Ok(Connected { to, over })
            })
        });
        select_ok(seeds).await.map(|(connection, _)| connection)
    }

    /// Whether Sentinels name another server by now.
    async fn is_former(&self, server: &ConnectionAddr, within: Duration) -> bool {
        match &self.sentinels {
            Some(sentinels) => sentinels.name_another(server, within).await,
            None => false,
        }
    }

    async fn ping(
        &self,
        connection: &mut MultiplexedConnection,
        within: Duration,
    ) -> Result<(), LockError> {
        ask(connection, &cmd("PING"), &self.settings, within)
            .await
            .map(drop)
    }
}
