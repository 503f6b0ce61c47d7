//! The arithmetic of the counter, over a disk that tests can pull the plug of.

use std::io;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use super::record::{LEN, Last, Record};

/// A page of memory, and at least a sector of a disk.
pub(super) const PAGE: u64 = 4096;

const LAST: u64 = 0;
const CEILINGS: [u64; 2] = [PAGE, 2 * PAGE];

/// What the counter is kept on.
pub(super) trait Disk {
    fn size(&self) -> io::Result<u64>;
    /// Fills the buffer; what is not there is zero.
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when all that was written will be there after a power failure.
    fn sync(&mut self) -> io::Result<()>;
}

#[derive(Debug)]
pub(super) struct Counter<D> {
    pub(super) disk: D,
    /// Which boot of the kernel this is; `None` if that is not known.
    pub(super) boot: Option<u64>,
    /// One sync is for so many tokens. The same for every process that ever uses the disk.
    pub(super) block: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Issue {
    Token(u64),
    /// It needs a sync, which was not allowed.
    NeedsSync,
    Damaged,
}

/// What the file says.
struct State {
    last: u64,
    /// What was synced; no less than what was issued.
    ceiling: u64,
    /// Whether a process has synced it in this boot, and said so.
    begun: bool,
    /// Where the next ceiling goes: not over the one that counts. An index.
    spare: usize,
}

/// The id that the kernel gave to this boot.
pub(super) fn current_boot() -> Option<u64> {
    static CURRENT: OnceLock<Option<u64>> = OnceLock::new();
    *CURRENT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let digits: String = id
            .chars()
            .filter(char::is_ascii_hexdigit)
            .take(16)
            .collect();
        u64::from_str_radix(&digits, 16).ok()
    })
}

impl<D: Disk> Counter<D> {
    /// Issues the next token. No other caller may use the disk meanwhile.
    pub(super) fn issue(&mut self, may_sync: bool) -> io::Result<Issue> {
        let Some(mut state) = self.read()? else {
            return Ok(Issue::Damaged);
        };
        let token = state.last + 1;
        if token > state.ceiling {
            if !may_sync {
                return Ok(Issue::NeedsSync);
            }
            if !state.begun {
                // What was read counts from here on, and may be the writing of one who was killed.
                self.disk.sync()?;
                // Both are to be whole, and no further apart than a block, before one is replaced.
                let last = state.last;
                self.raise(&mut state, last)?;
            }
            let ceiling = state.last + self.block;
            self.raise(&mut state, ceiling)?;
        }
        // Without a boot no process could believe it; then every token takes the way of the first.
        if let Some(boot) = self.boot {
            let last = Last {
                token,
                ceiling: state.ceiling,
                boot,
            };
            self.disk.write(LAST, &Record::Last(last).encode())?;
        }
        Ok(Issue::Token(token))
    }

    /// Puts a ceiling on the disk, before a token above the old one is issued.
    fn raise(&mut self, state: &mut State, ceiling: u64) -> io::Result<()> {
        self.disk
            .write(CEILINGS[state.spare], &Record::Ceiling(ceiling).encode())?;
        self.disk.sync()?;
        state.ceiling = ceiling;
        state.spare = 1 - state.spare;
        Ok(())
    }

    fn read(&self) -> io::Result<Option<State>> {
        let ceilings = [self.ceiling(CEILINGS[0])?, self.ceiling(CEILINGS[1])?];
        let last = self.last()?;
        if let Some(last) = last {
            return Ok(Some(State {
                last: last.token,
                ceiling: last.ceiling,
                begun: true,
                spare: usize::from(ceilings[0] == Some(last.ceiling)),
            }));
        }
        let last = match ceilings {
            // Above all earlier ones, unless the clock was set back: see the module `file`.
            [None, None] if self.disk.size()? == 0 => microseconds_since_1970(),
            [None, None] => return Ok(None),
            [Some(one), Some(other)] => one.max(other),
            [Some(one), None] | [None, Some(one)] => one.saturating_add(self.block),
        };
        // Far from any time and any number of tokens: not written by us.
        let sane = last < u64::MAX / 2;
        let spare = usize::from(ceilings[0] >= ceilings[1]);
        Ok(sane.then_some(State {
            last,
            ceiling: last,
            begun: false,
            spare,
        }))
    }

    fn ceiling(&self, at: u64) -> io::Result<Option<u64>> {
        Ok(match self.record(at)? {
            Some(Record::Ceiling(ceiling)) => Some(ceiling),
            _ => None,
        })
    }

    /// The last token, if it can be believed.
    fn last(&self) -> io::Result<Option<Last>> {
        Ok(match self.record(LAST)? {
            Some(Record::Last(last)) if Some(last.boot) == self.boot => Some(last),
            _ => None,
        })
    }

    fn record(&self, at: u64) -> io::Result<Option<Record>> {
        let mut record = [0; LEN];
        self.disk.read(at, &mut record)?;
        Ok(Record::decode(&record))
    }
}

fn microseconds_since_1970() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
