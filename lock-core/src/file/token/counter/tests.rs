//! Power failures, simulated.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

const BLOCK: u64 = 4;

type Bytes = [u8; LEN];

/// A disk with a cache: what was written is seen immediately, and is on the disk after a sync.
#[derive(Clone, Default)]
struct Simulated(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    /// By place, from 0 to 2. `None`: the file is empty.
    cache: Option<[Bytes; 3]>,
    disk: Option<[Bytes; 3]>,
    /// What was written since the last sync: the kernel may have put any of it on the disk.
    written: [Vec<Bytes>; 3],
    /// Writes and syncs that succeed before the process is killed.
    lives: Option<u32>,
    syncs: u32,
}

/// What a power failure leaves of a record that was not synced.
#[derive(Clone, Debug)]
enum Left {
    Old,
    Written(usize),
    /// So many bytes of it were new.
    Torn(usize, usize),
}

fn place(at: u64) -> usize {
    usize::try_from(at / PAGE).unwrap()
}

impl Simulated {
    fn counter(&self, boot: Option<u64>) -> Counter<Self> {
        Counter {
            disk: self.clone(),
            boot,
            block: BLOCK,
        }
    }

    fn token(&self, boot: u64) -> u64 {
        match self.counter(Some(boot)).issue(true).unwrap() {
            Issue::Token(token) => token,
            other => panic!("no token: {other:?}"),
        }
    }

