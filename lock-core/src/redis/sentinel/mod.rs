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
//! A Sentinel counts once, however many of the names and addresses lead to it: it says what it is called. One
//! that may not be asked for that, or says nothing, counts by its address.
//!
//! Sentinels that were set up anew count from lower numbers: that is believed of most of them, and of fewer when a
//! process has had no master for a lease because of it. Nothing that it held is valid then, so that it is as one
//! that starts, which has not heard of a number.
//!
//! It takes that both can ask the same Sentinels, or that these tell each other within half a lease, which they
//! do every 2 s: one that is silent alone does not hold up a connect. Where none answers, a holder goes on: dead Sentinels
//! replace no master, and locks do not end because of them. That cannot be told from a network that keeps
//! a holder and the former master from all Sentinels; then only the master itself can stop, when it has no
//! replica any more (`min-replicas-to-write`).

mod opinions;
mod voices;
mod word;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionAddr, ConnectionInfo, RedisConnectionInfo};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};

use self::opinions::{are_behind, choose, names_another};
use self::voices::{Voice, each_once};
use self::word::{Word, ask, id_of};
use super::address::{address, addresses_of};
use super::connect::open;
use super::gather::take_in_time;
use super::logins::Logins;
use super::refused::is_login_refused;
use super::settings::Settings;
use crate::LockError;
use crate::server::exposed::is_local;

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
    /// Since when those that answer are behind that, and there is no master.
    behind_since: Option<Instant>,
    /// By Sentinel: made when it is needed, and again when it has failed.
    lines: Vec<Option<Line>>,
}

/// A connection to a Sentinel.
#[derive(Clone)]
struct Line {
    connection: MultiplexedConnection,
    /// What the Sentinel is called.
    id: Option<String>,
}

