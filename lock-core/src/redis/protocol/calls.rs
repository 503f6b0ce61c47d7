//! What is sent: calls of the scripts.

use std::time::Duration;

use ::redis::Cmd;

use super::moves::Proof;
use crate::redis::command::{Acquire, HeldLock, Release, Token, WhoHolds};
use crate::redis::key::{millis, prefix};
use crate::redis::scripts::{EXCHANGE, HOLDERS, RENEW, TOKEN};
use crate::redis::settings::Settings;

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
        let locks = || {
            let releases = of.releases.iter();
            let releases = releases.map(|r| (&r.key, r.owner, r.kept_for(self.now)));
            let acquires = of.acquires.iter();
            let longer = |at_least: Option<Duration>| at_least.filter(|time| *time > lease);
            releases.chain(acquires.map(move |a| (&a.key, a.owner, longer(a.at_least))))
        };
        let count = of.releases.len() + of.acquires.len();
        let mut call = EXCHANGE.call(1 + count, 12 + count);
        call.arg(self.server_key);
        locks().for_each(|(key, ..)| {
            call.arg(&*key.text);
        });
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
        locks().for_each(|(_, owner, time)| {
            arg_with_time(&mut call, &prefix(owner), time);
        });
        call
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
    lease: Duration,
    now: Duration,
    locks: &[HeldLock],
) -> Cmd {
    let mut call = RENEW.call(1 + locks.len(), 2 + locks.len());
    call.arg(server_key);
    for lock in locks {
        call.arg(&*lock.key.text);
    }
    call.arg(not_after).arg(millis(lease));
    for lock in locks {
        let longer = lock.kept_for(now).filter(|left| *left > lease);
        arg_with_time(&mut call, &lock.owner.text(), longer);
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
