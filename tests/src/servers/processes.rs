//! What `/proc` says about processes.

use std::collections::HashMap;

use rustix::process::Pid;

/// One process, as `/proc/PID/stat` has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    /// `R` running, `S` sleeping, `T` stopped, `Z` ended and not waited for, ...
    pub(super) state: char,
    parent: i32,
}

/// `None` when there is no such process.
pub(super) fn stat(pid: Pid) -> Option<Stat> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program is in parentheses and may contain some.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some(Stat {
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
    })
}

/// Whether the process has not ended yet.
#[must_use]
pub fn lives(pid: Pid) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// The children of a process, and theirs, the nearest first.
#[must_use]
pub fn descendants(root: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<Pid>> = HashMap::new();
    let entries = std::fs::read_dir("/proc").expect("Linux has /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for pid in pids.filter_map(Pid::from_raw) {
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        found.extend(
            children
                .remove(&parent.as_raw_nonzero().get())
                .unwrap_or_default(),
        );
        next += 1;
    }
    found.split_off(1)
}
