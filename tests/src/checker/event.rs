//! What a history is made of.

use std::ops::Not;

use serde::{Deserialize, Serialize};

/// The [`op`](Event::op) of the event that tells that nothing is broken any more.
pub const HEALED: &str = "heal";

/// The [`op`](Event::op) of what was found in a store that should be empty.
pub const LEFT_OVER: &str = "left-over";

/// The [`process`](Event::process) that speaks for the fenced resource.
pub const RESOURCE: &str = "resource";

/// The [`op`](Event::op) of a resource's word on how many writes it has accepted.
pub const WRITES: &str = "writes";

/// The [`op`](Event::op) of a resource's word on the newest token that it has seen.
pub const NEWEST: &str = "newest";

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When, in nanoseconds on CLOCK_BOOTTIME, which all processes of a machine share.
    pub t_ns: u64,
    /// Who; of a fault: whom it hits, empty if all.
    pub process: String,
    /// Which of the operations of the process: an acquire and all that follows from it, up to the
    /// release, have the same. Of a fault: its name.
    pub op: String,
    /// Which lock; of a fault: which lock it hits, empty if all.
    pub lock: String,
    /// What is done.
    pub f: Action,
    /// How far it has come.
    #[serde(rename = "type")]
    pub stage: Stage,
    /// Of the invoke of an acquire: whether it is a reader's.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub shared: bool,
    /// The fencing token, from the first event after it was issued. Of the resource's word: the
    /// number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Until when the lock is ours, as the process knows it at this time, on the same clock. Of the
    /// invoke of an acquire: until when it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until_ns: Option<u64>,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A lock is asked for.
    Acquire,
    /// It is given back.
    Release,
    /// The fenced resource of the lock is written. `fail`: it refused the token.
    Write,
    /// `ok`: the holder learns that the lock is lost. `fail`: it learns later that it is not.
    Lost,
    /// Something is broken (`invoke`) and is whole again (`ok`).
    Fault,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It begins.
    Invoke,
    /// It is done.
    Ok,
    /// It was not done.
    Fail,
    /// Whether it was done is unknown.
    Info,
}
