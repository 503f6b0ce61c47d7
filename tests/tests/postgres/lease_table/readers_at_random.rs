//! Readers and writers at random: what they are granted, one after the other and many at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use lock_core::postgres::lease_table::{Acquired, Ask, Hold, Part, Released, Wish};
use lock_tests::seed;
use tokio::task::JoinSet;

use super::{Bed, Client, ask_for_all, hold, wish};

/// A row, as the rules have it.
#[derive(Clone, Default)]
struct Row {
    /// Whose lease has not ended.
    writer: Option<u128>,
    readers: Vec<u128>,
    /// The process whose writer waits.
    wanted: Option<usize>,
    newest: i64,
}

impl Row {
    fn is_held_by(&self, hold: Hold) -> bool {
        match hold.part {
            Part::Whole => self.writer == Some(hold.owner),
            _ => self.readers.contains(&hold.owner),
        }
    }

    fn is_free_for(&self, part: Part) -> bool {
        match part {
            Part::Whole => self.writer.is_none() && self.readers.is_empty(),
            _ => self.writer.is_none() && self.wanted.is_none(),
        }
    }

    fn end(&mut self, hold: Hold) {
        self.writer.take_if(|owner| *owner == hold.owner);
        self.readers.retain(|owner| *owner != hold.owner);
    }
}

fn part_of(number: usize, part: Part) -> Hold {
    Hold {
        part,
        ..hold(number)
    }
}

#[tokio::test]
async fn readers_and_writers_at_random_are_granted_what_the_rules_say() {
    let bed = Bed::new().await;
    let clients = [bed.client().await, bed.client().await];
    ask_at_random(&bed, clients).await;
}

/// A session that cannot be taught statements is sent them in full.
#[tokio::test]
async fn requests_of_readers_that_are_spelled_do_what_the_rules_say() {
    let bed = Bed::new().await;
    let clients = [
        bed.client_without_language().await,
        bed.client_without_language().await,
    ];
    ask_at_random(&bed, clients).await;
}

async fn ask_at_random(bed: &Bed, mut clients: [Client; 2]) {
    const NAMES: usize = 3;
    const REQUESTS: usize = 1_500;
    let mut random = fastrand::Rng::with_seed(seed());
    let mut rows: HashMap<usize, Row> = HashMap::new();
    let mut known: Vec<(usize, Hold)> = vec![(0, part_of(0, Part::Share))];
    for _ in 0..REQUESTS {
        let (name, at) = (random.usize(0..NAMES), random.usize(0..2));
        let row = rows.entry(name).or_default();
        let recent = known.len().saturating_sub(12);
        let (of, held) = known[random.usize(recent..known.len())];
        match random.u8(0..16) {
            0 => {
                bed.expire(held.key).await;
                bed.write(&format!(
                    "UPDATE leases SET readers_until = array_fill(expires, ARRAY[cardinality(readers)]) \
                     WHERE key = '{}' AND readers IS NOT NULL",
                    held.key
                ))
                .await;
                let row = rows.entry(of).or_default();
                (row.writer, row.readers) = (None, Vec::new());
            }
            1 if held.part == Part::Share => {
                bed.write(&format!(
                    "UPDATE leases SET readers_until[array_position(readers, '{owner:032x}')] = \
                      clock_timestamp() - interval '1 s' \
                     WHERE key = '{key}' AND array_position(readers, '{owner:032x}') IS NOT NULL",
                    owner = held.owner,
                    key = held.key
                ))
                .await;
                // The row ends with the last of them.
                bed.write(&format!(
                    "UPDATE leases SET expires = (SELECT max(u) FROM unnest(readers_until) AS r(u)) \
                     WHERE key = '{}' AND readers IS NOT NULL",
                    held.key
                ))
                .await;
                rows.entry(of).or_default().end(held);
            }
            2..=4 => {
                let row = rows.entry(of).or_default();
                let expected = match row.writer {
                    _ if row.is_held_by(held) => Released::Free,
                    Some(_) => Released::Taken,
                    None if held.part == Part::Whole && !row.readers.is_empty() => Released::Taken,
                    None => Released::Missing,
                };
                assert_eq!(clients[at].release(held).await, expected);
                row.end(held);
            }
            5 => {
                let had = row.wanted.take_if(|process| *process == at).is_some();
                let released = clients[at].release(part_of(name, Part::Place)).await;
                assert_eq!(released == Released::Free, had);
            }
            6..=8 => {
                let is_renewed = clients[at].renews(held).await;
                assert_eq!(is_renewed, rows.entry(of).or_default().is_held_by(held));
            }
            _ => {
                let part = *random
                    .choice(&[Part::Whole, Part::Share, Part::Share])
                    .unwrap();
                let asked = part_of(name, part);
                known.push((name, asked));
                let has_place = part == Part::Whole && random.bool();
                acquire(&mut clients[at], at, row, asked, has_place).await;
            }
        }
    }
}

