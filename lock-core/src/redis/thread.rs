//! The thread of a backend: a runtime of its own for the driver, which outlives the application's.
//!
//! A panic in it ends the connections and the leases, and not the thread: the driver starts anew.

use std::sync::{Arc, Weak};

use ::redis::ConnectionInfo;
use tokio::sync::{mpsc, watch};

use super::command::Client;
use super::protocol::{Effects, RedisProtocol};
use super::rehearsal::rehearse;
use super::seeds::{self, Found};
use super::settings::Settings;
use super::shared::Shared;
use super::subscriber::{Question, Subscriber};
use super::topology::Topology;
use super::watch::watch_address;
use crate::LockError;
use crate::server::Reply;
use crate::server::driver;
use crate::server::worker::{self, AtEnd};

type Driver = driver::Driver<RedisProtocol>;

/// Where the locks are, once the thread has connected.
type Started = watch::Receiver<Arc<Topology>>;

/// Starts the thread; returns when it has connected.
pub(super) async fn start(
    settings: Settings,
) -> Result<(Arc<Shared>, Arc<Client>, Started), LockError> {
    let shared = Arc::new(Shared::new(settings));
    // Dropped before the thread has connected, it ends it.
    let client = shared.client();
    let of_thread = (Arc::clone(&shared), Arc::downgrade(&client));
    let run = move |started| run(of_thread.0, of_thread.1, started);
    let topology = worker::start("lock-redis", run).await?;
    Ok((shared, client, topology))
}

fn run(shared: Arc<Shared>, client: Weak<Client>, started: Reply<Started>) {
    let users = shared.users(client.clone());
    let _ending = AtEnd(move || users.end());
    let runtime = match worker::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return drop(started.send(Err(error))),
    };
    runtime.block_on(async {
        let (maker, driver, subscriber) = match first(Arc::clone(&shared), client).await {
            Ok(first) => first,
            Err(error) => return drop(started.send(Err(error))),
        };
        if started.send(Ok(maker.topology.subscribe())).is_err() {
            return;
        }
        // Both end with the runtime.
        tokio::spawn(subscriber.run());
        if let Some(address) = maker.only_address() {
            tokio::spawn(watch_address(shared, address));
        }
        let next = || maker.driver(maker.protocol(), Effects::new());
        driver.run_with_restarts("Redis", next).await;
    });
}

/// Connects.
async fn first(
    shared: Arc<Shared>,
    client: Weak<Client>,
) -> Result<(Maker, Driver, Subscriber), LockError> {
    let Found {
        seed,
        opened,
        topology,
    } = seeds::find(&shared).await?;
    rehearse(&topology, &seed, &opened.connection, &shared.settings).await?;
    let (topology, changes) = watch::channel(Arc::new(topology));
    let (questions, asked) = mpsc::unbounded_channel();
    let maker = Maker {
        shared: Arc::clone(&shared),
        client,
        topology,
        questions,
    };
    let (mut protocol, mut effects) = (maker.protocol(), Effects::new());
    protocol.begin(&seed, opened, &mut effects);
    let driver = maker.driver(protocol, effects);
    let subscriber = Subscriber::new(shared, changes, asked);
    Ok((maker, driver, subscriber))
}

/// Makes the drivers: the first, and one after each panic.
struct Maker {
    shared: Arc<Shared>,
    client: Weak<Client>,
    topology: watch::Sender<Arc<Topology>>,
    questions: mpsc::UnboundedSender<Question>,
}

impl Maker {
    /// For the servers that are known, without a connection.
    fn protocol(&self) -> RedisProtocol {
        RedisProtocol::new(
            Arc::clone(&self.shared),
            self.topology.clone(),
            self.questions.clone(),
        )
    }

    fn driver(&self, protocol: RedisProtocol, effects: Effects) -> Driver {
        Driver::new(self.shared.users(self.client.clone()), protocol, effects)
    }

    /// Where the only server is, unless Sentinels say where that is.
    fn only_address(&self) -> Option<ConnectionInfo> {
        let topology = self.topology.borrow();
        let is_address = !topology.is_cluster && self.shared.sentinels.is_none();
        topology.nodes.first().filter(|_| is_address).cloned()
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Wake};

    use futures_util::FutureExt;

    use super::super::key::Key;
    use super::super::waiting::register;
    use super::*;
    use crate::LockMode;

    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("on purpose");
        }
    }

    #[test]
    fn a_waker_that_panics_does_not_hide_the_end_of_the_thread() {
        let settings = Settings::of("redis://127.0.0.1");
        let shared = Arc::new(Shared::new(settings));
        let key = Key {
            text: "lock:{b7}:v1-one".into(),
            bucket: 7,
        };
        let mut waits = pin!(register(&shared.waiting, &key, LockMode::Exclusive));
        let waker = Arc::new(Panics).into();
        let polled = waits.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        shared.users(Weak::new()).end();
        assert!(shared.queues.stop.finished().now_or_never().is_some());
    }
}
