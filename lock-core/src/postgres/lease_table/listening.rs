//! Listens to releases over a direct connection: behind a transaction pooler LISTEN receives nothing.
//!
//! It saves time and nothing else. Whatever is not notified, or not heard, is found by the
//! [poll](super::poll) of the driver.

use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBuilder;
use sqlx::postgres::PgListener;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::direct::{Direct, listen_to};
use super::key::RowKey;
use super::names::CHANNEL;
use super::session::Failure;
use super::setup::Table;
use super::shared::Shared;
use super::unanswered::Unanswered;
use super::waiters::Command;
use crate::outage::{Outage, SoFar};
use crate::panics::{catch, catch_async};
use crate::server::BackOff;
use crate::{LockError, entropy};

/// A notification takes milliseconds.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);

/// Between looks whether the connection lives, and how long its answer may take.
const LOOK: Duration = Duration::from_secs(15);
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Between attempts to listen again.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(Duration::from_secs(5))
    .with_jitter();

/// Listens, and shows that what is notified where the locks are arrives.
///
/// # Errors
///
/// [`Misconfigured`](crate::LockErrorKind::Misconfigured) where it does not.
pub(super) async fn open(
    shared: &Shared,
    direct: &Direct,
    table: &Table,
) -> Result<PgListener, LockError> {
    // A channel for this alone: behind a pooler a session goes on listening that other clients have then.
    let channel = format!(
        "distributed_lock_check_{:016x}",
        u64::from_ne_bytes(entropy::bytes()?)
    );
    let mut listener = direct.listen(&channel).await?;
    let is_sent = match shared
        .connections
        .run(table.notify(shared.number(), &channel))
        .await
    {
        Ok(_) => true,
        // The session of the pooler that notified is the one that listens.
        Err(Unanswered::Failed(Failure::Unknown(sqlx::Error::Protocol(_)))) => false,
        Err(failed) => {
            return Err(LockError::unavailable(
                "the server of the lease table sent no notification",
            )
            .with_source(failed.reason()));
        }
    };
    let arrived = timeout(ARRIVES_WITHIN, async {
        while let Ok(Some(heard)) = listener.try_recv().await {
            if heard.channel() == channel {
                return true;
            }
        }
        false
    });
    if is_sent && arrived.await == Ok(true) {
        listen_to(&mut listener, CHANNEL).await?;
        return Ok(listener);
    }
    Err(LockError::misconfigured(
        "`listen_url` leads to a pooler, or to another server or database than that of the locks: a \
         notification that was sent there did not arrive; give the address of the primary itself, or no \
         `listen_url`",
    ))
}

/// Listens for as long as the runtime runs; the first connection is there, or is made later.
pub(super) async fn keep_listening(shared: Arc<Shared>, table: Table, first: PgListener) {
    let Some(direct) = &shared.direct else { return };
    let (mut pauses, mut outage) = (BackOff::new(BACKOFF), Outage::new());
    let mut listener = Some(first);
    loop {
        let failed = match listener.take() {
            Some(listener) => {
                let begun = Instant::now();
                shared.set_listening(true);
                wake_all(&shared);
                let heard = catch_async(hear(&shared, listener)).await;
                shared.set_listening(false);
                if begun.elapsed() >= LOOK {
                    pauses.reset();
                }
                heard.unwrap_or_else(|panic| panic)
            }
            None => match Box::pin(catch_async(open(&shared, direct, &table))).await {
                Ok(Ok(opened)) => {
                    listener = Some(opened);
                    outage.over(|lasted| {
                        tracing::info!(
                            ?lasted,
                            "releases of locks in the lease table are notified again"
                        );
                    });
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(panic) => panic,
            },
        };
        // The logger is the application's, and can panic.
        let _ = catch(|| {
            outage.failed(|SoFar { failures, lasting }| {
                tracing::warn!(
                    reason = failed, failures, lasting,
                    "the connection by `listen_url` is lost: releases of other processes are found by polling"
                );
            });
        });
        sleep(pauses.pause()).await;
    }
}

/// Until the connection is lost; says why.
async fn hear(shared: &Shared, mut listener: PgListener) -> String {
    let mut look = Instant::now() + LOOK;
    loop {
        tokio::select! {
            heard = listener.try_recv() => match heard {
                Ok(Some(released)) => wake(shared, released.payload()),
                Ok(None) => return "the server closed it".to_owned(),
                Err(error) => return error.to_string(),
            },
            () = sleep_until(look) => {
                let asked = sqlx::raw_sql("SELECT 1").execute(&mut listener);
                match timeout(ANSWERS_WITHIN, asked).await {
                    Ok(Ok(_)) => look = Instant::now() + LOOK,
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) => return "it does not answer".to_owned(),
                }
            }
        }
    }
}

/// A lock was released, if it is one: any role can notify.
fn wake(shared: &Shared, payload: &str) {
    let waited = RowKey::parse(payload).and_then(|key| shared.waiters.released(&key));
    if let Some(key) = waited {
        let queues = &shared.queues;
        queues.requests.push(Command::AcquireForWaiting(key));
    }
}

/// What was released before was not heard of, and what is refused from here on is noted in the table.
fn wake_all(shared: &Shared) {
    let waited = shared.waiters.all().into_iter();
    let queues = &shared.queues;
    queues
        .requests
        .push_all(waited.map(Command::AcquireForWaiting));
}
