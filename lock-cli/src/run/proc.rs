//! Which processes there are, as Linux says it in `/proc`. Elsewhere there seem to be none.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
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

/// Which processes are children of which.
#[derive(Debug)]
pub(super) enum Children {
    /// As the kernel lists them when a process is asked for.
    Listed,
    /// As all processes named their parents, where the kernel was built without such lists.
    ByParent(HashMap<i32, Vec<Pid>>),
}

impl Children {
    pub(super) fn now() -> Self {
        match Path::new("/proc/thread-self/children").exists() {
            true => Self::Listed,
            false => Self::by_parent(all()),
        }
    }

    /// The children of a process. One that comes or ends meanwhile may be missed.
    pub(super) fn of(&self, parent: Pid) -> Vec<Pid> {
        match self {
            Self::Listed => listed(parent),
            Self::ByParent(children) => {
                let children = children.get(&parent.as_raw_nonzero().get());
                children.cloned().unwrap_or_default()
            }
        }
    }

    fn by_parent(processes: impl Iterator<Item = (Pid, Stat)>) -> Self {
        let mut children: HashMap<i32, Vec<Pid>> = HashMap::new();
        for (pid, stat) in processes {
            children.entry(stat.parent).or_default().push(pid);
        }
        Self::ByParent(children)
    }
}

/// All processes that there are.
fn all() -> impl Iterator<Item = (Pid, Stat)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(|number| Some((Pid::from_raw(number)?, stat(number)?)))
}

fn listed(parent: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter();
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
    use std::process::Command;

    use super::*;

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    #[test]
    fn children_are_found_by_their_parents() {
        let stats = ["1 (init) S 0", "7 (a) S 1", "8 (b) Z 7", "9 (c) R 7"];
        let processes = stats.into_iter().map(|stat| {
            let number = stat.split(' ').next().unwrap();
            (pid(number.parse().unwrap()), stat.parse().unwrap())
        });
        let children = Children::by_parent(processes);
        assert_eq!(children.of(pid(1)), [pid(7)]);
        assert_eq!(children.of(pid(7)), [pid(8), pid(9)]);
        assert_eq!(children.of(pid(9)), []);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_child_is_found_in_either_way() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        for children in [Children::now(), Children::by_parent(all())] {
            let found = children.of(getpid());
            assert!(found.contains(&Pid::from_child(&child)), "{children:?}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_name_with_parentheses_is_no_field() {
        let stat: Stat = "4711 (a) Z 1) S 42 4711 4711 0".parse().unwrap();
        assert_eq!((stat.state, stat.parent), ('S', 42));
        for wrong in ["", "4711 (sh", "4711 (sh) ", "4711 (sh) S x"] {
            assert!(wrong.parse::<Stat>().is_err(), "{wrong}");
        }
    }
}
