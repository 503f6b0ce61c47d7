//! Requests at random, each compared with what the rules say that it does.

use std::collections::HashMap;

use lock_core::postgres::lease_table::{Acquired, Ask, Hold, Released};
use lock_tests::seed;

use super::{Bed, Client, hold, number, wish};

const NAMES: usize = 5;
const REQUESTS: usize = 600;

/// A row, as the rules have it.
#[derive(Clone, Copy, Default)]
struct Row {
    /// The last owner, whether its lease has ended or not.
    owner: Option<u128>,
    has_expired: bool,
    newest: i64,
}

impl Row {
    fn is_held_by(self, hold: Hold) -> bool {
        self.owner == Some(hold.owner) && !self.has_expired
    }

    const fn is_free(self) -> bool {
        self.owner.is_none() || self.has_expired
    }
}

#[tokio::test]
async fn requests_at_random_do_what_the_rules_say() {
    let bed = Bed::new().await;
    let client = bed.client().await;
    ask_at_random(bed, client).await;
}

/// A session that cannot be taught statements is sent them in full.
#[tokio::test]
async fn requests_that_are_spelled_do_what_the_rules_say() {
    let bed = Bed::new().await;
    let client = bed.client_without_language().await;
    ask_at_random(bed, client).await;
}

async fn ask_at_random(bed: Bed, mut client: Client) {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut rows: HashMap<usize, Row> = HashMap::new();
    // All that were ever asked for: most of them are held no more.
    let mut known: Vec<(usize, Hold)> = (0..NAMES).map(|name| (name, hold(name))).collect();
    for _ in 0..REQUESTS {
        match random.u8(0..10) {
            0 => {
                let name = random.usize(0..NAMES);
                bed.expire(hold(name).key).await;
                rows.entry(name).or_default().has_expired = true;
            }
            1 => {
                // What is free was so for long; the row of one that was never made is not there.
                bed.write(
                    "UPDATE leases SET expires = expires - interval '2 hours' \
                     WHERE name <> 'server' AND (owner IS NULL OR expires < clock_timestamp())",
                )
                .await;
                let sweep = client.table.sweep(number());
                client.send(sweep).await;
                for row in rows.values_mut().filter(|row| row.is_free()) {
                    row.owner = None;
                }
            }
            _ => {
                let mut some = |most: usize| {
                    let picked = (0..random.usize(0..=most)).map(|_| {
                        let recent = known.len().saturating_sub(8);
                        known[random.usize(recent..known.len())]
                    });
                    let mut picked: Vec<_> = picked.collect();
                    // A lock is in a list once, as the driver has it.
                    picked.sort_by_key(|(name, _)| *name);
                    picked.dedup_by_key(|(name, _)| *name);
                    picked
                };
                let (releases, renewals, tokens) = (some(3), some(3), some(2));
                let mut acquires = some(1);
                for name in 0..NAMES {
                    if random.u8(0..3) == 0 && acquires.iter().all(|(other, _)| *other != name) {
                        acquires.push((name, hold(name)));
                    }
                }
                known.extend(&acquires);
                check(
                    &mut client,
                    &mut rows,
                    &releases,
                    &renewals,
                    &tokens,
                    &acquires,
                )
                .await;
            }
        }
    }
}

async fn check(
    client: &mut Client,
    rows: &mut HashMap<usize, Row>,
    releases: &[(usize, Hold)],
    renewals: &[(usize, Hold)],
    tokens: &[(usize, Hold)],
    acquires: &[(usize, Hold)],
) {
    let holds = |of: &[(usize, Hold)]| of.iter().map(|(_, hold)| *hold).collect::<Vec<_>>();
    let wishes: Vec<_> = acquires.iter().map(|(_, hold)| wish(*hold)).collect();
    let ask = Ask {
        releases: &holds(releases),
        renewals: &holds(renewals),
        tokens: &holds(tokens),
        acquires: &wishes,
        ..Ask::default()
    };
    let answer = client.ask(ask).await;
    for ((name, hold), place) in releases.iter().zip(0..) {
        let row = rows.entry(*name).or_default();
        let expected = match row.owner {
            Some(owner) if owner == hold.owner && row.has_expired => Released::Missing,
            Some(owner) if owner == hold.owner => Released::Free,
            Some(_) if !row.has_expired => Released::Taken,
            _ => Released::Missing,
        };
        assert_eq!(answer.released(place), expected);
        row.owner.take_if(|owner| *owner == hold.owner);
    }
    for ((name, hold), place) in renewals.iter().zip(0..) {
        let row = rows.entry(*name).or_default();
        assert_eq!(answer.is_renewed(place), row.is_held_by(*hold));
    }
    for ((name, hold), place) in tokens.iter().zip(0..) {
        let row = rows.entry(*name).or_default();
        let issued = answer.issued(place);
        assert_eq!(issued.is_some(), row.is_held_by(*hold));
        if let Some(token) = issued {
            assert!(token > row.newest, "a token that was issued went back");
            row.newest = token;
        }
    }
    for ((name, hold), place) in acquires.iter().zip(0..) {
        let row = rows.entry(*name).or_default();
        match answer.acquired(place) {
            Acquired::Granted(token) if row.is_held_by(*hold) => assert_eq!(token, row.newest),
            Acquired::Granted(token) => {
                assert!(row.is_free(), "{name} was held");
                assert!(token > row.newest, "the token of {name} went back");
                *row = Row {
                    owner: Some(hold.owner),
                    has_expired: false,
                    newest: token,
                };
            }
            refused => {
                assert!(matches!(refused, Acquired::Held(_)), "{refused:?}");
                assert!(!row.is_free(), "{name} was free");
            }
        }
    }
}