async fn acquire(client: &mut Client, at: usize, row: &mut Row, asked: Hold, has_place: bool) {
    let acquires = &[Wish {
        has_place,
        ..wish(asked)
    }];
    let ask = Ask {
        acquires,
        ..Ask::default()
    };
    let answer = client.ask(ask).await;
    let is_free = row.is_free_for(asked.part);
    match answer.acquired(0) {
        Acquired::Granted(token) if asked.part == Part::Whole => {
            assert!(is_free && token > row.newest, "{row:?} {token}");
            row.newest = token;
            row.writer = Some(asked.owner);
            row.wanted.take_if(|process| *process == at);
        }
        Acquired::Granted(_) => {
            assert!(is_free, "{row:?}");
            row.readers.push(asked.owner);
        }
        Acquired::Held(_) => {
            assert!(!is_free, "{row:?}");
            let is_read = asked.part == Part::Whole && !row.readers.is_empty();
            assert_eq!(answer.is_read(0), is_read);
            assert_eq!(answer.has_place(0), is_read && has_place);
            if answer.has_place(0) {
                row.wanted = Some(at);
            }
        }
        Acquired::Met => panic!("no other makes rows"),
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row")
            .field("writer", &self.writer)
            .field("readers", &self.readers.len())
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

/// Who holds what, noted before a release is sent and after a grant has come.
type Inside = Mutex<HashMap<usize, (usize, usize)>>;

/// Each request releases some, renews the rest and asks for others, of both modes; sessions are as many as clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lock_has_a_reader_beside_a_writer_under_load_and_no_request_fails() {
    const CLIENTS: usize = 8;
    const NAMES: usize = 5;
    const ROUNDS: usize = 150;
    let bed = Bed::new().await;
    let (seed, inside) = (seed(), Arc::<Inside>::default());
    let mut clients = JoinSet::new();
    for at in 0..CLIENTS {
        let mut client = bed.client_at(&bed.server.url()).await;
        let inside = Arc::clone(&inside);
        let mut random = fastrand::Rng::with_seed(seed + at as u64);
        clients.spawn(async move {
            let (mut held, mut grants) = (Vec::new(), [0, 0]);
            for round in 0..ROUNDS {
                // Others, so that rows are made all the time.
                let names = round / 10 * NAMES..(round / 10 + 1) * NAMES;
                visit(
                    &mut client,
                    &inside,
                    &mut held,
                    &mut random,
                    names,
                    &mut grants,
                )
                .await;
            }
            grants
        });
    }
    // Of all together: one client alone can come too late each time, where readers are there first.
    let grants = clients.join_all().await;
    let (whole, shares) = grants.iter().fold((0, 0), |(whole, shares), grants| {
        (whole + grants[0], shares + grants[1])
    });
    assert!(whole > 0 && shares > 0, "{whole} {shares}");
}

async fn visit(
    client: &mut Client,
    inside: &Inside,
    held: &mut Vec<(usize, Hold)>,
    random: &mut fastrand::Rng,
    names: std::ops::Range<usize>,
    grants: &mut [usize; 2],
) {
    let released: Vec<_> = held.extract_if(.., |_| random.u8(0..3) > 0).collect();
    for (name, hold) in &released {
        let mut inside = inside.lock().unwrap();
        let (writers, readers) = inside.get_mut(name).unwrap();
        match hold.part {
            Part::Whole => *writers -= 1,
            _ => *readers -= 1,
        }
    }
    let asked = names.filter(|name| held.iter().all(|(other, _)| other != name));
    let mut asked: Vec<_> = asked
        .filter_map(|name| match random.u8(0..6) {
            0 => Some((name, part_of(name, Part::Whole))),
            1..=3 => Some((name, part_of(name, Part::Share))),
            _ => None,
        })
        .collect();
    random.shuffle(&mut asked);
    let answer = ask_for_all(client, &released, held, &asked).await;
    for ((name, hold), place) in asked.into_iter().zip(0..) {
        if !matches!(answer.acquired(place), Acquired::Granted(_)) {
            continue;
        }
        let mut inside = inside.lock().unwrap();
        let (writers, readers) = inside.entry(name).or_default();
        match hold.part {
            Part::Whole => {
                *writers += 1;
                grants[0] += 1;
                assert!(*readers == 0, "{name}: a writer beside readers");
            }
            _ => {
                *readers += 1;
                grants[1] += 1;
            }
        }
        assert!(
            *writers == 0 || (*writers, *readers) == (1, 0),
            "{name}: a reader beside a writer"
        );
        held.push((name, hold));
    }
}