    fn spend_life(&self) -> io::Result<()> {
        match &mut self.0.borrow_mut().lives {
            Some(0) => Err(io::Error::other("killed")),
            Some(lives) => {
                *lives -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Overwrites a record with other bytes, in the cache and on the disk.
    fn damage(&self, place: usize) {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        for copy in [&mut state.cache, &mut state.disk].into_iter().flatten() {
            copy[place] = [0xa5; LEN];
        }
    }

    fn power_failure(&self, left: &[Left; 3]) {
        let state = &mut *self.0.borrow_mut();
        if let Some(disk) = &mut state.disk {
            for ((record, left), written) in disk.iter_mut().zip(left).zip(&state.written) {
                match *left {
                    Left::Written(which) if !written.is_empty() => {
                        *record = written[which % written.len()];
                    }
                    Left::Torn(at, which) if !written.is_empty() => {
                        record[..at].copy_from_slice(&written[which % written.len()][..at]);
                    }
                    _ => {}
                }
            }
        }
        state.cache = state.disk;
        state.written = Default::default();
    }
}

impl Disk for Simulated {
    fn size(&self) -> io::Result<u64> {
        Ok(if self.0.borrow().cache.is_some() {
            3 * PAGE
        } else {
            0
        })
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let cache = self.0.borrow().cache.unwrap_or([[0; LEN]; 3]);
        buffer.copy_from_slice(&cache[place(at)]);
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.spend_life()?;
        let state = &mut *self.0.borrow_mut();
        let record = bytes.try_into().unwrap();
        state.cache.get_or_insert([[0; LEN]; 3])[place(at)] = record;
        state.written[place(at)].push(record);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.spend_life()?;
        let state = &mut *self.0.borrow_mut();
        state.disk = state.cache;
        state.written = Default::default();
        state.syncs += 1;
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Event {
    Tokens(u64),
    /// A process is killed after so many writes and syncs of one token.
    Killed(u32),
    PowerFailure([Left; 3]),
}

fn left() -> impl Strategy<Value = Left> {
    prop_oneof![
        Just(Left::Old),
        any::<usize>().prop_map(Left::Written),
        (0..LEN, any::<usize>()).prop_map(|(at, which)| Left::Torn(at, which)),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1..=2 * BLOCK).prop_map(Event::Tokens),
        2 => (0..7_u32).prop_map(Event::Killed),
        2 => [left(), left(), left()].prop_map(Event::PowerFailure),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(), 1..24)
}

/// Everything that can happen, and after it one more token; whether tokens are still issued.
fn run(
    disk: &Simulated,
    boot: &mut u64,
    greatest: &mut u64,
    events: Vec<Event>,
) -> Result<bool, TestCaseError> {
    let mut issue = |boot: u64| {
        match disk.counter(Some(boot)).issue(true) {
            Ok(Issue::Token(token)) => {
                prop_assert!(token > *greatest, "{token} after {greatest}");
                *greatest = token;
            }
            Ok(Issue::Damaged) => return Ok(false),
            // Killed.
            Ok(Issue::NeedsSync) | Err(_) => {}
        }
        Ok(true)
    };
    for event in events {
        match event {
            Event::Tokens(count) => {
                for _ in 0..count {
                    if !issue(*boot)? {
                        return Ok(false);
                    }
                }
            }
            Event::Killed(after) => {
                disk.0.borrow_mut().lives = Some(after);
                issue(*boot)?;
                disk.0.borrow_mut().lives = None;
            }
            Event::PowerFailure(left) => {
                disk.power_failure(&left);
                *boot += 1;
            }
        }
    }
    issue(*boot)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn tokens_grow_whatever_dies(events in events()) {
        prop_assert!(run(&Simulated::default(), &mut 1, &mut 0, events)?);
    }

    #[test]
    fn tokens_grow_past_one_damaged_record(
        before in events(),
        damaged in 0..3_usize,
        after in events(),
    ) {
        let disk = Simulated::default();
        let (mut boot, mut greatest) = (1, 0);
        run(&disk, &mut boot, &mut greatest, before)?;
        disk.damage(damaged);
        // A power failure can take the other one too: then nothing is issued.
        run(&disk, &mut boot, &mut greatest, after)?;
    }
}

#[test]
fn a_new_counter_starts_at_the_clock() {
    let before = microseconds_since_1970();
    let token = Simulated::default().token(1);
    assert!(
        token > before && token <= microseconds_since_1970() + 1,
        "{token}"
    );
}

#[test]
fn one_sync_is_for_a_block_of_tokens() {
    let disk = Simulated::default();
    let first = disk.token(1);
    let syncs = disk.0.borrow().syncs;
    for next in 1..BLOCK {
        let token = disk.counter(Some(1)).issue(false).unwrap();
        assert_eq!(token, Issue::Token(first + next));
    }
    assert_eq!(
        disk.counter(Some(1)).issue(false).unwrap(),
        Issue::NeedsSync
    );
    assert_eq!(disk.token(1), first + BLOCK);
    assert_eq!(disk.0.borrow().syncs, syncs + 1);
}

#[test]
fn two_damaged_ceilings_are_refused() {
    let disk = Simulated::default();
    let first = disk.token(1);
    disk.damage(1);
    disk.damage(2);
    assert_eq!(
        disk.token(1),
        first + 1,
        "in its boot the last token is believed"
    );
    assert_eq!(disk.counter(Some(2)).issue(true).unwrap(), Issue::Damaged);
}

#[test]
fn what_others_wrote_is_refused() {
    let disk = Simulated::default();
    disk.token(1);
    disk.0.borrow_mut().cache.as_mut().unwrap()[1] = Record::Ceiling(u64::MAX).encode();
    assert_eq!(disk.counter(Some(2)).issue(true).unwrap(), Issue::Damaged);
}

#[test]
fn without_a_boot_id_every_token_is_synced() {
    let disk = Simulated::default();
    let mut last = 0;
    for _ in 0..10 {
        let mut counter = disk.counter(None);
        assert_eq!(counter.issue(false).unwrap(), Issue::NeedsSync);
        let Issue::Token(token) = counter.issue(true).unwrap() else {
            panic!()
        };
        assert!(token > last);
        last = token;
        disk.power_failure(&[Left::Old, Left::Old, Left::Old]);
    }
}

#[test]
fn a_counter_survives_two_kills_and_a_power_failure_at_every_step_of_its_start() {
    let torn = || Left::Torn(LEN / 2, 0);
    for (first, second) in (0..8).flat_map(|first| (0..8).map(move |second| (first, second))) {
        let disk = Simulated::default();
        for lives in [first, second] {
            disk.0.borrow_mut().lives = Some(lives);
            let _ = disk.counter(Some(1)).issue(true);
        }
        disk.0.borrow_mut().lives = None;
        disk.power_failure(&[torn(), torn(), torn()]);
        let next = disk.counter(Some(2)).issue(true).unwrap();
        assert!(
            matches!(next, Issue::Token(_)),
            "killed after {first} and {second}"
        );
    }
}