/// What comes while all are asked.
enum Step {
    /// The addresses of a name.
    Found(Vec<ConnectionInfo>),
    /// What the Sentinel in this place says.
    Said(usize, Voice),
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
                behind_since: None,
                lines: vec![None; addresses.len()],
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
        let voices = self.ask_all(self.settings.connect_timeout()).await;
        let (at, answers) = each_once(voices);
        let known = self.known(&answers);
        let at = |sentinel: usize| at[sentinel].to_string();
        let word = choose(&self.master, &answers, known, at)?;
        self.check_host(&word.host)?;
        self.heard().epoch = word.epoch;
        Ok(self.server.clone().set_addr(self.address_of(word)))
    }

    /// What all of them say. A name is looked up meanwhile: behind one name there can be several, of which a process
    /// asks one otherwise. A look-up that is slow has as long as a Sentinel that is.
    async fn ask_all(&self, within: Duration) -> Vec<Voice> {
        let steps = FuturesUnordered::<BoxFuture<'_, Step>>::new();
        for (at, info) in self.addresses.iter().enumerate() {
            let asking = self.ask(at, within);
            steps.push(async move { Step::Said(at, asking.await) }.boxed());
            steps.push(addresses_of(info, within).map(Step::Found).boxed());
        }
        let silent = |info: &ConnectionInfo| Voice::silent(info.addr().clone());
        let mut voices: Vec<_> = self.addresses.iter().map(silent).collect();
        let (mut answered, mut is_known) = (0, false);
        let take = |step, steps: &mut FuturesUnordered<_>| match step {
            Step::Found(found) => {
                for info in found {
                    if voices.iter().any(|known| known.at == *info.addr()) {
                        continue;
                    }
                    let at = voices.len();
                    voices.push(silent(&info));
                    let asking = async move {
                        let voice = self.ask_anew(&info, within).await;
                        Step::Said(at, voice)
                    };
                    steps.push(asking.boxed());
                }
                false
            }
            Step::Said(at, voice) => {
                answered += 1;
                is_known |= matches!(voice.answer, Ok(Some(_)));
                voices[at] = voice;
                // Most of them have answered, so that one which is behind the others is outvoted.
                is_known && 2 * answered > voices.len()
            }
        };
        take_in_time(steps, take).await;
        voices
    }

    /// The number of the newest configuration, as far as it counts against these answers.
    fn known(&self, answers: &[Answer]) -> u64 {
        let mut heard = self.heard();
        if !are_behind(answers, heard.epoch) {
            heard.behind_since = None;
            return heard.epoch;
        }
        let since = *heard.behind_since.get_or_insert_with(Instant::now);
        match since.elapsed() > self.settings.lease {
            true => 0,
            false => heard.epoch,
        }
    }

    /// An address of this machine, named by Sentinels on others, is one of theirs: each process would lock at
    /// another server.
    fn check_host(&self, host: &str) -> Result<(), LockError> {
        let is_here = |info: &ConnectionInfo| match info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => is_local(host),
            _ => true,
        };
        if !is_local(host) || self.addresses.iter().any(is_here) {
            return Ok(());
        }
        Err(LockError::misconfigured(format!(
            "the Redis Sentinels name `{host}` as the master `{}`, which is an address of whatever machine asks, so \
             that two processes could hold one lock: name the master to them by an address that all machines reach \
             it at (`sentinel monitor {} ADDRESS ..`)",
            self.master, self.master
        )))
    }

    /// Whether they name another master than the server at this address. Where none of them answers, it is
    /// not known that they do.
    pub(super) async fn name_another(&self, than: &ConnectionAddr, within: Duration) -> bool {
        let asking = (0..self.addresses.len()).map(|at| self.ask(at, within));
        let (_, answers) = each_once(join_all(asking).await);
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
    async fn ask(&self, at: usize, within: Duration) -> Voice {
        let old = self.heard().lines[at].take();
        let info = &self.addresses[at];
        let asking = async {
            if let Some(mut old) = old
                && let Ok(Ok(word)) = timeout(within / 2, self.put_question(info, &mut old)).await
            {
                return Ok((old, word));
            }
            self.ask_over_new(info).await
        };
        let asked = timeout(within, asking).await;
        match asked.unwrap_or_else(|_| Err(LockError::unanswered())) {
            Ok((line, word)) => {
                let id = line.id.clone();
                self.heard().lines[at] = Some(line);
                Voice::of(info.addr().clone(), id, Ok(word))
            }
            Err(error) => Voice::of(info.addr().clone(), None, Err(error)),
        }
    }

    /// Asks one over a connection that is not kept.
    async fn ask_anew(&self, info: &ConnectionInfo, within: Duration) -> Voice {
        let asked = timeout(within, self.ask_over_new(info)).await;
        let asked = asked.unwrap_or_else(|_| Err(LockError::unanswered()));
        let (id, answer) = match asked {
            Ok((line, word)) => (line.id, Ok(word)),
            Err(error) => (None, Err(error)),
        };
        Voice::of(info.addr().clone(), id, answer)
    }

    async fn ask_over_new(&self, info: &ConnectionInfo) -> Result<(Line, Option<Word>), LockError> {
        let new = open(info, &self.settings, None).await;
        let mut connection = new.map_err(|error| of_sentinel(info, error))?;
        let id = id_of(&mut connection).await;
        let mut line = Line { connection, id };
        let word = self.put_question(info, &mut line).await?;
        Ok((line, word))
    }

    async fn put_question(&self, info: &ConnectionInfo, over: &mut Line) -> Answer {
        ask(&mut over.connection, &self.master, info.addr()).await
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

#[cfg(all(test, not(lock_model)))]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    fn sentinels(target: &str) -> Sentinels {
        Sentinels::of(&Settings::of(target)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn sentinels_that_are_behind_for_a_lease_are_believed() {
        let sentinels = sentinels("redis+sentinel://s1,s2/shop");
        let names = |epoch| {
            Ok(Some(Word {
                epoch,
                host: "10.0.0.1".to_owned(),
                port: 6379,
            }))
        };
        sentinels.heard().epoch = 9;
        let behind = [names(1), Err(LockError::unanswered())];
        assert_eq!(sentinels.known(&behind), 9);
        advance(Duration::from_secs(20)).await;
        // One that knows as much ends it.
        assert_eq!(sentinels.known(&[names(1), names(9)]), 9);
        assert_eq!(sentinels.known(&behind), 9);
        advance(Duration::from_secs(20)).await;
        assert_eq!(sentinels.known(&behind), 9);
        advance(Duration::from_secs(11)).await;
        assert_eq!(sentinels.known(&behind), 0);
    }

    #[test]
    fn an_address_of_this_machine_from_a_sentinel_on_another_is_refused() {
        let here = sentinels("redis+sentinel://127.0.0.1:26379,s2/shop");
        let there = sentinels("redis+sentinel://s1,10.0.0.2/shop");
        for host in ["127.0.0.1", "::1", "localhost"] {
            assert!(here.check_host(host).is_ok());
            let error = there.check_host(host).unwrap_err();
            assert!(error.is_misconfigured() && error.to_string().contains(host));
        }
        assert!(there.check_host("10.0.0.7").is_ok());
    }
}
