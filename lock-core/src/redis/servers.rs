//! Which servers the commands go to.
//!
//! A node has two connections, and its address can lead them to two servers: a proxy or a name that
//! follows a fail-over, while the former server lives. What the second connection says of one server is no
//! answer about the other: a channel there is not that of the locks.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// What the servers of the command connections call themselves, by the places of their nodes. Another
/// name after every start; empty while it is not known.
#[derive(Debug, Default)]
pub(super) struct Servers {
    names: watch::Sender<Vec<String>>,
    /// When one of them is known to have lived, on CLOCK_BOOTTIME.
    lived: Mutex<Duration>,
}

impl Servers {
    /// Commands for this node go to this server from now on.
    pub(super) fn set(&self, node: usize, run_id: &str) {
        self.names.send_if_modified(|servers| {
            if servers.len() <= node {
                servers.resize(node + 1, String::new());
            }
            let is_new = servers[node] != run_id;
            if is_new {
                run_id.clone_into(&mut servers[node]);
            }
            is_new
        });
    }

    /// Whether commands for this node go to this server, as far as that is known.
    pub(super) fn is(&self, node: usize, run_id: &str) -> bool {
        let servers = self.names.borrow();
        let known = servers.get(node).map_or("", String::as_str);
        known.is_empty() || known == run_id
    }

    /// One of them has answered a question of this time.
    pub(super) fn live(&self, asked: Duration) {
        let mut lived = self.lived.lock().unwrap_or_else(PoisonError::into_inner);
        *lived = asked.max(*lived);
    }

    /// When one of them was last known to live.
    pub(super) fn lived(&self) -> Duration {
        *self.lived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<Vec<String>> {
        self.names.subscribe()
    }
}
