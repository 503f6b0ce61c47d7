//! Which servers are behind the address of a single one: two masters would both grant a lock.
//!
//! A name with several addresses, a TCP balancer or a service of Kubernetes can lead each connection to another
//! server. A replica beside the master is no fault, since it grants nothing.
//!
//! # When is looked
//!
//! A look makes [`MORE`] connections: through the address, and to each address that its name has.
//!
//! - A process that connects is refused where a look finds another master, and both are masters [`MOMENT`]
//!   later. Where one of them has ended, or is a replica by then, a fail-over has ended, and it connects anew.
//! - A connection for commands that leads to another server than the one before is used only where a look
//!   finds no other master. One for messages that leads to another master than that of the commands has the address
//!   looked at as well, see [`watch`](super::watch).
//! - While two are found, no lock is granted ([`Split`](super::split::Split)), and the address is looked at
//!   until one is left. The commands go there then, and what that server lacks is lost.
//!
//! # Why two masters grant no lock to two
//!
//! Let a process be granted locks by the server A, and another by B, which came there last. When it came, a look
//! found no other master than B. So A was not behind the address then, or each of the connections missed it.
//!
//! - Missed: where a connection comes to either with the same chance, a process sees one of two alone, with its
//!   own two connections and [`MORE`], once in 32 times. One that sees both grants nothing. For two processes
//!   that see one each, and not the same, it takes once in 2,000.
//! - Not behind the address: that was moved from A to B while A goes on. The first process leaves A as soon as
//!   either of its connections is made anew. Before that nothing tells it: an address may be moved only when
//!   the former server is stopped. The first process that comes from there begins a quarantine of one lease.
//!
//! Not seen are two servers behind a balancer that chooses by the address of the client: each process finds one,
//! and different machines different ones.
//!
//! Of a cluster the same is looked for when a process connects: nodes of two clusters. A node that leads to
//! that of another cluster later is refused by its name. What Sentinels name is no matter of an address.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionAddr, ConnectionInfo, cmd};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::about::{About, Mode};
use super::address::addresses_of;
use super::connect::open_beside;
use super::gather::gather;
use super::settings::Settings;
use super::shared::Shared;
use super::split::{Behind, Sight, two_masters};
use super::topology::Topology;
use crate::LockError;

/// How many connections a look makes, unless the name has more addresses.
const MORE: usize = 4;

/// How long a fail-over has to end behind an address that stays.
const MOMENT: Duration = Duration::from_secs(1);

/// A server that answers.
pub(super) struct Seen {
    connection: MultiplexedConnection,
    about: About,
    /// Of a node of a cluster.
    topology: Option<Topology>,
    at: ConnectionAddr,
}

impl Seen {
    pub(super) fn sight(&self) -> Sight {
        Sight {
            run_id: self.about.run_id().to_owned(),
            name: format!("{} at {}", self.about.name(), self.at),
            is_master: self.about.is_master(),
        }
    }

    async fn is_still_master(&mut self, settings: &Settings) -> bool {
        let about = About::of(&mut self.connection, settings).await;
        about.is_ok_and(|about| about.is_master())
    }
}

/// The server that a process has connected to.
pub(super) struct First<'a> {
    pub(super) connection: &'a MultiplexedConnection,
    pub(super) sight: Sight,
    pub(super) topology: &'a Topology,
}

impl First<'_> {
    /// Whether this other one would grant the same locks.
    fn is_beside(&self, other: &Seen) -> bool {
        match &other.topology {
            Some(topology) => !topology.is_of(self.topology),
            None => other.about.is_master() && other.about.run_id() != self.sight.run_id,
        }
    }
}

