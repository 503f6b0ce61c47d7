//! Which processes there are, as Linux says it in `/proc`. Elsewhere there seem to be none.

use std::fs;
use std::str::FromStr;

use rustix::process::{Pid, getpid};

/// One process, as `/proc/PID/stat` has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    /// `R` running, `S` sleeping, `T` stopped, `Z` ended and not waited for, ...
    pub(super) state: char,
    /// 0 where it has no number in this namespace.
    pub(super) parent: i32,
}

/// `None` when there is no such process, or `/proc` does not say.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.parse().ok()
}

impl FromStr for Stat {
    type Err = ();

    fn from_str(stat: &str) -> Result<Self, ()> {
        // The name of the program is in parentheses and may contain some.
        let (_, rest) = stat.rsplit_once(") ").ok_or(())?;
        let mut fields = rest.split(' ');
        let state = fields.next().and_then(|state| state.chars().next());
        let parent = fields.next().and_then(|parent| parent.parse().ok());
        Ok(Self {
            state: state.ok_or(())?,
            parent: parent.ok_or(())?,
        })
    }
}

/// Whether the numbers there are those of this process's namespace: in one that was entered without a mount of
/// its own, they are numbers of other processes.
pub(super) fn is_ours() -> bool {
    let itself = fs::read_link("/proc/self").ok();
    itself.is_some_and(|itself| itself.as_os_str() == &*getpid().to_string())
}

/// The children of a process. One that comes or ends meanwhile may be missed.
pub(super) fn children(of: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{of}/task")).into_iter();
    let threads = threads.flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| numbers(&list)).collect()
}

fn numbers(list: &str) -> Vec<Pid> {
    let numbers = list.split_ascii_whitespace().flat_map(str::parse);
    numbers.filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_no_field() {
        let stat: Stat = "4711 (a) Z 1) S 42 4711 4711 0".parse().unwrap();
        assert_eq!((stat.state, stat.parent), ('S', 42));
        for wrong in ["", "4711 (sh", "4711 (sh) ", "4711 (sh) S x"] {
            assert!(wrong.parse::<Stat>().is_err(), "{wrong}");
        }
    }
}
