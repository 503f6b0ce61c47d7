//! Why a server does not serve for now, by the code that its answer begins with, and what ends that.

/// Each code, and what it says of the server.
const STATES: [(&str, &str); 8] = [
    (
        "OOM",
        "its memory is full (`maxmemory`): raise that, or give the locks a server of their own",
    ),
    (
        "MISCONF",
        "it cannot save its data, and takes no writes meanwhile (`stop-writes-on-bgsave-error`): free space on \
         its disk, or see its log",
    ),
    (
        "NOREPLICAS",
        "it has fewer replicas than its `min-replicas-to-write` asks for: bring them back, or ask for fewer",
    ),
    (
        "READONLY",
        "it is a replica now: have the address lead to the master",
    ),
    (
        "LOADING",
        "it is loading its data: it serves when that is done",
    ),
    (
        "BUSY",
        "a script or a function of another client runs for long: `SCRIPT KILL` or `FUNCTION KILL` ends it",
    ),
    (
        "CLUSTERDOWN",
        "its cluster has slots without a master, or no majority of its masters: bring those back",
    ),
    (
        "MASTERDOWN",
        "it is a replica, and its master is down: have the address lead to a master",
    ),
];

/// What is to be added to the sentence that says what was not done: a colon and the cause, or nothing where
/// that is not one of these. `said` is the answer, or its code.
pub(super) fn because(said: &str) -> String {
    let code = said.split_whitespace().next().unwrap_or_default();
    let state = STATES.iter().find(|(known, _)| *known == code);
    state.map_or_else(String::new, |(_, state)| format!(": {state}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_known_by_the_code_and_not_by_a_word() {
        let full = because("OOM command not allowed when used memory > 'maxmemory'.");
        assert!(full.starts_with(": its memory is full"), "{full}");
        assert!(because("LOADING").contains("loading its data"));
        for other in [
            "",
            "ERR not BUSY",
            "WRONGTYPE",
            "NOSCRIPT No matching script",
        ] {
            assert_eq!(because(other), "", "{other}");
        }
    }
}
