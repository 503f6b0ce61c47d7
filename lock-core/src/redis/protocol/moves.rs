//! Slots of a cluster that were moved, told from masters that lost their data.
//!
//! # Why a moved slot needs no quarantine
//!
//! The note of a slot names the server that last granted a lock there, and `MIGRATE` takes it along with
//! the locks. So a note of another server says one of two things: the slot was moved, with everything that
//! is in it; or the server that had it has ended, and this one took its place, from a copy that can lack
//! locks. Only the second is a reason not to grant. A slot without a note was never used, or came from a
//! master that lost the note with everything else: it is taken for one with the note of another.
//!
//! A cluster loses locks when a master ends and starts again, or when a replica takes its place. Either
//! begins a *reign*: one process that is a master without a break, which its `run_id` and its `master_replid`
//! name (a promotion changes the second). A holder whose lock was lost then had its last renewal before the
//! reign began, and one lease after that its lock has ended. So where the youngest reign among *all* masters
//! is older than a lease, no lock that a master has lost is held any more, and what a slot came with is
//! complete, by however many masters it went. Where it is younger, what is left of one lease since its
//! beginning is waited for.
//!
//! - All masters count, and not only the one that has the slot: it may have come from one that lost locks
//!   before that.
//! - The slot was seen here, with its note, before the masters were asked, and the script takes the result
//!   only from this very process and for a moment: so a loss was before what they say.
//! - How old a reign is: since this process saw it first; or, of a server that was never promoted since it
//!   started, since its start. It is asked for the latter only: who saw a reign begin does not matter, since
//!   the name proves that it is the same. What a master does not say counts as no age at all.
//! - Masters are those that have slots. Whether a key is deleted by hand, a slot assigned without its keys, or
//!   a master that lost locks emptied within the same lease, cannot be seen: the administrator drops the
//!   locks. Nor can it that a slot came back to a server whose note it still has, from a replica that was
//!   promoted without what was granted in between.
//! - Tokens go on as after a fail-over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::redis::ConnectionInfo;
use ::redis::aio::MultiplexedConnection;
use futures_util::future::try_join_all;
use tokio::time::{Instant, timeout};

use super::nodes::Nodes;
use super::{Done, Effects};
use crate::LockError;
use crate::redis::about::{About, Reign};
use crate::redis::connect::open;
use crate::redis::shared::Shared;
use crate::redis::topology::Topology;
use crate::server::protocol::Effect;

/// Between two times that the masters are asked, for a slot that waits for it, and for one that is in
/// quarantine.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long masters have to answer.
const WITHIN: Duration = Duration::from_secs(1);

/// For how long a result counts.
const COUNTS: Duration = Duration::from_secs(1);

/// What a slot with a note of another server waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doubt {
    /// Nothing was decided about it yet; else it is in a quarantine that may be too long.
    is_new: bool,
    /// Where it was seen.
    server: u64,
    /// The time that the masters are asked, once they are.
    asked: Option<u64>,
}

/// How old the youngest reign is, for one server.
#[derive(Clone, Debug)]
pub(in crate::redis) struct Proof {
    pub(in crate::redis) server: String,
    pub(in crate::redis) age: Duration,
    until: Instant,
}

impl Proof {
    fn counts(&self) -> bool {
        self.until > Instant::now()
    }
}

/// When each master was seen first, on CLOCK_BOOTTIME.
#[derive(Default)]
struct Reigns {
    since: HashMap<String, (String, Duration)>,
}

impl Reigns {
    /// Notes what a master says of itself, which was asked then; gives since when it is one.
    fn note(&mut self, reign: &Reign, asked: Duration) -> Duration {
        let since = reign.age.map_or(asked, |age| asked.saturating_sub(age));
        let known = (self.since.get(&reign.run_id))
            .filter(|(replication, _)| *replication == reign.replication);
        let since = known.map_or(since, |(_, known)| since.min(*known));
        let replication = reign.replication.clone();
        self.since
            .insert(reign.run_id.clone(), (replication, since));
        since
    }
}

