//! The rules of the protocol and its times, in ticks.

/// How long a lock stays without a renewal, on the server's clock.
pub(crate) const LEASE: u8 = 3;
/// How much earlier its holder gives it up: its clock may lose a tick in that time.
pub(crate) const MARGIN: u8 = 1;
/// How long a client waits for an answer.
pub(crate) const PATIENCE: u8 = 1;
/// By how much the clocks of two servers differ at most: more than a lease, which would cover it.
pub(crate) const AHEAD: u8 = LEASE + 2;
/// More than the grants that a replica lacks.
pub(crate) const LACKED: u8 = 2;

/// A rule that can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A guard is valid from when its request was sent, and not from when the answer came.
    ValidFromSending,
    /// A guard ends earlier than its lock.
    Margin,
    /// A guard that has ended stays ended.
    LossIsFinal,
    /// Only the owner's lock is renewed.
    RenewalCompares,
    /// Only the owner's lock is removed.
    ReleaseCompares,
    /// No two requests have the same owner.
    OwnersDiffer,
    /// A request that comes late does nothing.
    NotAfter,
    /// A server that may have forgotten locks grants none for one lease.
    Quarantine,
    /// A server without a note may have forgotten it.
    NoNote,
    /// A note is of the server that wrote it.
    Identity,
    /// A server that was a replica may lack the note.
    OnceAReplica,
    /// A note that a server wrote when it was a master before says nothing of the one in between.
    OfThisReign,
    /// A quarantine ends one lease after the first look.
    QuarantineOnce,
    /// Tokens of another server may be ahead of this one's clock.
    TokensAhead,
    /// Where the note is missing those may have been ahead of their own clock as well.
    TokensTwiceAhead,
    /// The last tokens of another server may be unknown here.
    TokensLacked,
}
