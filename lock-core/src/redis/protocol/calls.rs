//! What is sent: calls of the scripts.

use std::time::Duration;

use ::redis::Cmd;

use super::moves::Proof;
use crate::redis::command::{Acquire, HeldLock, Release, Token, WhoHolds};
use crate::redis::key::{Key, millis, prefix, readers};
use crate::redis::scripts::{EXCHANGE, HOLDERS, RENEW, TOKEN};
use crate::redis::settings::Settings;
use crate::redis::value::instance;
use crate::server::leased::{Owner, Part};

/// What goes to the server beside the locks.
pub(in crate::redis) struct Extra {
    /// That its clock jumped.
    pub(super) jumped: bool,
    /// Whether the slot was moved, or its master has ended.
    pub(super) proof: Option<Proof>,
}

/// Where and how an exchange is made.
pub(in crate::redis) struct Exchange<'a> {
    pub(in crate::redis) settings: &'a Settings,
    pub(in crate::redis) server_key: &'a str,
    /// By the server's clock, when it is too late.
    pub(in crate::redis) not_after: u64,
    /// The newest token that we know of.
    pub(in crate::redis) newest: u64,
    pub(in crate::redis) is_cluster: bool,
    /// When it is sent, on CLOCK_BOOTTIME.
    pub(in crate::redis) now: Duration,
}

/// What it is about.
#[derive(Default)]
pub(in crate::redis) struct Content<'a> {
    pub(super) releases: &'a [Release],
    pub(super) acquires: &'a [Acquire],
    /// How many of the acquires are to be granted at most, if they are a claim.
    pub(super) limit: Option<usize>,
    /// Whether it is asked if locks could be granted.
    pub(super) is_probe: bool,
    pub(super) extra: Option<&'a Extra>,
    /// Which of the acquires are of clients that wait, in order.
    pub(super) waiting: &'a [usize],
}

impl Content<'_> {
    /// Asks whether locks could be granted.
    pub(in crate::redis) fn probe() -> Self {
        Self {
            is_probe: true,
            ..Self::default()
        }
    }
}

impl Exchange<'_> {
    pub(in crate::redis) fn call(&self, of: &Content<'_>) -> Cmd {
        let lease = self.settings.lease;
        let releases = of.releases.iter().map(|r| (&r.key, r.owner));
        let locks = releases.chain(of.acquires.iter().map(|a| (&a.key, a.owner)));
        let count = of.releases.len() + of.acquires.len();
        let shared = shared(locks.clone());
        let mut call = EXCHANGE.call(1 + count + shared.len(), 12 + count);
        call.arg(self.server_key);
        for (key, _) in locks {
            call.arg(&*key.text);
        }
        call.arg(shared);
        call.arg(self.not_after)
            .arg(millis(lease))
            .arg(millis(self.settings.quarantine))
            .arg(self.newest)
            // In a cluster the message stays on the node of the lock.
            .arg(if self.is_cluster {
                "SPUBLISH"
            } else {
                "PUBLISH"
            })
            .arg(of.releases.len())
            .arg(u8::from(of.extra.is_some_and(|extra| extra.jumped)))
            .arg(u8::from(of.is_probe))
            .arg(of.limit.unwrap_or(of.acquires.len()));
        match of.extra.and_then(|extra| extra.proof.as_ref()) {
            Some(proof) => call.arg(&proof.server).arg(millis(proof.age)),
            None => call.arg("").arg(0),
        };
        // Of no use to releases.
        call.arg(match of.acquires {
            [] => "",
            _ => &*self.settings.signature,
        });
        let instance = instance(&self.settings.signature);
        for release in of.releases {
            let prefix = prefix(release.owner, false);
            arg_with(
                &mut call,
                &prefix,
                release.owner,
                instance,
                release.kept_for(self.now),
            );
        }
        for (position, acquire) in of.acquires.iter().enumerate() {
            let longer = acquire.at_least.filter(|time| *time > lease);
            let is_waiting = of.waiting.binary_search(&position).is_ok();
            let prefix = prefix(acquire.owner, is_waiting);
            arg_with(&mut call, &prefix, acquire.owner, instance, longer);
        }
        call
    }
}

/// The sets of readers of those of these that are shared.
fn shared<'a>(locks: impl Iterator<Item = (&'a Key, Owner)>) -> Vec<String> {
    let shared = locks.filter(|(_, owner)| owner.part != Part::Whole);
    shared.map(|(key, _)| readers(&key.text)).collect()
}

/// An owner, with what a reader is called, or a time of its own where it has one.
fn arg_with(call: &mut Cmd, text: &[u8], owner: Owner, instance: &str, time: Option<Duration>) {
    match owner.part {
        Part::Share => {
            call.arg([text, instance.as_bytes()].concat());
        }
        Part::Whole | Part::Place => arg_with_time(call, text, time),
    }
}

/// An owner, with a time of its own where it has one: whole milliseconds, the last one begun.
fn arg_with_time(call: &mut Cmd, owner: &[u8], time: Option<Duration>) {
    match time {
        None => call.arg(owner),
        Some(time) => call.arg([owner, (millis(time) + 1).to_string().as_bytes()].concat()),
    };
}

/// `now` is when it is sent, on CLOCK_BOOTTIME.
pub(super) fn renew(
    server_key: &str,
    not_after: u64,
    settings: &Settings,
    now: Duration,
    locks: &[HeldLock],
) -> Cmd {
    let (lease, instance) = (settings.lease, instance(&settings.signature));
    let shared = shared(locks.iter().map(|lock| (&lock.key, lock.owner)));
    let mut call = RENEW.call(1 + locks.len() + shared.len(), 2 + locks.len());
    call.arg(server_key);
    for lock in locks {
        call.arg(&*lock.key.text);
    }
    call.arg(shared).arg(not_after).arg(millis(lease));
    for lock in locks {
        let longer = lock.kept_for(now).filter(|left| *left > lease);
        let prefix = prefix(lock.owner, false);
        // A writer's has no space behind it here.
        let text = match lock.owner.part {
            Part::Share => &prefix[..],
            Part::Whole | Part::Place => &prefix[..32],
        };
        arg_with(&mut call, text, lock.owner, instance, longer);
    }
    call
}

/// `newest` is the newest token that we know of.
pub(super) fn issue(server_key: &str, newest: u64, tokens: &[Token]) -> Cmd {
    let mut call = TOKEN.call(1 + tokens.len(), 1 + tokens.len());
    call.arg(server_key);
    for token in tokens {
        call.arg(&*token.key.text);
    }
    call.arg(newest);
    for token in tokens {
        call.arg(&token.owner.text()[..]);
    }
    call
}

/// Who holds these.
pub(super) fn ask_holders(questions: &[WhoHolds]) -> Cmd {
    let mut call = HOLDERS.call(questions.len(), 0);
    for question in questions {
        call.arg(&*question.key.text);
    }
    call
}