/// All masters of a cluster.
pub(in crate::redis) struct Masters {
    asked: Duration,
    /// None of one that is no master, or does not say what it is.
    reigns: Vec<Option<Reign>>,
}

/// Whether slots were moved, or their masters have ended, by lane.
pub(super) struct Moves {
    shared: Arc<Shared>,
    reigns: Reigns,
    /// Counts the times that the masters were asked.
    asked: u64,
    is_asking: bool,
    asked_at: Option<Instant>,
    /// Lanes of which it is not known.
    doubts: Vec<Option<Doubt>>,
    /// As far as it is known, and not told to the server yet.
    proofs: Vec<Option<Proof>>,
}

impl Moves {
    pub(super) fn new(shared: Arc<Shared>, lanes: usize) -> Self {
        Self {
            shared,
            reigns: Reigns::default(),
            asked: 0,
            is_asking: false,
            asked_at: None,
            doubts: vec![None; lanes],
            proofs: vec![None; lanes],
        }
    }

    /// Notes what a master says of itself, which was asked then; gives since when it is one.
    pub(super) fn note(&mut self, reign: &Reign, asked: Duration) -> Duration {
        self.reigns.note(reign, asked)
    }

    /// A slot came to this server with a note of another.
    pub(super) fn doubt(&mut self, lane: usize, server: u64, is_new: bool) {
        if self.doubts.len() == 1 {
            // A single server has no slots: another program has written its key.
            return;
        }
        let doubt = &mut self.doubts[lane];
        let is_another = |doubt: Doubt| doubt.server != server || (is_new && !doubt.is_new);
        if doubt.is_none_or(is_another) {
            *doubt = Some(Doubt {
                is_new,
                server,
                asked: None,
            });
        }
    }

    /// Whether there is something to tell the server of this lane.
    pub(super) fn has_proof(&self, lane: usize) -> bool {
        self.proofs[lane].is_some()
    }

    /// That, if it counts still.
    pub(super) fn take_proof(&mut self, lane: usize) -> Option<Proof> {
        self.proofs[lane].take().filter(Proof::counts)
    }

    /// When masters are to be asked.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.is_asking {
            return None;
        }
        let doubts = self.doubts.iter().flatten();
        let (soon, late) = ASK_AGAIN;
        let pause = doubts.map(|doubt| if doubt.is_new { soon } else { late });
        let asked = self.asked_at;
        let at = |pause| asked.map_or_else(Instant::now, |asked| asked + pause);
        pause.min().map(at)
    }

    /// Asks all masters, if there is a doubt.
    pub(super) fn settle_doubts(&mut self, nodes: &Nodes, effects: &mut Effects) {
        if self.next().is_some_and(|at| at <= Instant::now()) {
            self.ask_masters(nodes, effects);
        }
    }

    /// Also to see reigns when they begin, and not only when it is to be known how old they are.
    pub(super) fn ask_masters(&mut self, nodes: &Nodes, effects: &mut Effects) {
        if !nodes.is_cluster() || self.is_asking {
            return;
        }
        self.asked_at = Some(Instant::now());
        let connected = nodes.connected();
        if connected.is_empty() {
            return;
        }
        self.asked += 1;
        self.is_asking = true;
        for doubt in self.doubts.iter_mut().flatten() {
            doubt.asked = Some(self.asked);
        }
        let shared = Arc::clone(&self.shared);
        effects.push(Effect::call(async move {
            let asking = timeout(WITHIN, ask(connected, &shared)).await;
            Done::Asked(asking.unwrap_or_else(|_| Err(LockError::unanswered())))
        }));
    }

    pub(super) fn masters_answered(&mut self, result: Result<Masters, LockError>, nodes: &Nodes) {
        self.is_asking = false;
        let mut servers = Vec::new();
        let age = match result {
            Ok(masters) => {
                let mut youngest = None;
                let now = self.shared.clock.now();
                for reign in &masters.reigns {
                    let since = match reign {
                        Some(reign) => self.reigns.note(reign, masters.asked),
                        None => now,
                    };
                    youngest = youngest.max(Some(since));
                    servers.extend(reign.as_ref().map(|reign| reign.run_id.clone()));
                }
                self.reigns.since.retain(|id, _| servers.contains(id));
                youngest.map_or(Duration::ZERO, |since| masters.asked.saturating_sub(since))
            }
            Err(error) => {
                tracing::debug!(%error, "the masters of the Redis cluster do not all say what they are");
                Duration::ZERO
            }
        };
        let asked = Some(self.asked);
        let until = Instant::now() + COUNTS;
        for (lane, doubt) in self.doubts.iter_mut().enumerate() {
            let Some(doubt) = doubt.take_if(|doubt| doubt.asked == asked) else {
                continue;
            };
            let node = nodes.lane(lane).node;
            if nodes.link_id(node).server != doubt.server {
                continue;
            }
            let server = nodes.run_id(node).to_owned();
            // One that is not known to be a master here and now.
            let age = if servers.contains(&server) {
                age
            } else {
                Duration::ZERO
            };
            self.proofs[lane] = Some(Proof { server, age, until });
        }
    }
}

