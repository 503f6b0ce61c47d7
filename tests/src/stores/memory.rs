//! Locks in memory.

use std::time::Duration;

use lock_core::LockName;
use lock_core::memory::MemoryBackend;

use super::Store;

/// A [`MemoryBackend`]; its clones are the connections.
#[derive(Debug)]
pub struct MemoryStore(MemoryBackend);

const ONE_PROCESS: &str = "the locks of one process";

impl Store for MemoryStore {
    type Backend = MemoryBackend;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[
        (
            "a_lock_that_a_child_holds_cannot_be_had_until_the_child_releases_it",
            ONE_PROCESS,
        ),
        (
            "the_lock_of_a_child_that_ends_without_a_release_is_granted",
            ONE_PROCESS,
        ),
        ("the_lock_of_a_child_that_is_killed_is_granted", ONE_PROCESS),
        (
            "permits_of_a_process_that_is_killed_are_granted",
            ONE_PROCESS,
        ),
        ("a_process_keeps_what_it_has_released", ONE_PROCESS),
        (
            "what_a_process_keeps_that_is_killed_ends_with_it_or_in_time",
            ONE_PROCESS,
        ),
        ("late_timers_do_not_run_a_short_job_again", ONE_PROCESS),
        (
            "a_program_that_the_holder_started_does_not_keep_its_lock",
            ONE_PROCESS,
        ),
        (
            "a_waiting_child_and_a_waiting_parent_are_each_served_when_the_other_releases",
            ONE_PROCESS,
        ),
        (
            "processes_that_hammer_a_few_names_are_never_inside_together",
            ONE_PROCESS,
        ),
        ("a_name_is_made_the_same_in_every_process", ONE_PROCESS),
        (
            "a_holder_in_another_process_is_named_until_its_end",
            ONE_PROCESS,
        ),
        (
            "a_reader_whose_process_is_killed_lets_a_writer_in",
            ONE_PROCESS,
        ),
        (
            "a_writer_whose_process_is_killed_while_it_waits_lets_readers_in",
            ONE_PROCESS,
        ),
        (
            "the_loss_of_everything_is_seen_by_every_guard",
            "there is no connection to lose",
        ),
        (
            "five_thousand_waiters_outlast_the_loss_of_everything",
            "there is no connection to lose",
        ),
    ];
    const LEASE: Option<Duration> = None;
    const NOTICED_WITHIN: Duration = Duration::ZERO;
    const GRANTED_AFTER_A_KILL: Duration = Duration::ZERO;
    const STAYS_CLOSED: bool = false;

    async fn open() -> Self {
        Self(MemoryBackend::new())
    }

    async fn backend(&self) -> MemoryBackend {
        self.0.clone()
    }

    async fn lose(&self, name: &LockName) {
        assert!(self.0.revoke(name), "a lock that is to be lost is held");
    }

    async fn lose_all(&self) {
        unreachable!("there is no connection to lose");
    }

    async fn open_connections(&self) -> usize {
        0
    }

    fn address(&self) -> Option<String> {
        None
    }
}