/// Whether the server is the only one behind its address. Otherwise a fail-over has ended meanwhile, and it is
/// to be connected to anew.
///
/// # Errors
///
/// [`Misconfigured`](crate::LockErrorKind::Misconfigured) with both servers, where there are two.
pub(super) async fn is_alone(
    info: &ConnectionInfo,
    first: First<'_>,
    shared: &Shared,
) -> Result<bool, LockError> {
    let settings = &shared.settings;
    let mut seen = look(info, shared).await;
    let other = seen.iter().position(|seen| first.is_beside(seen));
    let other = other.map(|at| seen.swap_remove(at));
    if seen
        .iter()
        .any(|seen| !seen.about.is_master() && seen.topology.is_none())
    {
        tracing::warn!(
            server = %info.addr(),
            "the Redis address leads to replicas as well: a connection that comes to one of them locks nothing, \
             so that a start, or the way back after a fault, can fail; give an address that leads to the master alone"
        );
    }
    leave(seen, settings).await;
    let Some(mut other) = other else {
        return Ok(true);
    };
    let (here, there) = (first.sight.name, other.sight().name);
    if first.topology.is_cluster || other.topology.is_some() {
        leave(vec![other], settings).await;
        return Err(LockError::misconfigured(format!(
            "the Redis address {} leads to nodes that are not of one cluster, so that two processes could hold one \
             lock: {here} and {there}; give addresses of nodes of one cluster",
            info.addr()
        )));
    }
    sleep(MOMENT).await;
    let about = About::of(&mut first.connection.clone(), settings).await;
    let both = about.is_ok_and(|about| about.is_master()) && other.is_still_master(settings).await;
    leave(vec![other], settings).await;
    match both {
        true => Err(two_masters(info.addr(), &here, &there)),
        false => Ok(false),
    }
}

/// Refuses a server that commands came to after another, where the address leads to a second master.
pub(super) async fn refuse_split(
    info: &ConnectionInfo,
    server: Sight,
    shared: &Shared,
) -> Result<(), LockError> {
    let split = &shared.split;
    if !split.is_on() && split.was_alone(&server.run_id) {
        return Ok(());
    }
    if !split.is_on() {
        let seen = look(info, shared).await;
        let mut sights: Vec<_> = seen.iter().map(Seen::sight).collect();
        leave(seen, &shared.settings).await;
        // Seen by that look, it says what it is now.
        if !sights.iter().any(|sight| sight.run_id == server.run_id) {
            sights.push(server);
        }
        if split.saw(info.addr(), &sights) == Behind::Two {
            split.doubt();
        }
    }
    split.error().map_or(Ok(()), Err)
}

/// The servers that answer at an address now, by connections of their own.
pub(super) async fn look(info: &ConnectionInfo, shared: &Shared) -> Vec<Seen> {
    let within = shared.settings.connect_timeout();
    let mut targets = addresses_of(info, within).await;
    while targets.len() < MORE {
        targets.push(info.clone());
    }
    let asking = targets.iter().map(|target| see(target, shared));
    let silent = || Err(LockError::unanswered());
    let looking = gather(asking, silent, Result::is_ok);
    let seen = timeout(2 * within, looking).await.unwrap_or_default();
    seen.into_iter().flatten().collect()
}

async fn see(target: &ConnectionInfo, shared: &Shared) -> Result<Seen, LockError> {
    let mut connection = open_beside(target, &shared.settings).await?;
    let about = About::of(&mut connection, &shared.settings).await?;
    let topology = match about.mode() {
        Mode::Cluster => Some(Topology::of_cluster(&mut connection, target, shared).await?),
        _ => None,
    };
    Ok(Seen {
        connection,
        about,
        topology,
        at: target.addr().clone(),
    })
}

/// Ends these connections, so that their servers know of none when this returns.
pub(super) async fn leave(seen: Vec<Seen>, settings: &Settings) {
    let leaving = seen.into_iter().map(|mut seen| async move {
        let quit = cmd("QUIT");
        let leaving = seen.connection.send_packed_command(&quit);
        // One that does not answer is dropped.
        let _ = timeout(settings.answer_within(), leaving).await;
    });
    join_all(leaving).await;
}
