//! One server: its connection for commands, its clock, and what the log says of them.

use std::time::Duration;

use ::redis::ConnectionInfo;
use ::redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use crate::LockError;
use crate::outage::{Outage, SoFar};
use crate::redis::opened::Opened;
use crate::redis::scripts::Failure;
use crate::redis::settings::BACKOFF;
use crate::server::BackOff;
use crate::server::clock::{Jump, ServerClock};
use crate::server::leased::Part;
use crate::server::link::{Link, LinkId};

pub(super) struct Node {
    pub(super) info: ConnectionInfo,
    pub(super) link: Link<MultiplexedConnection>,
    pub(super) id: LinkId,
    /// What the server calls itself since its start.
    pub(super) run_id: String,
    /// Of the connection: see [`Owner`](crate::server::leased::Owner).
    pub(super) identity: u64,
    /// Since when a connection is asked for.
    pub(super) absent_since: Option<Instant>,
    pub(super) clock: ServerClock,
    /// When that was seen to have been put forward, on CLOCK_BOOTTIME.
    pub(super) jumped_at: Option<Duration>,
    backoff: BackOff,
    /// No connection can be made.
    outage: Outage,
    /// Whether the present connection has given an answer.
    has_answered: bool,
    unrenewed: Unrenewed,
}

/// Leases are not renewed there: of locks that are whole, and of shares.
struct Unrenewed {
    whole: Outage,
    shares: Outage,
}

impl Unrenewed {
    fn of(&mut self, part: Part) -> &mut Outage {
        match part {
            Part::Share => &mut self.shares,
            Part::Whole | Part::Place => &mut self.whole,
        }
    }
}

/// What a new connection leads to.
pub(super) struct Came {
    /// Whether it is to another server than the one before.
    pub(super) is_another: bool,
    pub(super) jump: Option<Jump>,
}

impl Node {
    pub(super) fn new(place: usize, info: ConnectionInfo) -> Self {
        Self {
            info,
            link: Link::down(),
            id: LinkId {
                node: place,
                ..LinkId::default()
            },
            run_id: String::new(),
            identity: 0,
            absent_since: None,
            clock: ServerClock::default(),
            jumped_at: None,
            backoff: BackOff::new(BACKOFF),
            outage: Outage::new(),
            has_answered: false,
            unrenewed: Unrenewed {
                whole: Outage::new(),
                shares: Outage::new(),
            },
        }
    }

    /// It has nothing any more.
    pub(super) fn leave(&mut self) {
        self.link = Link::down();
        self.absent_since = None;
    }

    /// A connection was made. A server that was not met before has this number.
    pub(super) fn up(&mut self, opened: Opened, number: u64, margin: Duration) -> Came {
        self.outage.over(|lasted| {
            tracing::info!(server = %self.info.addr(), ?lasted, "connected to the Redis server again");
        });
        self.link = Link::Up(opened.connection);
        self.absent_since = None;
        self.id.generation += 1;
        self.has_answered = false;
        self.identity = opened.identity;
        let is_another = self.run_id != opened.run_id;
        if is_another {
            self.run_id = opened.run_id;
            self.id.server = number;
            // Another server's clock; its own quarantine covers what it forgot.
            self.clock = ServerClock::default();
        }
        let (sent, received) = (opened.sent, opened.received);
        let jump = self.clock.observe(sent, received, opened.time, margin);
        Came { is_another, jump }
    }

    /// None could be made; gives when it can be again.
    pub(super) fn down(&mut self, error: &LockError) -> Instant {
        let retry_at = self.back_off();
        self.outage.failed(|SoFar { failures, lasting }| {
            tracing::warn!(
                server = %self.info.addr(), reason = %error, failures, lasting,
                "cannot connect to the Redis server: its locks are neither granted nor renewed; retrying"
            );
        });
        retry_at
    }

    /// No connection for a while, which is longer each time until it answers; gives its end.
    fn back_off(&mut self) -> Instant {
        let retry_at = Instant::now() + self.backoff.pause();
        self.link = Link::Down { retry_at };
        retry_at
    }

    /// A call over this connection failed. Nothing more goes over one that may be dead, or whose server is no
    /// master, which of a single server is said by its being elsewhere.
    pub(super) fn failed(&mut self, link: LinkId, failure: &Failure, is_single: bool) {
        let is_dead = !matches!(failure, Failure::Refused(_));
        if self.id.generation == link.generation
            && self.link.up().is_some()
            && (is_dead || (is_single && failure.is_elsewhere()))
        {
            // A server that answers so, or lets everyone in and answers nothing, is not asked again at full
            // speed.
            if matches!(failure, Failure::Nonsense) || !self.has_answered {
                self.back_off();
            } else {
                self.link = Link::down();
            }
        }
    }

    /// A call over this connection was answered.
    pub(super) fn answered(&mut self, link: LinkId) {
        if self.id.generation == link.generation {
            self.backoff.reset();
            self.has_answered = true;
        }
    }

    /// So many leases of this part were not renewed.
    pub(super) fn not_renewed(&mut self, locks: usize, part: Part, reason: &str) {
        self.unrenewed
            .of(part)
            .failed(|SoFar { failures, lasting }| {
                tracing::warn!(
                    server = %self.info.addr(), reason, locks, failures, lasting,
                    "leases in Redis were not renewed; retrying until they expire"
                );
            });
    }

    pub(super) fn has_renewed(&mut self, part: Part) {
        self.unrenewed.of(part).over(|lasted| {
            tracing::info!(server = %self.info.addr(), ?lasted, "leases in Redis are renewed again");
        });
    }

    /// No lease is renewed here: what was not renewed in time is lost, which has a line of its own.
    pub(super) fn renews_nothing(&mut self) {
        let Unrenewed { whole, shares } = &mut self.unrenewed;
        whole.over(|_| ());
        shares.over(|_| ());
    }
}
