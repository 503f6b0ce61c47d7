//! The addresses of a connection string: one server, or nodes of one cluster, or the Sentinels of a master.
//!
//! A master and its replicas are no such list: nothing but a Sentinel says which of them is the master
//! for all, and a former master that is cut off goes on granting.
//!
//! Each process uses the first address that answers. So several addresses keep the same locks only if
//! their servers say that they are one store: otherwise a process that starts while the first is
//! silent locks elsewhere than the others.

use std::fmt::Write;

use ::redis::ConnectionInfo;

use super::about::{About, Mode};
use super::behind::{First, is_alone};
use super::connect::open;
use super::gather::gather;
use super::opened::{Opened, check, connect};
use super::shared::Shared;
use super::topology::Topology;
use crate::LockError;

/// Where the locks are.
pub(super) struct Found {
    pub(super) seed: ConnectionInfo,
    pub(super) opened: Opened,
    pub(super) topology: Topology,
}

/// What the server at an address says.
struct Said {
    mode: Mode,
    /// Whose replica it is.
    master: Option<String>,
    /// Of a single server it is the server.
    topology: Topology,
    /// Or why it cannot keep locks.
    opened: Result<Opened, LockError>,
}

type Answer = Result<Said, LockError>;

/// How many times masters may take each other's place while they are connected to.
const ATTEMPTS: usize = 3;

/// Connects to the first address whose server can keep locks, and leads to no other.
pub(super) async fn find(shared: &Shared) -> Result<Found, LockError> {
    for _ in 0..ATTEMPTS {
        let found = first(shared).await?;
        let first = First {
            connection: &found.opened.connection,
            sight: found.opened.sight(),
            topology: &found.topology,
        };
        if shared.sentinels.is_some() || is_alone(&found.seed, first, shared).await? {
            return Ok(found);
        }
    }
    Err(LockError::unavailable(
        "the Redis address leads to one master after the other: a fail-over does not come to its end",
    ))
}

async fn first(shared: &Shared) -> Result<Found, LockError> {
    let seeds = &shared.settings.target.seeds;
    if let (Some(_), Some(sentinel)) = (&shared.sentinels, seeds.first()) {
        let opened = connect(sentinel, shared).await?;
        let seed = opened.info.clone();
        let topology = Topology::single(seed.clone());
        return Ok(Found {
            seed,
            opened,
            topology,
        });
    }
    let mut first = None;
    let can_keep_locks = |said: &Said| said.opened.is_ok();
    for (seed, answer) in seeds.iter().zip(survey(shared, can_keep_locks).await?) {
        match answer {
            Ok(Said {
                topology,
                opened: Ok(opened),
                ..
            }) => {
                let seed = seed.clone();
                return Ok(Found {
                    seed,
                    opened,
                    topology,
                });
            }
            Err(error)
            | Ok(Said {
                opened: Err(error), ..
            }) => drop(first.get_or_insert(error)),
        }
    }
    Err(first.unwrap_or_else(no_node))
}

/// Which node of a cluster has what, as the addresses say.
pub(super) async fn locate(shared: &Shared) -> Result<Topology, LockError> {
    let mut first = None;
    let is_node = |said: &Said| said.mode == Mode::Cluster;
    for answer in survey(shared, is_node).await? {
        match answer {
            Ok(said) if said.mode == Mode::Cluster => return Ok(said.topology),
            Ok(_) => {}
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(first.unwrap_or_else(no_node))
}

fn no_node() -> LockError {
    LockError::unavailable("the Redis cluster has no node")
}

/// Asks all addresses, in their order. Of several, each that answers has to be a node of one cluster.
/// The same server by two names is no cluster: that one of them leads to it does not prove that the
/// other does.
async fn survey(shared: &Shared, is_enough: fn(&Said) -> bool) -> Result<Vec<Answer>, LockError> {
    let seeds = &shared.settings.target.seeds;
    let silent = || {
        Err(LockError::unavailable(
            "the Redis server did not answer in time",
        ))
    };
    let asking = seeds.iter().map(|seed| ask(seed, shared));
    let is_enough = |answer: &Answer| answer.as_ref().is_ok_and(is_enough);
    let answers = gather(asking, silent, is_enough).await;
    if seeds.len() > 1 && answers.iter().any(Result::is_ok) && !are_one(&answers) {
        return Err(several(seeds, &answers));
    }
    Ok(answers)
}

async fn ask(seed: &ConnectionInfo, shared: &Shared) -> Answer {
    let settings = &shared.settings;
    let mut connection = open(seed, settings, None).await?;
    let about = About::of(&mut connection, settings).await?;
    let mode = about.mode();
    let topology = match mode {
        Mode::Cluster => Topology::of_cluster(&mut connection, seed, shared).await?,
        _ => Topology::single(seed.clone()),
    };
    let opened = check(seed, connection, &about, shared).await;
    Ok(Said {
        mode,
        master: about.master(),
        topology,
        opened,
    })
}

/// Whether nothing says otherwise: an address that does not answer proves nothing, one that refuses us
/// is not known to be of the same store.
fn are_one(answers: &[Answer]) -> bool {
    let mut first: Option<&Topology> = None;
    answers.iter().all(|answer| match answer {
        Ok(said) => said.topology.is_of(first.get_or_insert(&said.topology)),
        Err(error) => !error.is_misconfigured(),
    })
}

fn several(seeds: &[ConnectionInfo], answers: &[Answer]) -> LockError {
    let mut found = String::new();
    for (seed, answer) in seeds.iter().zip(answers) {
        let what = match answer {
            Ok(said) => match said.mode {
                Mode::Single => match &said.master {
                    Some(master) => format!("is a replica of {master}"),
                    None => "is a server of its own".to_owned(),
                },
                Mode::Sentinel => "is a Sentinel".to_owned(),
                Mode::Cluster => {
                    let member = said.topology.members.first();
                    let member = member.and_then(|id| id.get(..8)).unwrap_or_default();
                    format!("is a node of the cluster of `{member}`")
                }
            },
            Err(error) if error.is_misconfigured() => format!("does not say what it is ({error})"),
            Err(_) => "does not answer".to_owned(),
        };
        let _ = write!(found, "; {} {what}", seed.addr());
    }
    LockError::misconfigured(format!(
        "the Redis connection string names several addresses, and their servers do not say that they are \
         nodes of one cluster, so that two processes could hold one lock: give the address of one server, \
         or of nodes of one cluster; of a master and its replicas those of their Sentinels, or that of the \
         master by a name that follows it in a fail-over{found}"
    ))
}
