//! What a history was found to be.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Event;

/// As many violations of one check are printed.
const PRINTED: usize = 5;

/// One of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// The history itself: what has ended has begun, and the faults are known.
    History,
    /// Tokens differ, and grow with every later holder.
    TokenOrder,
    /// Never two inside.
    Exclusion,
    /// The fenced resource was written by ever newer holders, as often as it says.
    FencedResource,
    /// Nothing is stuck.
    NothingStuck,
    /// Losses are signalled, in time, for good, and only where there is one.
    Loss,
    /// Every wait ends.
    Deadlines,
    /// First come, first served.
    Order,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::History => "history",
            Self::TokenOrder => "token order",
            Self::Exclusion => "exclusion",
            Self::FencedResource => "fenced resource",
            Self::NothingStuck => "nothing stuck",
            Self::Loss => "loss",
            Self::Deadlines => "deadlines",
            Self::Order => "order",
        })
    }
}

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The check that found it.
    pub check: Check,
    /// What it is.
    pub what: String,
    /// The events that show it.
    pub events: Vec<Event>,
}

impl Violation {
    pub(super) fn new<'h>(
        check: Check,
        what: impl Into<String>,
        events: impl IntoIterator<Item = &'h Event>,
    ) -> Self {
        Self {
            check,
            what: what.into(),
            events: events.into_iter().cloned().collect(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.what)?;
        for event in &self.events {
            let line = serde_json::to_string(event).map_err(|_| fmt::Error)?;
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// How often something was tried, and how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// It was done.
    pub done: usize,
    /// It was refused.
    pub refused: usize,
    /// Whether it was done is unknown.
    pub unknown: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            done,
            refused,
            unknown,
        } = self;
        write!(f, "{done} done, {refused} refused, {unknown} unknown")
    }
}

/// What was in the history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Locks that were asked for.
    pub acquires: Tally,
    /// Locks that were given back.
    pub releases: Tally,
    /// Writes to fenced resources.
    pub writes: Tally,
    /// Faults, by their names.
    pub faults: BTreeMap<String, usize>,
    /// Holds that were lost and heard of it.
    pub losses: usize,
    /// Grants to readers.
    pub reads: usize,
    /// The longest wait of a writer that was served, over all processes.
    pub longest_wait_to_write: Duration,
    /// The longest wait of one who was served, over all processes.
    pub longest_wait: Duration,
    /// Whose wait that was: the event of the grant.
    pub waited: Option<Event>,
    /// Overlaps that are the server's doing.
    pub overlaps_excused: usize,
    /// The longest of them.
    pub longest_overlap: Duration,
}

/// What a history was found to be. What it displays is the report of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Everything that must not happen.
    pub violations: Vec<Violation>,
    /// What was in the history.
    pub counts: Counts,
}

impl Verdict {
    /// The violations that one of the checks has found.
    pub fn of(&self, check: Check) -> impl Iterator<Item = &Violation> {
        self.violations
            .iter()
            .filter(move |violation| violation.check == check)
    }

    /// The checks that have found something, each once, in their order.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        let mut checks: Vec<_> = self.violations.iter().map(|found| found.check).collect();
        checks.sort_unstable();
        checks.dedup();
        checks
    }

    /// Hands the verdict on when nothing was found.
    ///
    /// # Panics
    ///
    /// With the report, when something was.
    #[track_caller]
    pub fn assert_clean(self) -> Self {
        assert!(self.violations.is_empty(), "{self}");
        self
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            acquires,
            releases,
            writes,
            faults,
            losses,
            reads,
            longest_wait_to_write,
            longest_wait,
            waited,
            overlaps_excused,
            longest_overlap,
        } = &self.counts;
        writeln!(f, "acquires          {acquires}")?;
        writeln!(f, "releases          {releases}")?;
        writeln!(f, "fenced writes     {writes}")?;
        write!(f, "faults            {}", faults.values().sum::<usize>())?;
        for (name, times) in faults {
            write!(f, ", {name} {times}")?;
        }
        writeln!(f)?;
        writeln!(f, "losses signalled  {losses}")?;
        write!(f, "longest wait      {longest_wait:.1?}")?;
        if let Some(Event {
            process, op, lock, ..
        }) = waited
        {
            write!(f, ", of {process} {op} for {lock}")?;
        }
        writeln!(f)?;
        if *reads > 0 {
            writeln!(f, "reads             {reads}")?;
            writeln!(f, "longest to write  {longest_wait_to_write:.1?}")?;
        }
        write!(f, "overlaps excused  {overlaps_excused}")?;
        if *overlaps_excused > 0 {
            write!(f, ", up to {longest_overlap:.1?}")?;
        }
        writeln!(f)?;
        write!(f, "violations        {}", self.violations.len())?;
        for check in self.checks() {
            for violation in self.of(check).take(PRINTED) {
                write!(f, "\n{violation}")?;
            }
            let more = self.of(check).count().saturating_sub(PRINTED);
            if more > 0 {
                write!(f, "\n{check}: and {more} more")?;
            }
        }
        Ok(())
    }
}
