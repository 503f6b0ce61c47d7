//! Whether replicas know what a node has written.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Value, pipe};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::calls::{Done, Trouble, Via};
use crate::redis::key::millis;
use crate::redis::shared::Shared;

/// The scripts' own: a server key is kept for 30 days.
const SERVER_KEY_TTL_MS: u64 = 30 * 24 * 3600 * 1000;

/// Whether as many replicas as are wanted know what this node has written so far. Dropped: no.
pub(in crate::redis) struct Question {
    pub(in crate::redis) node: usize,
    /// Which server that has to be: no other knows its replicas.
    pub(in crate::redis) server: String,
    /// What can be written to there: a server key.
    pub(in crate::redis) key: String,
    pub(in crate::redis) reply: oneshot::Sender<bool>,
}

impl Question {
    /// Asks over this connection, and answers who asks.
    pub(super) async fn ask(
        self,
        shared: Arc<Shared>,
        connection: MultiplexedConnection,
        via: Via,
    ) -> Done {
        let settings = &shared.settings;
        let asking = self.put(connection, settings.replicas, settings.replicas_within());
        let result = timeout(settings.answer_within(), asking).await;
        Done::Replicated(via, result.unwrap_or(Err(Trouble::Gone)))
    }

    async fn put(
        self,
        mut connection: MultiplexedConnection,
        replicas: u8,
        wait: Duration,
    ) -> Result<(), Trouble> {
        let mut commands = pipe();
        commands
            .cmd("PEXPIRE")
            .arg(&self.key)
            .arg(SERVER_KEY_TTL_MS);
        commands.cmd("WAIT").arg(replicas).arg(millis(wait));
        let answers = connection.send_packed_commands(&commands, 0, 2).await;
        let mut numbers = Vec::new();
        for answer in answers.map_err(|_| Trouble::Gone)? {
            match answer.extract_error().map_err(Trouble::Refused)? {
                Value::Int(number) => numbers.push(number),
                _ => return Err(Trouble::Gone),
            }
        }
        // Without a key there was no write, and the count is of an earlier one.
        let known = matches!(numbers[..], [1, know] if know >= i64::from(replicas));
        // There may be no waiter any more.
        let _ = self.reply.send(known);
        Ok(())
    }
}
