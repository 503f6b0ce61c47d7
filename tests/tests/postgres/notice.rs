//! How long it takes to notice something, without what the machine adds.

use std::fs;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::task::{JoinHandle, spawn_blocking};

/// How soon a holder knows that its session has ended.
pub(crate) const NOTICED: Duration = Duration::from_millis(50);

/// A tick of what the kernel says about the processor as a whole.
const TICK: Duration = Duration::from_millis(10);

/// Measures the time from an event to the news of it.
///
/// On a machine that is busy with other work the threads that pass the news on have to wait for a
/// processor. The kernel keeps account of that, for each thread, and of what it did not have itself:
/// so the bound is for the rest, which is the library's doing, and holds in every round.
pub(crate) struct Notice {
    began: Instant,
    delayed: Duration,
}

impl Notice {
    /// It happens now.
    pub(crate) fn of_now() -> Self {
        Self {
            began: Instant::now(),
            delayed: delayed(),
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
        // Threads that have ended are not counted any more.
        let delayed = delayed().saturating_sub(self.delayed);
        assert!(
            took.saturating_sub(delayed) <= NOTICED,
            "it took {took:?}, of which the threads waited {delayed:?} for a processor"
        );
    }
}

/// How long the threads of this process have waited for a processor, and this machine for its own.
fn delayed() -> Duration {
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let waited = threads.filter_map(|thread| {
        // It may end meanwhile.
        let stat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').nth(1)?.parse::<u64>().ok()
    });
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let stolen = stat.split_whitespace().nth(8).unwrap();
    Duration::from_nanos(waited.sum::<u64>()) + TICK * stolen.parse::<u32>().unwrap()
}
