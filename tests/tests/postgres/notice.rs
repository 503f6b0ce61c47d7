//! How long it takes to notice something, without what the machine adds.

use std::time::{Duration, Instant};

use lock_tests::Queued;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::task::{JoinHandle, spawn_blocking};

/// How soon a holder knows that its session has ended.
pub(crate) const NOTICED: Duration = Duration::from_millis(50);

/// Measures the time from an event to the news of it.
///
/// On a machine that is busy with other work the threads that pass the news on have to wait for a
/// processor. The kernel keeps account of that, for each thread, and of what it did not have itself:
/// so the bound is for the rest, which is the library's doing, and holds in every round.
pub(crate) struct Notice {
    began: Instant,
    queued: Queued,
}

impl Notice {
    /// It happens now.
    pub(crate) fn of_now() -> Self {
        Self {
            began: Instant::now(),
            queued: Queued::here(),
        }
    }

    /// It happens when this process ends: what it takes a server to end a session is not the
    /// library's doing.
    pub(crate) fn of_the_end_of(process: i32) -> JoinHandle<Self> {
        let process = Pid::from_raw(process).unwrap();
        let process = pidfd_open(process, PidfdFlags::empty()).unwrap();
        spawn_blocking(move || {
            poll(&mut [PollFd::new(&process, PollFlags::IN)], None).unwrap();
            Self::of_now()
        })
    }

    /// It was noticed now.
    #[track_caller]
    pub(crate) fn assert_in_time(self) {
        let took = self.began.elapsed();
        let delayed = self.queued.since();
        assert!(
            took.saturating_sub(delayed) <= NOTICED,
            "it took {took:?}, of which the threads waited {delayed:?} for a processor"
        );
    }
}
