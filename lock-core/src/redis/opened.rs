//! A server that can keep locks: connected to, and checked.

use std::sync::Once;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionInfo, cmd};

use super::about::{About, Mode, Reign, judge, time_of};
use super::behind::refuse_split;
use super::connect::{ask, open};
use super::shared::Shared;
use super::split::Sight;
use super::topology::id_of_member;
use crate::server::clock;
use crate::{LockError, entropy};

/// What is said of a server that Sentinels name.
const NAMED: &str = "Sentinels name it as the master; a fail-over takes them a while, and an address that is \
                     reached from their network alone is corrected with `replica-announce-ip`";

/// A connection to one that can keep locks, and when which time was read there.
pub(super) struct Opened {
    pub(super) connection: MultiplexedConnection,
    /// Where it is, which Sentinels may have said.
    pub(super) info: ConnectionInfo,
    /// Before that was asked for.
    pub(super) asked: Duration,
    /// What the members of a cluster call it.
    pub(super) member: Option<String>,
    pub(super) run_id: String,
    /// What an error calls it.
    pub(super) name: String,
    pub(super) reign: Option<Reign>,
    /// Of this connection: see [`Owner`](crate::server::leased::Owner).
    pub(super) identity: u64,
    pub(super) sent: Duration,
    pub(super) received: Duration,
    pub(super) time: u64,
}

impl Opened {
    /// As one of the servers behind its address: it was checked to be a master.
    pub(super) fn sight(&self) -> Sight {
        Sight {
            run_id: self.run_id.clone(),
            name: format!("{} at {}", self.name, self.info.addr()),
            is_master: true,
        }
    }
}

/// Connects and checks; where there are Sentinels, to the server that they name.
pub(super) async fn connect(info: &ConnectionInfo, shared: &Shared) -> Result<Opened, LockError> {
    let settings = &shared.settings;
    let asked = shared.clock.now();
    let opening = async |info: &ConnectionInfo| {
        let mut connection = open(info, settings, None).await?;
        let about = About::of(&mut connection, settings).await?;
        let opened = check(info, connection, &about, shared).await?;
        if shared.sentinels.is_some() && !about.needs_replicas() {
            warn_of_split();
        }
        Ok(opened)
    };
    let Some(sentinels) = &shared.sentinels else {
        let opened = opening(info).await?;
        let is_another = opened.member.is_none() && !shared.servers.is(0, &opened.run_id);
        if is_another {
            refuse_split(&opened.info, opened.sight(), shared).await?;
        }
        return Ok(opened);
    };
    let info = sentinels.find().await?;
    let opened = opening(&info).await;
    let opened = opened.map_err(|error: LockError| match error.is_unavailable() {
        true => error.with_advice(NAMED),
        false => error,
    })?;
    if opened.member.is_some() {
        return Err(LockError::misconfigured(
            "the Redis Sentinels name a node of a cluster, whose members find their masters themselves: give \
             the addresses of nodes, and no Sentinel",
        ));
    }
    Ok(Opened { asked, ..opened })
}

/// Once in a process.
fn warn_of_split() {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            "the Redis master that Sentinels name goes on when it is cut off from its replicas and from them: \
             processes that are cut off with it can then hold locks that others are granted by a new master; \
             set `min-replicas-to-write` to 1 or more, and `min-replicas-max-lag` to no more than \
             `down-after-milliseconds`"
        );
    });
}

/// Refuses a server that cannot keep locks.
pub(super) async fn check(
    info: &ConnectionInfo,
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
    let time = time_of(time).map_err(|error| {
        LockError::unavailable("the Redis server returned an unexpected reply to TIME")
            .with_source(error)
    })?;
    clock::tell_difference(time);
    Ok(Opened {
        connection,
        info: info.clone(),
        asked: sent,
        member,
        run_id: about.run_id().to_owned(),
        name: about.name(),
        reign: about.reign(),
        identity: u64::from_ne_bytes(entropy::bytes()?),
        sent,
        received,
        time,
    })
}
