//! What differs from one backend, and from one run, to the other.

use std::collections::BTreeMap;
use std::time::Duration;

/// What the library may add to a wait, besides one exchange with the server.
const SLACK: Duration = Duration::from_millis(100);

/// What a history is held to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whether holders draw fencing tokens.
    pub tokens: bool,
    /// How long a loss may follow after the end of its fault: a lease, and a moment to look.
    pub losses_follow_for: Duration,
    /// How late an acquire may end after its wait.
    pub lateness: Duration,
    /// Within which time every lock can be acquired once all is healed; `None` for a run that does not
    /// try.
    pub free_within: Option<Duration>,
    /// How much earlier a caller of the same process must have asked to be served earlier: zero if
    /// the process has one thread, so that the history has the order of the calls; `None` where
    /// there is no order to keep.
    pub fifo: Option<Duration>,
    /// How many may hold a lock at a time whose slots have a `#` and a number after its name; `None` for locks without
    /// permits.
    pub permits: Option<usize>,
    /// The faults that may occur, by their names.
    pub faults: BTreeMap<String, FaultRule>,
}

impl Default for Rules {
    /// # Default
    ///
    /// Tokens; a server that answers within two seconds; no lease, no probe, no order, no faults.
    fn default() -> Self {
        Self {
            tokens: true,
            losses_follow_for: Duration::from_secs(1),
            lateness: Duration::from_secs(2) + SLACK,
            free_within: None,
            fifo: None,
            permits: None,
            faults: BTreeMap::new(),
        }
    }
}

impl Rules {
    /// For locks that end with their lease, and for those that have none.
    #[must_use]
    pub fn lease(mut self, lease: Option<Duration>) -> Self {
        self.losses_follow_for = lease.unwrap_or_default() + Duration::from_secs(1);
        self
    }

    /// For a run that ends with a try of every lock, by which time it is free.
    #[must_use]
    pub fn free_within(mut self, bound: Duration) -> Self {
        self.free_within = Some(bound);
        self
    }

    /// For processes that serve their callers in the order of their calls; see [`Rules::fifo`].
    #[must_use]
    pub fn fifo(mut self, apart: Duration) -> Self {
        self.fifo = Some(apart);
        self
    }

    /// For another answer to how long one exchange with the server may take.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.lateness = timeout + SLACK;
        self
    }

    /// For holders that draw no tokens.
    #[must_use]
    pub fn without_tokens(mut self) -> Self {
        self.tokens = false;
        self
    }

    /// With a fault that may occur.
    #[must_use]
    pub fn fault(mut self, name: impl Into<String>, rule: FaultRule) -> Self {
        self.faults.insert(name.into(), rule);
        self
    }
}

/// What a fault does, and what may and must come of it.
#[derive(Clone, Copy, Debug)]
pub struct FaultRule {
    /// What becomes of the process that it hits.
    pub process: Fate,
    /// Whether holders lose their locks.
    pub cost: Cost,
    /// How long a new holder may overlap with one that the fault has cost its lock, where the
    /// server itself drops it.
    pub overlap: Option<Duration>,
    /// Within which time from its beginning a waiter is granted what it frees.
    pub granted_within: Option<Duration>,
}

/// What becomes of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs on.
    Runs,
    /// It stands still until the fault is over.
    Frozen,
    /// It ends with the beginning of the fault.
    Killed,
}

/// Whether holders lose their locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// No.
    Nothing,
    /// Perhaps.
    May,
    /// A holder from its beginning to its end learns of the loss this soon after the end.
    Must(Duration),
}

impl FaultRule {
    /// A fault that no holder and no process is to suffer from.
    #[must_use]
    pub const fn harmless() -> Self {
        Self {
            process: Fate::Runs,
            cost: Cost::Nothing,
            overlap: None,
            granted_within: None,
        }
    }

    /// SIGKILL: a waiter for a lock of the process is granted it within `granted`.
    #[must_use]
    pub const fn kill(granted: Duration) -> Self {
        let mut rule = Self::harmless();
        rule.process = Fate::Killed;
        rule.granted_within = Some(granted);
        rule
    }

    /// SIGSTOP for longer than `lease`, and SIGCONT; where there is no lease a holder stays the
    /// holder.
    #[must_use]
    pub fn freeze(lease: Option<Duration>) -> Self {
        let mut rule = Self::harmless();
        rule.process = Fate::Frozen;
        if let Some(lease) = lease {
            rule.cost = Cost::Must(Duration::from_millis(500));
            rule.granted_within = Some(lease + Duration::from_millis(500));
        }
        rule
    }

    /// The server drops locks by itself: holders hear of it within `noticed`, and overlap for no
    /// longer.
    #[must_use]
    pub const fn dropped_by_the_server(noticed: Duration) -> Self {
        let mut rule = Self::harmless().costs_locks(noticed);
        rule.overlap = Some(noticed);
        rule
    }

    /// One that costs every lock that is held from its beginning to its end: its holder learns of it
    /// this soon after the end.
    #[must_use]
    pub const fn costs_locks(mut self, noticed: Duration) -> Self {
        self.cost = Cost::Must(noticed);
        self
    }

    /// On a machine that has added so much to whatever has a bound.
    #[must_use]
    pub fn on_a_machine_that_adds(mut self, added: Duration) -> Self {
        if let Cost::Must(noticed) = &mut self.cost {
            *noticed += added;
        }
        for bound in [&mut self.overlap, &mut self.granted_within] {
            *bound = bound.map(|bound| bound + added);
        }
        self
    }

    /// How soon after its end a holder knows of a loss.
    #[must_use]
    pub fn noticed_within(&self) -> Duration {
        let noticed = match self.cost {
            Cost::Must(noticed) => noticed,
            Cost::Nothing | Cost::May => Duration::ZERO,
        };
        noticed.max(self.overlap.unwrap_or_default())
    }

    /// One that can cost locks and need not.
    #[must_use]
    pub const fn may_cost_locks(mut self) -> Self {
        self.cost = Cost::May;
        self
    }
}
