//! The processes of a campaign, and what is done to them.

use std::path::PathBuf;

use fastrand::Rng;
use lock_core::LockName;

use crate::checker::{Action, Event, Journal, Operation, Stage};
use crate::child::Child;

/// The processes of a campaign.
#[derive(Debug)]
pub struct Fleet {
    /// The choices of chance.
    pub rng: Rng,
    /// Where faults are written down.
    pub journal: Journal,
    pub(super) setting: Setting,
    cast: Vec<Player>,
    /// How many processes there were.
    started: usize,
}

/// What every process is started with.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) program: String,
    pub(super) address: String,
    /// Of the fenced resource.
    pub(super) resource: String,
    pub(super) histories: PathBuf,
    pub(super) clients: usize,
    /// How many of them read.
    pub(super) readers: usize,
    /// The locks that all want.
    pub(super) names: Vec<LockName>,
    /// How many may hold each of these at a time, where that is more than one.
    pub(super) permits: Option<usize>,
    /// Those that one process each keeps.
    pub(super) kept: Vec<LockName>,
}

#[derive(Debug)]
struct Player {
    name: String,
    child: Child,
}

/// A fault that has begun.
#[derive(Debug)]
#[must_use = "a fault is over at some time"]
pub struct Broken(Operation);

impl Broken {
    /// Writes down that nothing more will come of it.
    pub fn over(self) {
        self.0.note(Action::Fault, Stage::Ok);
    }
}

impl Fleet {
    pub(super) async fn open(rng: Rng, setting: Setting) -> Self {
        let mut fleet = Self {
            rng,
            journal: Journal::in_memory(""),
            setting,
            cast: Vec::new(),
            started: 0,
        };
        for place in 0..fleet.setting.kept.len() {
            let player = fleet.start(place).await;
            fleet.cast.push(player);
        }
        fleet
    }

    async fn start(&mut self, place: usize) -> Player {
        let name = format!("p{}", self.started);
        self.started += 1;
        let seed = self.rng.u64(..);
        let setting = &self.setting;
        let history = self.history_of(&name).display().to_string();
        let mut arguments = vec![
            setting.address.clone(),
            setting.resource.clone(),
            history,
            name.clone(),
            seed.to_string(),
            setting.clients.to_string(),
            setting.readers.to_string(),
            setting.permits.unwrap_or_default().to_string(),
            setting.kept[place].to_string(),
        ];
        arguments.extend(setting.names.iter().map(LockName::to_string));
        let child = Child::run(&setting.program, &arguments).await;
        Player { name, child }
    }

    fn history_of(&self, name: &str) -> PathBuf {
        self.setting.histories.join(name).with_extension("jsonl")
    }

    /// One of the processes.
    pub fn victim(&mut self) -> usize {
        self.rng.usize(..self.cast.len())
    }

    /// A process, to do something to it.
    pub fn child(&mut self, process: usize) -> &mut Child {
        &mut self.cast[process].child
    }

    /// Starts another process in the place of one that was killed.
    pub async fn replace(&mut self, process: usize) {
        self.cast[process] = self.start(process).await;
    }

    /// Writes down that a fault begins which hits a process.
    pub fn begin(&self, fault: &str, process: usize) -> Broken {
        Self::begun(&self.journal.of(&self.cast[process].name), fault)
    }

    /// Writes down that a fault begins which hits all.
    pub fn begin_for_all(&self, fault: &str) -> Broken {
        Self::begun(&self.journal.of(""), fault)
    }

    fn begun(journal: &Journal, fault: &str) -> Broken {
        let operation = journal.named(fault, &"");
        operation.note(Action::Fault, Stage::Invoke);
        Broken(operation)
    }

    /// Tells all processes to give back what they have, without waiting for it.
    pub(super) async fn tell_all_to_stop(&mut self) {
        for player in &mut self.cast {
            player.child.tell("stop").await;
        }
    }

    /// Waits for the end of all processes, and gathers what was written down.
    pub(super) async fn close(mut self) -> Vec<Event> {
        for player in &mut self.cast {
            assert_eq!(player.child.answer().await, "stopped");
        }
        let mut history = self.journal.take();
        for number in 0..self.started {
            let path = self.history_of(&format!("p{number}"));
            history.extend(Journal::read(&path).unwrap());
        }
        history
    }
}
