//! A server that can keep locks: connected to, and checked.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionInfo, cmd, from_redis_value};

use super::about::{About, Mode, Reign, judge};
use super::connect::{ask, open};
use super::shared::Shared;
use super::topology::id_of_member;
use crate::{LockError, entropy};

/// A connection to one that can keep locks, and when which time was read there.
pub(super) struct Opened {
    pub(super) connection: MultiplexedConnection,
    /// What the members of a cluster call it.
    pub(super) member: Option<String>,
    pub(super) run_id: String,
    pub(super) reign: Option<Reign>,
    /// Of this connection: see [`Owner`](super::key::Owner).
    pub(super) identity: u64,
    pub(super) sent: Duration,
    pub(super) received: Duration,
    pub(super) time: u64,
}

/// Connects and checks.
pub(super) async fn connect(info: &ConnectionInfo, shared: &Shared) -> Result<Opened, LockError> {
    let settings = &shared.settings;
    let mut connection = open(info, settings, None).await?;
    let about = About::of(&mut connection, settings).await?;
    check(connection, &about, shared).await
}

/// Refuses a server that cannot keep locks.
pub(super) async fn check(
    mut connection: MultiplexedConnection,
    about: &About,
    shared: &Shared,
) -> Result<Opened, LockError> {
    let settings = &shared.settings;
    judge(about, settings)?;
    let member = match about.mode() {
        Mode::Cluster => Some(id_of_member(&mut connection, settings).await?),
        _ => None,
    };
    let sent = shared.clock.now();
    let within = settings.connect_timeout();
    let time = ask(&mut connection, &cmd("TIME"), settings, within).await?;
    let received = shared.clock.now();
    let (seconds, micros): (u64, u64) = from_redis_value(time).map_err(|error| {
        LockError::unavailable("the Redis server has no time").with_source(error)
    })?;
    Ok(Opened {
        connection,
        member,
        run_id: about.run_id().to_owned(),
        reign: about.reign(),
        identity: u64::from_ne_bytes(entropy::bytes()?),
        sent,
        received,
        time: seconds.saturating_mul(1_000_000).saturating_add(micros),
    })
}
