//! Which node of a cluster has what.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::redis::ConnectionInfo;
use ::redis::aio::MultiplexedConnection;
use futures_util::future::{Either, select, select_ok};
use tokio::time::{sleep, timeout};

use crate::LockError;
use crate::redis::connect::open;
use crate::redis::seeds;
use crate::redis::shared::Shared;
use crate::redis::topology::Topology;

/// How long nodes that are connected have before others are asked as well.
const HEAD_START: Duration = Duration::from_millis(100);

/// How long a node has that was named as the one that has something.
const NAMED: Duration = Duration::from_millis(250);

/// A node, and the connection to it if there is one.
pub(super) type Candidate = (ConnectionInfo, Option<MultiplexedConnection>);

/// Asks all that may know, also at the addresses of the connection string: where all nodes have other
/// addresses than before, nothing else leads to them.
pub(super) async fn locate(
    named: Option<ConnectionInfo>,
    nodes: Vec<Candidate>,
    shared: Arc<Shared>,
    known: Arc<Topology>,
) -> Result<Topology, LockError> {
    let is_connected = nodes.iter().any(|(_, connection)| connection.is_some());
    let later = if is_connected {
        HEAD_START
    } else {
        Duration::ZERO
    };
    let (shared, known) = (&*shared, &*known);
    if let Some(named) = named {
        let is_it = |(info, _): &&Candidate| info.addr() == named.addr();
        let connection = nodes
            .iter()
            .find(is_it)
            .and_then(|(_, connection)| connection.clone());
        let asking = ask((named, connection), Duration::ZERO, shared, known);
        if let Ok(Ok(topology)) = timeout(NAMED, asking).await {
            return Ok(topology);
        }
    }
    let asking: Vec<_> = nodes
        .into_iter()
        .map(|node| Box::pin(ask(node, later, shared, known)))
        .collect();
    let nodes = pin!(async {
        if asking.is_empty() {
            return Err(LockError::unavailable(
                "no node of the Redis cluster is known",
            ));
        }
        select_ok(asking).await.map(|(topology, _)| topology)
    });
    let seeds = pin!(async {
        sleep(later).await;
        seeds::locate(shared).await
    });
    match select(nodes, seeds).await {
        Either::Left((Ok(topology), _)) => Ok(topology),
        Either::Left((Err(_), seeds)) => seeds.await,
        Either::Right((Ok(topology), _)) if topology.is_of(known) => Ok(topology),
        // Another cluster: it counts only where none of the nodes answers, as for a process that starts now.
        Either::Right((Ok(topology), nodes)) => nodes.await.or(Ok(topology)),
        Either::Right((Err(error), nodes)) => nodes.await.map_err(|_| error),
    }
}

/// Asks one of the same cluster; where it is to be connected to first, after this long.
async fn ask(
    (info, connection): Candidate,
    later: Duration,
    shared: &Shared,
    known: &Topology,
) -> Result<Topology, LockError> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => {
            sleep(later).await;
            open(&info, &shared.settings, None).await?
        }
    };
    let topology = Topology::of_cluster(&mut connection, &info, shared).await?;
    // An address can have become that of a node of another cluster.
    if !topology.is_of(known) {
        return Err(LockError::unavailable(
            "the address of a Redis server leads to one of another cluster",
        ));
    }
    Ok(topology)
}
