//! The thread of a backend: a runtime of its own for the driver, which outlives the application's.

use std::sync::{Arc, Weak};

use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};

use super::backend::RedisBackend;
use super::builder::Settings;
use super::driver::Driver;
use super::rehearsal::rehearse;
use super::seeds::{self, Found};
use super::shared::{Client, Shared};
use super::subscriber::Subscriber;
use crate::{LockError, LossReason};

/// Starts the thread; returns when it has connected.
pub(super) async fn start(settings: Settings) -> Result<RedisBackend, LockError> {
    let shared = Arc::new(Shared::new(settings));
    let (ready, started) = oneshot::channel();
    // Dropped before the answer, it ends the thread as every last user does.
    let client = Arc::new(Client(Arc::clone(&shared)));
    let of_thread = Arc::downgrade(&client);
    std::thread::Builder::new()
        .name("lock-redis".to_owned())
        .spawn(move || run(shared, of_thread, ready))
        .map_err(|error| {
            LockError::unavailable("no thread can be started for the Redis backend")
                .with_source(error)
        })?;
    let lanes = started.await.unwrap_or_else(|_| Err(ended()))?;
    Ok(RedisBackend::new(client, lanes))
}

fn ended() -> LockError {
    LockError::unavailable("the thread of the Redis backend has ended")
}

fn run(
    shared: Arc<Shared>,
    client: Weak<Client>,
    ready: oneshot::Sender<Result<usize, LockError>>,
) {
    // However this ends.
    let _ending = Ending(Arc::clone(&shared));
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = LockError::unavailable("no runtime can be made for the Redis backend")
                .with_source(error);
            let _ = ready.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        match first(&shared, client).await {
            Ok((driver, subscriber)) => {
                if ready.send(Ok(driver.lanes())).is_err() {
                    return;
                }
                // The end of either ends the thread, which is a loss.
                let subscriber = tokio::spawn(subscriber.run());
                tokio::select! {
                    () = driver.run() => {}
                    _ = subscriber => {}
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    });
}

async fn first(
    shared: &Arc<Shared>,
    client: Weak<Client>,
) -> Result<(Driver, Subscriber), LockError> {
    let Found {
        seed,
        opened,
        topology,
    } = seeds::find(shared).await?;
    rehearse(&topology, &seed, &opened.connection, &shared.settings).await?;
    let (topology, changes) = watch::channel(Arc::new(topology));
    let (questions, asked) = mpsc::unbounded_channel();
    let driver = Driver::new(
        Arc::clone(shared),
        client,
        topology,
        questions,
        &seed,
        opened,
    );
    let subscriber = Subscriber::new(Arc::clone(shared), changes, asked);
    Ok((driver, subscriber))
}

/// Nothing is granted, renewed or woken any more.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let shared = &self.0;
        shared.inbox.abandon();
        shared.held.lose(LossReason::Disconnected, |_| true);
        shared.waiting.wake_all();
    }
}
