//! What was chosen about a Redis backend, and the times that follow from it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBuilder;

use super::connection_string::Target;
use super::logins::Logins;
use crate::LockError;
use crate::server::LeaseTerms;

/// Shorter leases are lost to a hiccup, longer ones never end.
pub(super) const LEASES: RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(24 * 3600);

/// Between attempts to connect.
pub(super) const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(10))
    .with_max_delay(Duration::from_millis(500));

/// How long connecting to a server may take, unless the connection string says it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Refuses a lease out of bounds.
pub(super) fn check_lease(lease: Duration) -> Result<(), LockError> {
    if LEASES.contains(&lease) {
        return Ok(());
    }
    Err(LockError::misconfigured(
        "the lease of Redis locks must be from 500 ms to 24 h",
    ))
}

/// What was chosen.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) target: Target,
    pub(super) lease: Duration,
    pub(super) namespace: String,
    /// How the value of a lock ends that is granted to this process: see [`value`](super::value).
    pub(super) signature: Arc<str>,
    pub(super) quarantine: Duration,
    pub(super) allow_eviction: bool,
    pub(super) replicas: u8,
    pub(super) logins: Logins,
}

impl Settings {
    pub(super) fn terms(&self) -> LeaseTerms {
        LeaseTerms::new(self.lease)
    }

    /// How often what is held is renewed.
    pub(super) fn heartbeat(&self) -> Duration {
        self.terms().heartbeat()
    }

    /// By how much our validity ends before the key does.
    pub(super) fn margin(&self) -> Duration {
        self.terms().margin()
    }

    /// When a lease ends that was asked for then.
    pub(super) fn valid_until(&self, sent: Duration) -> Duration {
        self.terms().valid_until(sent)
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.target.connect_timeout.unwrap_or(CONNECT_TIMEOUT)
    }

    /// How long one answer of the server is waited for; after that the connection is replaced.
    pub(super) fn answer_within(&self) -> Duration {
        self.heartbeat().min(Duration::from_secs(2))
    }

    /// How long replicas have to know of a lock: while they are waited for, the second connection
    /// answers nothing else.
    pub(super) fn replicas_within(&self) -> Duration {
        self.answer_within() / 3
    }
}

#[cfg(test)]
impl Settings {
    /// What is chosen by default, for this server.
    pub(super) fn of(connection_string: &str) -> Self {
        use super::value::signature;
        use crate::instance::Instance;

        let lease = Duration::from_secs(30);
        Self {
            target: Target::parse(connection_string).unwrap(),
            lease,
            namespace: String::new(),
            signature: signature(&Instance::of("").unwrap()),
            quarantine: lease,
            allow_eviction: false,
            replicas: 0,
            logins: Logins::new(None),
        }
    }
}
