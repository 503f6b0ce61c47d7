//! What a client does.

use crate::protocol::{Message, Owner, Protocol, Seen};
use crate::rules::{LEASE, MARGIN, PATIENCE, Rule};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Idle,
    Asking {
        owner: Owner,
        asked_at: u8,
    },
    /// Until when by its own clock. Whether it is over is for that clock to say.
    Holding {
        owner: Owner,
        until: u8,
        renewed_at: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    /// How many ticks its clock has lost.
    pub slow: u8,
    /// How often it has asked.
    pub asked: u8,
    pub has_renewed: bool,
    pub phase: Phase,
}

impl Client {
    pub(crate) const fn new() -> Self {
        Self {
            slow: 0,
            asked: 0,
            has_renewed: false,
            phase: Phase::Idle,
        }
    }

    /// Whose answers it waits for.
    pub(crate) const fn owner(&self) -> Option<Owner> {
        match self.phase {
            Phase::Asking { owner, .. } | Phase::Holding { owner, .. } => Some(owner),
            Phase::Idle => None,
        }
    }

    pub(crate) const fn clock(&self, now: u8) -> u8 {
        now - self.slow
    }

    pub(crate) fn is_valid(&self, now: u8) -> bool {
        matches!(self.phase, Phase::Holding { until, .. } if self.clock(now) < until)
    }

    /// Until when a guard is valid whose request was sent at this time.
    fn valid_until(&self, rules: &Protocol, asked_at: u8, now: u8) -> u8 {
        let from = if rules.keep(Rule::ValidFromSending) {
            asked_at
        } else {
            self.clock(now)
        };
        let margin = if rules.keep(Rule::Margin) { MARGIN } else { 0 };
        from + LEASE - margin
    }

    /// Asks for the lock.
    pub(crate) fn ask(&mut self, rules: &Protocol, client: u8, now: u8, server: u8) -> Message {
        let value = if rules.keep(Rule::OwnersDiffer) {
            2 * self.asked + client
        } else {
            0
        };
        self.asked += 1;
        self.has_renewed = false;
        let owner = Owner { value, client };
        let asked_at = self.clock(now);
        self.phase = Phase::Asking { owner, asked_at };
        Message::Acquire {
            owner,
            not_after: server + PATIENCE,
        }
    }

    pub(crate) fn renew(&mut self, now: u8, server: u8) -> Option<Message> {
        let asked_at = self.clock(now);
        match &mut self.phase {
            Phase::Holding {
                owner, renewed_at, ..
            } if *renewed_at < asked_at && !self.has_renewed => {
                self.has_renewed = true;
                *renewed_at = asked_at;
                Some(Message::Renew {
                    owner: *owner,
                    not_after: server + PATIENCE,
                    asked_at,
                })
            }
            _ => None,
        }
    }

    /// Releases what it holds, held or asked for too long ago.
    pub(crate) fn release(&mut self, now: u8) -> Option<Message> {
        let owner = match self.phase {
            Phase::Holding { owner, .. } => owner,
            Phase::Asking { owner, asked_at } if self.clock(now) > asked_at + PATIENCE => owner,
            _ => return None,
        };
        self.phase = Phase::Idle;
        Some(Message::Release { owner })
    }

    /// Takes an answer; one to an earlier request says nothing any more.
    pub(crate) fn hear(&mut self, rules: &Protocol, answer: &Message, now: u8, seen: &mut Seen) {
        let clock = self.clock(now);
        match (answer, &self.phase) {
            (
                Message::Granted { owner, token },
                Phase::Asking {
                    owner: of,
                    asked_at,
                },
            ) if owner == of => {
                let until = self.valid_until(rules, *asked_at, now);
                if until <= clock {
                    return;
                }
                seen.token_went_back |= *token <= seen.newest;
                seen.newest = seen.newest.max(*token);
                seen.holders |= 1 << owner.client;
                self.phase = Phase::Holding {
                    owner: *owner,
                    until,
                    renewed_at: *asked_at,
                };
            }
            (
                Message::Renewed {
                    owner,
                    asked_at,
                    is_ours,
                },
                Phase::Holding {
                    owner: of,
                    until,
                    renewed_at,
                },
            ) if owner == of => {
                let (until, renewed_at) = (*until, *renewed_at);
                if !is_ours {
                    self.phase = Phase::Idle;
                    return;
                }
                if until <= clock {
                    if rules.keep(Rule::LossIsFinal) {
                        return;
                    }
                    seen.was_taken_back = true;
                }
                let until = until.max(self.valid_until(rules, *asked_at, now));
                self.phase = Phase::Holding {
                    owner: *owner,
                    until,
                    renewed_at,
                };
            }
            _ => {}
        }
    }
}
