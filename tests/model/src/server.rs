//! What the server keeps, and what its scripts do.

use crate::protocol::{Message, Owner, Protocol, Seen};
use crate::rules::{AHEAD, LACKED, LEASE, Rule};

/// A lock: a key with a value and an end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lock {
    pub owner: Owner,
    pub token: u8,
    pub until: u8,
}

/// The note: whose it is, and of which time as a master, until when nothing is granted, the last token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Note {
    of: u8,
    was_promoted: bool,
    till: u8,
    last: u8,
}

/// What is on the disk, or on a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Data {
    pub lock: Option<Lock>,
    pub note: Option<Note>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    /// Its identity, which each start changes.
    pub run: u8,
    /// What its clock is ahead of the true time.
    pub ahead: u8,
    /// When it was started, by its clock.
    pub started: u8,
    /// Whether it was a replica since.
    pub was_replica: bool,
    /// Whether it has answered something in this tick.
    pub has_answered: bool,
    pub data: Data,
}

impl Note {
    /// Of a server that was not promoted yet.
    pub(crate) const fn of(of: u8, till: u8, last: u8) -> Self {
        Self {
            of,
            was_promoted: false,
            till,
            last,
        }
    }
}

impl Server {
    /// Does what is asked, at this time of its clock; gives the answer.
    pub(crate) fn answer(
        &mut self,
        rules: &Protocol,
        asked: &Message,
        clock: u8,
        seen: &mut Seen,
    ) -> Option<Message> {
        self.data.lock.take_if(|lock| lock.until <= clock);
        match *asked {
            Message::Acquire { owner, not_after } => {
                if clock > not_after && rules.keep(Rule::NotAfter) {
                    return None;
                }
                seen.looked.get_or_insert(clock);
                let (token, till) = self.look(rules, clock);
                if self.data.lock.is_some() {
                    return None;
                }
                if clock < till {
                    // Free, and refused for longer than one lease after the first look.
                    seen.is_stuck |= seen.looked.is_some_and(|first| clock > first + LEASE);
                    return None;
                }
                seen.is_stuck |= clock > not_after;
                let until = clock + LEASE;
                self.data.lock = Some(Lock {
                    owner,
                    token,
                    until,
                });
                Some(Message::Granted { owner, token })
            }
            Message::Renew {
                owner,
                not_after,
                asked_at,
            } => {
                if clock > not_after && rules.keep(Rule::NotAfter) {
                    return None;
                }
                let lock = self.data.lock.as_mut();
                let own = lock.filter(|lock| {
                    lock.owner.value == owner.value || !rules.keep(Rule::RenewalCompares)
                });
                let is_ours = own.is_some();
                if let Some(lock) = own {
                    seen.touched_anothers |= lock.owner != owner;
                    lock.until = clock + LEASE;
                    seen.is_stuck |= clock > not_after;
                }
                Some(Message::Renewed {
                    owner,
                    asked_at,
                    is_ours,
                })
            }
            Message::Release { owner } => {
                let removed = self.data.lock.take_if(|lock| {
                    lock.owner.value == owner.value || !rules.keep(Rule::ReleaseCompares)
                });
                seen.touched_anothers |= removed.is_some_and(|lock| lock.owner != owner);
                None
            }
            Message::Granted { .. } | Message::Renewed { .. } => None,
        }
    }

    /// Reads the note, and writes it for a grant; gives the token and until when nothing is granted.
    fn look(&mut self, rules: &Protocol, clock: u8) -> (u8, u8) {
        let note = self.data.note.as_ref();
        // One of before its promotion is as good as none.
        let is_of_now = |note: &&Note| {
            note.of != self.run
                || note.was_promoted == self.was_replica
                || !rules.keep(Rule::OfThisReign)
        };
        let known = note.filter(is_of_now).map(|note| note.of);
        let is_own = known == Some(self.run) || (known.is_some() && !rules.keep(Rule::Identity));
        let mut last = note.map_or(0, |note| note.last);
        if !is_own {
            let lacked = if rules.keep(Rule::TokensLacked) {
                LACKED
            } else {
                0
            };
            let may_lack = known.is_none() && self.was_replica;
            let ahead = match may_lack && rules.keep(Rule::TokensTwiceAhead) {
                _ if !rules.keep(Rule::TokensAhead) => 0,
                true => 2 * AHEAD,
                false => AHEAD,
            };
            last = (last + lacked).max(clock + ahead);
        }
        let whole = clock + LEASE;
        let till = if !rules.keep(Rule::Quarantine) {
            clock
        } else if is_own {
            note.map_or(0, |note| note.till)
        } else if known.is_some() || (self.was_replica && rules.keep(Rule::OnceAReplica)) {
            whole
        } else if rules.keep(Rule::NoNote) {
            (self.started + LEASE).max(clock)
        } else {
            clock
        };
        let token = clock.max(last + 1);
        let of = match known {
            Some(known) if !rules.keep(Rule::QuarantineOnce) => known,
            _ => self.run,
        };
        let (till, last) = (till.min(whole), token);
        self.data.note = Some(Note {
            of,
            was_promoted: self.was_replica,
            till,
            last,
        });
        (token, till)
    }
}
