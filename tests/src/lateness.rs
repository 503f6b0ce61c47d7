//! What a busy machine adds to a time, so that a bound on it is one on the library alone.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, getpid};
use tokio::task::JoinHandle;

use crate::servers::descendants;

/// A tick of what the kernel says about the processor as a whole.
const TICK: Duration = Duration::from_millis(10);

/// How long threads have waited for a processor so far, and this machine for its own: they could run,
/// and others did. The kernel keeps account of that.
#[derive(Debug)]
pub struct Queued {
    processes: fn() -> Vec<Pid>,
    /// By process and thread.
    threads: BTreeMap<(i32, String), Duration>,
    stolen: Duration,
}

impl Queued {
    /// The threads of this process.
    #[must_use]
    pub fn here() -> Self {
        Self::of(|| vec![getpid()])
    }

    /// Those of the processes that it has started as well: servers, and other clients.
    #[must_use]
    pub fn here_and_there() -> Self {
        Self::of(|| {
            let mut all = descendants(getpid());
            all.push(getpid());
            all
        })
    }

    fn of(processes: fn() -> Vec<Pid>) -> Self {
        let mut threads = BTreeMap::new();
        for pid in processes() {
            // One that has ended meanwhile is not counted.
            let tasks = fs::read_dir(format!("/proc/{pid}/task"));
            for task in tasks.into_iter().flatten().flatten() {
                if let Some(waited) = waited(&task) {
                    let thread = task.file_name().to_string_lossy().into_owned();
                    threads.insert((pid.as_raw_nonzero().get(), thread), waited);
                }
            }
        }
        Self {
            processes,
            threads,
            stolen: stolen(),
        }
    }

    /// What all of them together have waited since.
    #[must_use]
    pub fn since(&self) -> Duration {
        let (each, stolen) = self.added();
        each.into_values().sum::<Duration>() + stolen
    }

    /// What the process has waited since that has waited longest.
    #[must_use]
    pub fn longest_since(&self) -> Duration {
        let (each, stolen) = self.added();
        each.into_values().max().unwrap_or_default() + stolen
    }

    /// Whether a process has waited so long since that no renewal of a lease of this length could be in time:
    /// two of three fit into what is left of it.
    #[must_use]
    pub fn starves(&self, lease: Duration) -> bool {
        self.longest_since() > lease / 3
    }

    fn added(&self) -> (BTreeMap<i32, Duration>, Duration) {
        let now = Self::of(self.processes);
        let mut each = BTreeMap::<i32, Duration>::new();
        for (thread, waited) in now.threads {
            let before = self.threads.get(&thread).copied().unwrap_or_default();
            *each.entry(thread.0).or_default() += waited.saturating_sub(before);
        }
        (each, now.stolen.saturating_sub(self.stolen))
    }
}

/// The second number of `schedstat`, in nanoseconds.
fn waited(task: &fs::DirEntry) -> Option<Duration> {
    let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
    stat.split(' ')
        .nth(1)?
        .parse()
        .ok()
        .map(Duration::from_nanos)
}

fn stolen() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let ticks = stat.split_whitespace().nth(8).unwrap();
    TICK * ticks.parse::<u32>().unwrap()
}

/// How late the machine is by itself: a timer on the runtime of a test, and the time for which the
/// test and its servers have waited for a processor.
///
/// A bound such as "100 ms later at most" is for the library. On a machine that is busy with other
/// work a timer alone can be later than that, and each step of a hand-over as well, so that what the
/// machine adds is taken off.
#[derive(Debug)]
pub struct Lateness {
    due: Instant,
    queued: Queued,
    fired: JoinHandle<Instant>,
}

impl Lateness {
    /// Starts a timer over this duration.
    #[must_use]
    pub fn of(wait: Duration) -> Self {
        let queued = Queued::here_and_there();
        let due = Instant::now() + wait;
        let fired = tokio::spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            Instant::now()
        });
        Self { due, queued, fired }
    }

    /// How long after the duration it is now, less what the machine has added.
    #[must_use]
    pub fn by_now(self) -> Duration {
        let after = self.due.elapsed();
        self.fired.abort();
        after.saturating_sub(self.queued.since())
    }

    /// Checks that what has just ended did not end before the duration was over, and no more than
    /// `bound` after it, less what the machine has added.
    pub async fn check(self, bound: Duration) {
        let early = self.due.saturating_duration_since(Instant::now());
        assert!(early.is_zero(), "it ended {early:?} too early");
        self.at_most(bound).await;
    }

    /// Checks that what has just ended did so no more than `bound` after the duration, less what the
    /// machine has added.
    pub async fn at_most(self, bound: Duration) {
        let ended = Instant::now();
        if ended <= self.due + bound {
            return self.fired.abort();
        }
        let queued = self.queued.since();
        let late = ended.saturating_duration_since(self.fired.await.unwrap());
        assert!(
            late.saturating_sub(queued) <= bound,
            "it ended {late:?} after its time, of which {queued:?} can be the machine's, and {bound:?} are allowed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_compete_for_processors_wait_for_them() {
        let queued = Queued::here();
        let threads = 3 * std::thread::available_parallelism().unwrap().get();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_millis(500) {}
                });
            }
            // Threads that have ended are not counted.
            std::thread::sleep(Duration::from_millis(400));
            assert!(queued.since() > Duration::from_millis(400));
        });
    }

    #[tokio::test]
    #[should_panic(expected = "are allowed")]
    async fn what_sleeps_for_too_long_is_late_on_any_machine() {
        let late = Lateness::of(Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(3)).await;
        late.at_most(Duration::from_millis(100)).await;
    }
}
