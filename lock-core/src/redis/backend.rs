//! The backend: commands to the thread, and their answers.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

use super::KIND;
use super::command::{Claim, Client, Command, RedisGrant};
use super::key::Key;
use super::listing;
use super::shared::Shared;
use super::topology::Topology;
use super::value;
use super::waiting::Waiting;
use crate::backend::{Attempt, Backend, LockRequest, Providers};
use crate::server::leased::Caller;
use crate::{Holder, Listing, LockError, LockName, LossReason};

/// How many locks the first call of a claim asks for, and how many any asks for at most.
const CLAIMED: (usize, usize) = (128, 1_024);

/// Locks in a Redis server or cluster. See the [module](super).
pub struct RedisBackend {
    shared: Arc<Shared>,
    client: Arc<Client>,
    topology: watch::Receiver<Arc<Topology>>,
    providers: Providers,
    /// One list at a time. It ends with its caller, since the caller asks for each part.
    listing: tokio::sync::Mutex<()>,
}

impl RedisBackend {
    pub(super) fn new(
        shared: Arc<Shared>,
        client: Arc<Client>,
        topology: watch::Receiver<Arc<Topology>>,
    ) -> Self {
        Self {
            shared,
            client,
            topology,
            providers: Providers::default(),
            listing: tokio::sync::Mutex::default(),
        }
    }

    fn key(&self, name: &LockName) -> Key {
        Key::new(&self.shared.settings.namespace, name)
    }

    fn caller(&self) -> Caller<'_, Waiting> {
        Caller {
            requests: &self.shared.queues.requests,
            client: &self.client,
        }
    }
}

/// What of a claim travels in one call: keys of one lane, by their positions. The first call of a
/// lane is small, in case that it is enough.
fn chunks(keys: &[Key], lanes: usize, limit: usize) -> impl Iterator<Item = Vec<usize>> + use<> {
    let mut of_lanes: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
    for (position, key) in keys.iter().enumerate() {
        let lane = usize::from(key.bucket) % lanes;
        of_lanes.entry(lane).or_default().push_back(position);
    }
    of_lanes.into_values().flat_map(move |mut lane| {
        let mut size = limit.clamp(CLAIMED.0, CLAIMED.1);
        std::iter::from_fn(move || {
            let chunk: Vec<_> = lane.drain(..size.min(lane.len())).collect();
            size = (size * 2).min(CLAIMED.1);
            (!chunk.is_empty()).then_some(chunk)
        })
    })
}

impl Backend for RedisBackend {
    type Grant = RedisGrant;

    const KIND: &'static str = KIND;

    const SHARED: bool = true;

    async fn try_acquire(&self, request: &LockRequest) -> Result<Attempt<RedisGrant>, LockError> {
        let key = self.key(request.name());
        // What the driver has acquired for the waiters.
        if let Some(grant) = self.shared.waiting.take_for(&key, request) {
            return Ok(Attempt::Granted(grant));
        }
        self.caller().try_acquire(key, request).await
    }

    async fn try_acquire_many(
        &self,
        requests: &[LockRequest],
        limit: usize,
    ) -> Result<Vec<(usize, RedisGrant)>, LockError> {
        let keys = requests.iter().map(|request| self.key(request.name()));
        let keys: Vec<Key> = keys.collect();
        let caller = self.caller();
        let lanes = self.topology.borrow().lanes();
        let mut chunks = chunks(&keys, lanes, limit);
        let mut granted = Vec::new();
        while granted.len() < limit {
            // As many calls together as can all be granted what they ask for.
            let mut wanted = limit - granted.len();
            let (mut claims, mut answers) = (Vec::new(), Vec::new());
            while wanted > 0
                && let Some(chunk) = chunks.next()
            {
                let limit = wanted.min(chunk.len());
                wanted -= limit;
                let mut acquires = Vec::with_capacity(chunk.len());
                for position in chunk {
                    let (acquire, answer) =
                        caller.acquire(keys[position].clone(), &requests[position]);
                    acquires.push(acquire);
                    answers.push((position, answer));
                }
                claims.push(Command::Claim(Claim { acquires, limit }));
            }
            if claims.is_empty() {
                break;
            }
            caller.requests.push_all(claims);
            for (position, answer) in answers {
                if let Attempt::Granted(grant) = self.client.answered(answer).await? {
                    granted.push((position, grant));
                }
            }
        }
        // A call whose answer was lost can have been granted other locks when it came again.
        granted.truncate(limit);
        // As they were asked for, not by lanes.
        granted.sort_unstable_by_key(|(position, _)| *position);
        Ok(granted)
    }

    fn changed(&self, request: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        super::waiting::register(
            &self.shared.waiting,
            &self.key(request.name()),
            request.mode(),
        )
    }

    async fn holder(&self, name: &LockName) -> Result<Option<Holder>, LockError> {
        self.caller().holder(self.key(name)).await
    }

    async fn list(&self, limit: usize) -> Result<Listing, LockError> {
        let _turn = self.listing.lock().await;
        let topology = Arc::clone(&self.topology.borrow());
        listing::list(&topology, &self.shared.settings, limit).await
    }

    fn instance(&self) -> Option<String> {
        Some(value::instance(&self.shared.settings.signature).to_owned())
    }

    async fn health(&self) -> Result<(), LockError> {
        self.caller().health().await
    }

    fn providers(&self) -> Option<&Providers> {
        Some(&self.providers)
    }

    async fn close(&self) {
        self.shared.give_back_places();
        self.client.stop();
        // What is not released by now ends with its lease.
        self.shared.held.lose(LossReason::Shutdown, |_| true);
        self.client.finished().await;
    }
}

impl Drop for RedisBackend {
    fn drop(&mut self) {
        self.shared.give_back_places();
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}
