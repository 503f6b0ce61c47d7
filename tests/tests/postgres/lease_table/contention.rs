//! Many clients at a time, behind two sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use lock_core::postgres::lease_table::{Acquired, Ask, Hold, Released};
use lock_tests::seed;
use lock_tests::servers::Wiretap;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tokio::task::JoinSet;

use super::{Bed, Client, ask_for_all, hold, wish};

const CLIENTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_clients_that_ask_for_new_names_at_once_each_name_has_one() {
    const NAMES: usize = 40;
    let bed = Bed::new().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(bed.client().await);
    }
    let mut newest = 0;
    for round in 0..20 {
        let first = round / 4 * NAMES;
        let asking =
            clients.iter_mut().enumerate().map(async |(at, client)| {
                // Each in an order of its own.
                let holds = (0..NAMES).map(|n| hold(first + (n * 7 + at * 5) % NAMES));
                let holds: Vec<Hold> = holds.collect();
                let acquires: Vec<_> = holds.iter().copied().map(wish).collect();
                let asked = Ask {
                    acquires: &acquires,
                    ..Ask::default()
                };
                let answer = client.ask(asked).await;
                let granted = holds.iter().zip(0..).filter_map(|(hold, place)| {
                    match answer.acquired(place) {
                        Acquired::Granted(token) => Some((*hold, token)),
                        Acquired::Held(_) | Acquired::Met => None,
                    }
                });
                granted.collect::<Vec<_>>()
            });
        let granted = join_all(asking).await;
        let mut owners = HashMap::new();
        for (hold, token) in granted.iter().flatten() {
            assert!(*token > newest, "tokens go on with each round");
            assert!(owners.insert(hold.key, token).is_none(), "granted twice");
        }
        assert_eq!(owners.len(), NAMES, "each has a holder");
        newest = owners.values().copied().copied().max().unwrap();
        for (client, granted) in clients.iter_mut().zip(granted) {
            let releases: Vec<_> = granted.into_iter().map(|(hold, _)| hold).collect();
            let asked = Ask {
                releases: &releases,
                ..Ask::default()
            };
            let answer = client.ask(asked).await;
            let places = 0..i32::try_from(releases.len()).unwrap();
            let mut released = places.map(|place| answer.released(place));
            assert!(released.all(|released| released == Released::Free));
        }
    }
}

/// What clients do is noted before a release is sent and after a grant has come: two holders at a time would
/// meet in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lock_has_two_holders_under_load() {
    const NAMES: usize = 6;
    const ROUNDS: usize = 150;
    let bed = Bed::new().await;
    let seed = seed();
    let holders = Arc::<Mutex<HashMap<usize, (u128, i64)>>>::default();
    let mut clients = JoinSet::new();
    for at in 0..CLIENTS {
        let (mut client, holders) = (bed.client().await, Arc::clone(&holders));
        let mut random = fastrand::Rng::with_seed(seed + at as u64);
        clients.spawn(async move {
            let mut held: Vec<(usize, Hold)> = Vec::new();
            let mut grants = 0;
            for _ in 0..ROUNDS {
                grants += round(&mut client, &holders, &mut held, &mut random, NAMES).await;
            }
            grants
        });
    }
    let grants = clients.join_all().await;
    assert!(grants.iter().all(|grants| *grants > 0), "{grants:?}");
}

/// Releases some, renews the rest, and asks for some, in one request.
async fn round(
    client: &mut Client,
    holders: &Mutex<HashMap<usize, (u128, i64)>>,
    held: &mut Vec<(usize, Hold)>,
    random: &mut fastrand::Rng,
    names: usize,
) -> usize {
    let released: Vec<_> = held.extract_if(.., |_| random.bool()).collect();
    for (name, hold) in &released {
        let mut holders = holders.lock().unwrap();
        let holder = holders.get_mut(name).unwrap();
        assert_eq!(holder.0, hold.owner, "{name} is held by another");
        holder.0 = 0;
    }
    let asked: Vec<_> = (0..names).filter(|_| random.bool()).collect();
    // What this request releases is in it twice then.
    let asked = asked
        .into_iter()
        .filter(|name| held.iter().all(|(other, _)| other != name));
    let asked: Vec<_> = asked.map(|name| (name, hold(name))).collect();
    let answer = ask_for_all(client, &released, held, &asked).await;
    let before = held.len();
    for ((name, hold), place) in asked.into_iter().zip(0..) {
        let Acquired::Granted(token) = answer.acquired(place) else {
            continue;
        };
        let mut holders = holders.lock().unwrap();
        let holder = holders.entry(name).or_insert((0, 0));
        assert_eq!(holder.0, 0, "{name} has two holders");
        assert!(token > holder.1, "the token of {name} went back");
        *holder = (hold.owner, token);
        held.push((name, hold));
    }
    held.len() - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_takes_no_more_than_it_asks_for() {
    let bed = Bed::new().await;
    let (mut one, mut other) = (bed.client().await, bed.client().await);
    // Half of them have rows, which are free.
    for number in 0..10 {
        let hold = hold(number);
        one.take(hold).await;
        one.release(hold).await;
    }
    let taken = hold(3);
    other.take(taken).await;
    let mut granted = 0;
    for limit in [0, 1, 7, usize::MAX] {
        let acquires: Vec<_> = (0..20).map(|number| wish(hold(number))).collect();
        let ask = Ask {
            acquires: &acquires,
            limit: Some(limit),
            ..Ask::default()
        };
        let answer = one.ask(ask).await;
        let places = (0..20).map(|place| answer.acquired(place));
        let got = places.filter(|acquired| matches!(acquired, Acquired::Granted(_)));
        let free = 19 - granted;
        let got = got.count();
        assert_eq!(got, limit.min(free));
        granted += got;
    }
    assert_eq!(granted, 19);
}

/// A pooler can give the session to another client between two exchanges of one: each request is one message,
/// of the simple protocol.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_is_one_message_of_the_simple_protocol() {
    let bed = Bed::new().await;
    let tap = Wiretap::to(bed.bouncer.address()).await;
    let options: PgConnectOptions = bed.bouncer.url().parse().unwrap();
    let options = options.host("127.0.0.2").port(tap.address().port());
    let session: PgConnection = options.connect().await.unwrap();
    let mut client = Client {
        session,
        table: bed.table.clone(),
        lease: super::LEASE,
        process: 1,
    };
    let before = messages(&tap.heard()).len();
    let held = hold(1);
    client.take(held).await;
    assert!(client.renews(held).await && client.issue(held).await.is_some());
    assert_eq!(client.release(held).await, Released::Free);
    assert_eq!(messages(&tap.heard())[before..], [b'Q'; 4]);
}

/// The kinds of the messages that a client has sent, after the one it starts with.
fn messages(sent: &[u8]) -> Vec<u8> {
    let length = |at: usize| u32::from_be_bytes(sent[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut kinds) = (length(0), Vec::new());
    while at < sent.len() {
        kinds.push(sent[at]);
        at += 1 + length(at + 1);
    }
    kinds
}
