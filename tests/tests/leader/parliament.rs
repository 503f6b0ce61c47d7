//! Three processes that campaign for one name, and what is done to their leader.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::select_all;
use lock_tests::Queued;
use lock_tests::checker::{
    Action, Cost, Event, FaultRule, Journal, Operation, Rules, Stage, judge,
};
use lock_tests::child::Child;
use tempfile::TempDir;
use tokio::process::Command;

/// The lease of every store here.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// Within which time there is a new leader, whatever has become of the old one.
const ELECTED_WITHIN: Duration = LEASE.saturating_add(Duration::from_secs(1));

/// How long an old leader stays frozen or cut off.
pub(crate) const BEYOND_THE_LEASE: Duration = LEASE.saturating_add(Duration::from_millis(1_500));

/// Where a member is and how it comes to its server.
pub(crate) struct Seat {
    /// Starts the program there.
    pub(crate) command: Command,
    pub(crate) address: String,
}

impl Seat {
    /// On this machine.
    pub(crate) fn here(address: &str) -> Self {
        Self {
            command: Command::new(PROGRAM),
            address: address.to_owned(),
        }
    }
}

/// The program of the members.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_candidate");

/// The members, and what is known of them.
pub(crate) struct Parliament {
    directory: TempDir,
    members: Vec<Member>,
    /// How many there were.
    started: usize,
    journal: Journal,
    /// The most that the machine has added to what comes of a fault.
    added: Rc<Cell<Duration>>,
}

struct Member {
    name: String,
    child: Child,
}

impl Parliament {
    pub(crate) fn empty() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
            members: Vec::new(),
            started: 0,
            journal: Journal::in_memory(""),
            added: Rc::default(),
        }
    }

    /// Three members on this machine.
    pub(crate) async fn of_three(address: &str) -> Self {
        let mut parliament = Self::empty();
        for _ in 0..3 {
            parliament.join(Seat::here(address)).await;
        }
        parliament
    }

    fn history_of(&self, name: &str) -> PathBuf {
        self.directory.path().join(name).with_extension("jsonl")
    }

    /// Another member.
    pub(crate) async fn join(&mut self, mut seat: Seat) {
        let name = format!("p{}", self.started);
        self.started += 1;
        let resources = self.directory.path().join("resources");
        seat.command.arg(self.history_of(&name)).arg(resources);
        seat.command.args([&name, NAME]);
        let child = Child::start_by(seat.command, &seat.address).await;
        self.members.push(Member { name, child });
    }

    /// Waits for the next who says that it leads: which member it is, and when it was.
    pub(crate) async fn leader(&mut self) -> (usize, u64) {
        let says = self
            .members
            .iter_mut()
            .map(|member| Box::pin(member.child.answer()));
        let (line, member, _) = select_all(says).await;
        let at = line.strip_prefix("leads ").map(str::parse);
        (member, at.expect("nothing else is said").unwrap())
    }

    pub(crate) fn child(&mut self, member: usize) -> &mut Child {
        &mut self.members[member].child
    }

    /// Writes down that this is done to a member, from now on.
    pub(crate) fn begin(&self, fault: &'static str, member: usize) -> Fault {
        let journal = self.journal.of(&self.members[member].name);
        let operation = journal.named(fault, &"");
        let began = journal.now();
        operation.note(Action::Fault, Stage::Invoke);
        Fault {
            operation,
            began,
            queued: Queued::here_and_there(),
            added: Rc::clone(&self.added),
        }
    }

    /// Kills a member.
    pub(crate) async fn kill(&mut self, member: usize) -> Fault {
        let fault = self.begin(KILL, member);
        let mut killed = self.members.remove(member);
        killed.child.kill().await;
        fault
    }

    /// Stops all candidates and judges what they did.
    pub(crate) async fn dissolve(mut self) {
        for member in &mut self.members {
            member.child.tell("stop").await;
            // One who was elected meanwhile says that first.
            while member.child.answer().await != "stopped" {}
        }
        let mut history = self.journal.take();
        for number in 0..self.started {
            let path = self.history_of(&format!("p{number}"));
            history.extend(Journal::read(&path).unwrap());
        }
        judge(&history, &rules(self.added.get())).assert_clean();
        assert!(terms(&history) > 1, "there was more than one leader");
    }
}

/// What is done to a leader.
pub(crate) struct Fault {
    operation: Operation,
    began: u64,
    queued: Queued,
    added: Rc<Cell<Duration>>,
}

impl Fault {
    /// Checks that a new leader was there in time, less what a process or the server has waited for a processor.
    pub(crate) fn succeeded_at(&self, elected: u64) {
        let took = Duration::from_nanos(elected.saturating_sub(self.began));
        let queued = self.queued.longest_since();
        assert!(
            took.saturating_sub(queued) <= ELECTED_WITHIN,
            "there was no leader for {took:?}, of which {queued:?} can be the machine's"
        );
    }

    /// Nothing more comes of it.
    pub(crate) fn over(self) {
        let added = self.added.get().max(self.queued.longest_since());
        self.added.set(added);
        self.operation.note(Action::Fault, Stage::Ok);
    }
}

const NAME: &str = "job:process-outbox";

pub(crate) const KILL: &str = "kill";
pub(crate) const FREEZE: &str = "freeze";
pub(crate) const CUT_OFF: &str = "cut-off";

/// On a machine that has added so much.
fn rules(added: Duration) -> Rules {
    let mut cut_off = FaultRule::harmless();
    // Before its end: the lease is over by then.
    cut_off.cost = Cost::Must(added);
    let mut rules = Rules::default()
        .lease(Some(LEASE))
        .fault(KILL, FaultRule::kill(ELECTED_WITHIN + added))
        .fault(FREEZE, FaultRule::freeze(Some(LEASE)))
        .fault(CUT_OFF, cut_off);
    for rule in rules.faults.values_mut() {
        rule.granted_within = Some(ELECTED_WITHIN + added);
    }
    rules
}

/// How often a candidate was elected.
fn terms(history: &[Event]) -> usize {
    let elected = |event: &&Event| event.f == Action::Acquire && event.stage == Stage::Ok;
    history.iter().filter(elected).count()
}
