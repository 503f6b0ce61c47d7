//! Sentinels: which server is the master now.
//!
//! # Why a former master leads to no second guard
//!
//! A master that was replaced can go on for a while: one that a fail-over was ordered for is a replica only
//! some 10 s later, one that is cut off from the Sentinels never. A process that still talks to it is granted locks
//! there and renews them, while the new master grants them again once its quarantine, one lease from the
//! first call that is made there, is over. Against that, a lease counts from no later than a time when no
//! Sentinel knew of another master (see `protocol/mastery.rs`):
//!
//! - Sentinels are asked together, and the newest configuration among their answers counts: one that is
//!   behind the others says nothing. Nor is one believed that is behind what was heard before, unless most
//!   of them say the same.
//! - Let a holder ask at `A`, and learn of no other master. A lease that it has on the server of that
//!   connection ends at `A + lease - margin` at the latest. Any other client comes to the new master because
//!   a Sentinel named it, which it did after `A`: else the holder had heard it as well. So the quarantine
//!   there ends after `A + lease`.
//! - The other way round, a holder can carry its lock over to the new master, where it is renewed, while the
//!   former one sees its copy end and grants the lock to a process that has not heard yet. So what the former
//!   grants is taken for a heartbeat after the Sentinels were asked, and a lease is carried over only if it has
//!   a heartbeat left: then its copy ends later than that.
//! - Once a Sentinel names another, the connection is left, and what is held is renewed at the new master:
//!   what that does not have is lost there and then. An answer of the former that comes later extends nothing.
//!
//! It takes that both can ask the same Sentinels, or that these tell each other within half a lease, which they
//! do every 2 s: one that is silent alone does not hold up a connect. Where none answers, a holder goes on: dead Sentinels
//! replace no master, and locks do not end because of them. That cannot be told from a network that keeps
//! a holder and the former master from all Sentinels; then only the master itself can stop, when it has no
//! replica any more (`min-replicas-to-write`).

mod opinions;
mod word;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionAddr, ConnectionInfo, RedisConnectionInfo};
use futures_util::future::join_all;
use tokio::time::timeout;

use self::opinions::{choose, names_another};
use self::word::{Word, ask};
use super::address::address;
use super::connect::open;
use super::gather::gather;
use super::logins::Logins;
use super::refused::is_login_refused;
use super::settings::Settings;
use crate::LockError;

/// The Sentinels of a master.
pub(super) struct Sentinels {
    master: String,
    addresses: Vec<ConnectionInfo>,
    /// What the master is spoken to with, wherever it is.
    server: ConnectionInfo,
    /// Those of the backend, but for user and password.
    settings: Settings,
    heard: Mutex<Heard>,
}

struct Heard {
    /// The number of the newest configuration.
    epoch: u64,
    /// By Sentinel: made when it is needed, and again when it has failed.
    connections: Vec<Option<MultiplexedConnection>>,
}

impl Sentinels {
    /// Those of the connection string, if it names such.
    pub(super) fn of(settings: &Settings) -> Option<Self> {
        let target = &settings.target;
        let service = target.service.as_ref()?;
        let mut login = RedisConnectionInfo::default();
        if let Some(user) = &service.user {
            login = login.set_username(user);
        }
        if let Some(password) = &service.password {
            login = login.set_password(password);
        }
        let seeds = target.seeds.iter().cloned();
        let addresses: Vec<_> = seeds
            .map(|seed| seed.set_redis_settings(login.clone()))
            .collect();
        Some(Self {
            master: service.master.clone(),
            server: target.seeds.first()?.clone(),
            heard: Mutex::new(Heard {
                epoch: 0,
                connections: vec![None; addresses.len()],
            }),
            addresses,
            settings: Settings {
                logins: Logins::default(),
                ..settings.clone()
            },
        })
    }

    /// The server that they name as the master. It is asked itself whether it is one.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured) where none of them knows the master, and where
    /// they are no Sentinels or refuse us; [`Unavailable`](crate::LockErrorKind::Unavailable) where none
    /// answers.
    pub(super) async fn find(&self) -> Result<ConnectionInfo, LockError> {
        let within = self.settings.connect_timeout();
        let asking = (0..self.addresses.len()).map(|at| self.ask(at, within));
        // Most of them have answered, so that one which is behind the others is outvoted.
        let (mut answered, mut is_known) = (0, false);
        let is_enough = |answer: &Answer| {
            answered += 1;
            is_known |= matches!(answer, Ok(Some(_)));
            is_known && 2 * answered > self.addresses.len()
        };
        let answers = gather(asking, || Err(LockError::unanswered()), is_enough).await;
        let known = self.heard().epoch;
        let at = |sentinel: usize| self.addresses[sentinel].addr().to_string();
        let word = choose(&self.master, &answers, known, at)?;
        self.heard().epoch = word.epoch;
        Ok(self.server.clone().set_addr(self.address_of(word)))
    }

    /// Whether they name another master than the server at this address. Where none of them answers, it is
    /// not known that they do.
    pub(super) async fn name_another(&self, than: &ConnectionAddr, within: Duration) -> bool {
        let asking = (0..self.addresses.len()).map(|at| self.ask(at, within));
        let answers = join_all(asking).await;
        let mut heard = self.heard();
        let is_it = |word: &Word| self.address_of(word) == *than;
        let (another, epoch) = names_another(&answers, heard.epoch, is_it);
        heard.epoch = epoch;
        another
    }

    fn address_of(&self, word: &Word) -> ConnectionAddr {
        address(self.server.addr(), Some(word.host.clone()), word.port)
    }

    /// Asks one of them: over the connection that there is, and over a new one where that is dead.
    async fn ask(&self, at: usize, within: Duration) -> Answer {
        let old = self.heard().connections[at].take();
        let asking = async {
            if let Some(mut old) = old
                && let Ok(Ok(word)) = timeout(within / 2, self.put_question(at, &mut old)).await
            {
                return Ok((old, word));
            }
            let info = &self.addresses[at];
            let new = open(info, &self.settings, None).await;
            let mut new = new.map_err(|error| of_sentinel(info, error))?;
            let word = self.put_question(at, &mut new).await?;
            Ok((new, word))
        };
        let asked = timeout(within, asking).await;
        let (connection, word) = asked.unwrap_or_else(|_| Err(LockError::unanswered()))?;
        self.heard().connections[at] = Some(connection);
        Ok(word)
    }

    async fn put_question(&self, at: usize, over: &mut MultiplexedConnection) -> Answer {
        ask(over, &self.master, self.addresses[at].addr()).await
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a Sentinel says of the master; nothing where it does not know it.
type Answer = Result<Option<Word>, LockError>;

/// A login that is refused is that of the Sentinels, which has options of its own.
fn of_sentinel(info: &ConnectionInfo, error: LockError) -> LockError {
    if !is_login_refused(&error) {
        return error.with_advice("it is named as a Sentinel");
    }
    let address = info.addr();
    LockError::misconfigured(format!(
        "the Redis Sentinel at {address} refused the user or the password that it was shown, or wants one: give \
         those of the Sentinels, which are not those of the server, with `sentinelUser` and \
         `sentinelPassword` in the connection string, or `sentinel_credentials` of the builder"
    ))
    .with_source(error)
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinels")
            .field("master", &self.master)
            .finish_non_exhaustive()
    }
}