/// Asks the nodes which masters there are, and each of them what it is. All nodes: one that is cut off from
/// the others does not know who has taken its place.
async fn ask(
    connected: Vec<(ConnectionInfo, MultiplexedConnection)>,
    shared: &Shared,
) -> Result<Masters, LockError> {
    let settings = &shared.settings;
    let connected = &connected;
    let topologies = connected.iter().map(|(info, connection)| async move {
        Topology::of_cluster(&mut connection.clone(), info, shared).await
    });
    let masters = all_masters(try_join_all(topologies).await?);
    let asked = shared.clock.now();
    let reigns = masters.into_iter().map(|master| async move {
        let known = connected
            .iter()
            .find(|(info, _)| info.addr() == master.addr());
        let mut connection = match known {
            Some((_, connection)) => connection.clone(),
            None => open(&master, settings, None).await?,
        };
        Ok::<_, LockError>(About::of(&mut connection, settings).await?.reign())
    });
    let reigns = try_join_all(reigns).await?;
    Ok(Masters { asked, reigns })
}

/// Those that at least one node knows.
fn all_masters(topologies: Vec<Topology>) -> Vec<ConnectionInfo> {
    let mut all: Vec<ConnectionInfo> = Vec::new();
    for master in topologies.into_iter().flat_map(|known| known.masters) {
        if all.iter().all(|known| known.addr() != master.addr()) {
            all.push(master);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use ::redis::IntoConnectionInfo;

    use super::*;

    fn reign(run_id: &str, replication: &str, age: Option<u64>) -> Reign {
        Reign {
            run_id: run_id.to_owned(),
            replication: replication.to_owned(),
            age: age.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_reign_is_as_old_as_it_was_seen_or_as_the_server_that_was_never_promoted() {
        let mut reigns = Reigns::default();
        let at = Duration::from_secs;
        assert_eq!(reigns.note(&reign("a", "x", None), at(1_000)), at(1_000));
        assert_eq!(reigns.note(&reign("a", "x", None), at(1_030)), at(1_000));
        // Promoted once more: it was a replica in between.
        assert_eq!(reigns.note(&reign("a", "y", None), at(1_060)), at(1_060));
        assert_eq!(
            reigns.note(&reign("b", "z", Some(60)), at(1_060)),
            at(1_000)
        );
        // What is known once is not forgotten with the server's own memory of it.
        assert_eq!(reigns.note(&reign("b", "z", None), at(1_090)), at(1_000));
    }

    #[test]
    fn a_master_counts_that_one_node_alone_knows() {
        let known_as = |masters: [&str; 2]| Topology {
            masters: (masters.map(|master| master.into_connection_info().unwrap())).into(),
            ..Topology::single("redis://asked".into_connection_info().unwrap())
        };
        let before = known_as(["redis://former", "redis://other"]);
        let all = all_masters(vec![
            before,
            known_as(["redis://promoted", "redis://other"]),
        ]);
        let hosts: Vec<_> = all.iter().map(|master| master.addr().to_string()).collect();
        assert_eq!(hosts, ["former:6379", "other:6379", "promoted:6379"]);
    }
}
