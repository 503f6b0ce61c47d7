//! What a request does with a row that readers hold, one at a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lock_core::LockMode;
use lock_core::postgres::lease_table::{
    Acquired, Ask, Hold, Part, Released, RowKey, Setup, Wish, fence,
};
use lock_tests::eventually;
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::timeout;

use super::{Bed, Client, hold, number, wish};

/// For what never comes, and for what comes.
const PATIENCE: Duration = Duration::from_secs(20);

fn share(number: usize) -> Hold {
    Hold {
        part: Part::Share,
        ..hold(number)
    }
}

/// Of the writers of a client.
fn place(number: usize) -> Hold {
    Hold {
        part: Part::Place,
        ..hold(number)
    }
}

/// A writer that waits: whether it has a place now, if it is refused.
async fn wait(client: &mut Client, hold: Hold) -> Option<bool> {
    let acquires = &[Wish {
        has_place: true,
        ..wish(hold)
    }];
    let asked = Ask {
        acquires,
        ..Ask::default()
    };
    let answer = client.ask(asked).await;
    match answer.acquired(0) {
        Acquired::Granted(_) => None,
        _ => Some(answer.has_place(0)),
    }
}

/// The end of one share, by its place in the row, was a second ago.
async fn expire_share(bed: &Bed, key: RowKey, which: usize) {
    let sql = format!(
        "UPDATE leases SET readers_until[{which}] = clock_timestamp() - interval '1 s' WHERE key = '{key}'"
    );
    bed.write(&sql).await;
}

async fn owner(bed: &Bed, key: RowKey) -> Option<String> {
    let owner = format!("SELECT owner::text FROM leases WHERE key = '{key}'");
    bed.look(&owner).await
}

#[tokio::test]
async fn readers_hold_a_row_together_and_a_writer_alone() {
    let bed = Bed::new().await;
    let (mut here, mut there) = (bed.client().await, bed.client().await);
    let (one, other, writer) = (share(1), share(1), hold(1));
    let first = here.take(hold(1)).await;
    assert!(there.is_refused(one).await, "a writer holds it");
    bed.expire(one.key).await;
    here.take(one).await;
    there.take(other).await;
    let asked = Ask {
        acquires: &[wish(writer)],
        ..Ask::default()
    };
    let answer = here.ask(asked).await;
    let Acquired::Held(Some(left)) = answer.acquired(0) else {
        panic!("readers hold it");
    };
    assert!(answer.is_read(0) && (1..=30_000).contains(&left));
    assert!(here.renews(one).await && there.renews(other).await);
    assert_eq!(here.release(one).await, Released::Free);
    assert!(here.is_refused(writer).await && there.renews(other).await);
    assert_eq!(there.release(other).await, Released::Free);
    assert!(here.take(writer).await > first);
    assert!(there.is_refused(share(1)).await);
    assert_eq!(here.release(writer).await, Released::Free);
    there.take(share(1)).await;
}

#[tokio::test]
async fn readers_of_one_request_hold_a_new_row_and_old_ones_together() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let shares: Vec<_> = [1, 1, 2, 1, 2].into_iter().map(share).collect();
    let wishes: Vec<_> = shares.iter().copied().map(wish).collect();
    let of_a_writer = hold(3);
    let acquires = [&[wish(of_a_writer)], &wishes[..]].concat();
    let asked = Ask {
        acquires: &acquires,
        ..Ask::default()
    };
    let answer = client.ask(asked).await;
    for place in 0..6 {
        let acquired = answer.acquired(place);
        assert!(matches!(acquired, Acquired::Granted(_)), "{place}");
    }
    let renewals = [&[of_a_writer], &shares[..]].concat();
    let asked = Ask {
        renewals: &renewals,
        ..Ask::default()
    };
    let answer = client.ask(asked).await;
    assert!((0..6).all(|place| answer.is_renewed(place)));
    let asked = Ask {
        releases: &renewals,
        ..Ask::default()
    };
    let answer = client.ask(asked).await;
    assert!((0..6).all(|place| answer.released(place) == Released::Free));
    for number in 1..=3 {
        client.take(hold(number)).await;
    }
}

#[tokio::test]
async fn a_share_that_has_ended_is_not_renewed_beside_others() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let (ended, lives, never) = (share(1), share(1), share(1));
    client.take(ended).await;
    client.take(lives).await;
    expire_share(&bed, ended.key, 1).await;
    assert!(!client.renews(ended).await && !client.renews(never).await);
    assert!(client.renews(lives).await && !client.renews(ended).await);
    let left = format!(
        "SELECT cardinality(readers) FROM leases WHERE key = '{}'",
        ended.key
    );
    assert_eq!(bed.look::<i32>(&left).await, 1, "what has ended is dropped");
    assert_eq!(client.release(ended).await, Released::Missing);
    assert_eq!(client.release(never).await, Released::Missing);
    assert!(client.renews(lives).await && client.is_refused(hold(1)).await);
}

/// Of its row, or taken from it by a writer that has released it since.
#[tokio::test]
async fn a_share_of_an_earlier_row_is_lost_for_good() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    for is_released in [false, true] {
        let (former, writer) = (share(1), hold(1));
        client.take(former).await;
        bed.expire(former.key).await;
        assert!(!client.renews(former).await);
        client.take(writer).await;
        assert!(!client.renews(former).await);
        assert_eq!(client.release(former).await, Released::Taken);
        if is_released {
            client.release(writer).await;
            let later = share(1);
            client.take(later).await;
            assert!(!client.renews(former).await);
            assert_eq!(client.release(former).await, Released::Missing);
            assert!(client.renews(later).await && client.is_refused(hold(1)).await);
        } else {
            assert!(client.renews(writer).await);
            client.release(writer).await;
        }
    }
    // As an operator frees a row.
    let reader = share(2);
    client.take(reader).await;
    bed.write("UPDATE leases SET owner = NULL").await;
    assert!(!client.renews(reader).await);
    let next = share(2);
    client.take(next).await;
    assert!(!client.renews(reader).await && client.renews(next).await);
}

/// The lock is free, and those who wait learn it, when the last that lives is released.
#[tokio::test]
async fn shares_that_have_ended_do_not_count() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let mut listener = PgListener::connect_with(&bed.pool).await.unwrap();
    listener.listen("distributed_lock_leases").await.unwrap();
    let (ended, lives) = (share(1), share(1));
    client.take(ended).await;
    client.take(lives).await;
    expire_share(&bed, ended.key, 1).await;
    let acquires = &[Wish {
        is_awaited: true,
        ..wish(hold(1))
    }];
    let asked = Ask {
        acquires,
        ..Ask::default()
    };
    client.ask(asked).await;
    assert_eq!(client.release(lives).await, Released::Free);
    assert_eq!(owner(&bed, lives.key).await, None);
    let heard = timeout(PATIENCE, listener.recv()).await.unwrap().unwrap();
    assert_eq!(heard.payload().replace('-', ""), lives.key.to_string());
    // The row ends with the last that is left, not with the longest that there was.
    client.lease = Duration::from_secs(3_600);
    let (long, short) = (share(2), share(2));
    client.take(long).await;
    client.lease = super::LEASE;
    client.take(short).await;
    client.release(long).await;
    let Acquired::Held(Some(left)) = client.acquire(hold(2)).await else {
        panic!("it is read");
    };
    assert!(left <= 30_000, "{left}");
}

#[tokio::test]
async fn a_writer_that_waits_keeps_readers_out_until_its_place_ends() {
    let bed = Bed::new().await;
    let (mut here, mut there) = (bed.client().await, bed.client().await);
    let first = share(1);
    assert_eq!(wait(&mut there, hold(9)).await, None, "it was free");
    here.take(first).await;
    assert!(there.is_refused(hold(1)).await);
    here.take(share(1)).await;
    assert_eq!(wait(&mut there, hold(1)).await, Some(true));
    let Acquired::Held(Some(left)) = here.acquire(share(1)).await else {
        panic!("a writer waits");
    };
    assert!((1..=30_000).contains(&left) && here.renews(first).await);
    // Of another process, which has no place.
    assert_eq!(here.release(place(1)).await, Released::Missing);
    assert!(here.is_refused(share(1)).await);
    assert_eq!(there.release(place(1)).await, Released::Free);
    here.take(share(1)).await;
    // And of one that is gone.
    assert_eq!(wait(&mut there, hold(1)).await, Some(true));
    assert!(here.is_refused(share(1)).await);
    bed.write("UPDATE leases SET wanted_until = clock_timestamp()")
        .await;
    here.take(share(1)).await;
}

#[tokio::test]
async fn the_end_of_one_writer_ends_no_place_of_another() {
    let bed = Bed::new().await;
    let (mut here, mut there) = (bed.client().await, bed.client().await);
    for is_granted in [false, true] {
        let reader = share(1);
        here.take(reader).await;
        assert_eq!(wait(&mut here, hold(1)).await, Some(true));
        assert_eq!(wait(&mut there, hold(1)).await, Some(true));
        if is_granted {
            here.release(reader).await;
            let writer = hold(1);
            here.take(writer).await;
            here.release(writer).await;
        } else {
            assert_eq!(here.release(place(1)).await, Released::Missing);
        }
        assert!(here.is_refused(share(1)).await, "the other waits");
        // Its own ends with its grant.
        if !is_granted {
            here.release(reader).await;
        }
        let writer = hold(1);
        there.take(writer).await;
        assert!(here.is_refused(share(1)).await);
        there.release(writer).await;
        let reader = share(1);
        here.take(reader).await;
        here.release(reader).await;
    }
}

/// Readers that are kept out by a place learn of its end.
#[tokio::test]
async fn the_end_of_a_place_is_notified_to_readers_that_wait() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let mut listener = PgListener::connect_with(&bed.pool).await.unwrap();
    listener.listen("distributed_lock_leases").await.unwrap();
    client.take(share(1)).await;
    assert_eq!(wait(&mut client, hold(1)).await, Some(true));
    let acquires = &[Wish {
        is_awaited: true,
        ..wish(share(1))
    }];
    let asked = Ask {
        acquires,
        ..Ask::default()
    };
    assert!(matches!(
        client.ask(asked).await.acquired(0),
        Acquired::Held(_)
    ));
    client.release(place(1)).await;
    assert!(timeout(PATIENCE, listener.recv()).await.is_ok());
}

/// Asks for a share that waits for a transaction in which this was executed, and which is committed then.
async fn acquire_behind(bed: &Bed, client: &mut Client, sql: &str) -> Acquired {
    let mut other = bed.pool.begin().await.unwrap();
    other.execute(AssertSqlSafe(sql)).await.unwrap();
    let ending = async {
        bed.until_one_waits().await;
        other.commit().await.unwrap();
    };
    tokio::join!(client.acquire(share(1)), ending).0
}

/// Readers of two processes contend for the row, and neither is refused for that.
#[tokio::test]
async fn a_reader_waits_for_the_statement_of_another() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    client.take(share(1)).await;
    let locked = "SELECT FROM leases WHERE name <> 'server' FOR UPDATE";
    let acquired = acquire_behind(&bed, &mut client, locked).await;
    assert!(matches!(acquired, Acquired::Granted(_)), "{acquired:?}");
}

/// Its row was there when its statement began, and is not any more.
#[tokio::test]
async fn a_reader_whose_row_is_swept_while_it_waits_is_sent_again() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let read = share(1);
    client.take(read).await;
    client.release(read).await;
    let swept = "DELETE FROM leases WHERE name <> 'server'";
    let acquired = acquire_behind(&bed, &mut client, swept).await;
    assert_eq!(acquired, Acquired::Met);
    client.take(share(1)).await;
}

/// It waited for a row of readers and renewed nothing. Its time says so, by which a driver asks again: nothing is lost.
#[tokio::test]
async fn a_renewal_that_has_waited_for_a_row_for_too_long_says_so() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let (held, read) = (hold(1), share(2));
    client.take(held).await;
    client.take(read).await;
    let (answer, not_after) = loop {
        let mut other = bed.pool.begin().await.unwrap();
        let key = read.key;
        let locked = format!("SELECT FROM leases WHERE key = '{key}' FOR NO KEY UPDATE");
        other.execute(AssertSqlSafe(locked)).await.unwrap();
        let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
        let not_after = bed.look::<i64>(now).await + 50_000;
        let asked = Ask {
            renewals: &[held, read],
            ..Ask::default()
        };
        let ending = async {
            eventually("it is too late", || async {
                bed.look::<i64>(now).await > not_after
            })
            .await;
            other.commit().await.unwrap();
        };
        // The server waits for a row for half a second, in which a busy machine may not let us come so far.
        if let (Ok(answer), ()) = tokio::join!(client.ask_until(asked, not_after), ending) {
            break (answer, not_after);
        }
    };
    assert!(!answer.is_renewed(0) && !answer.is_renewed(1));
    assert!(answer.time > not_after, "{answer:?}");
}

/// Two that make the row of a name: the one that comes second asks again, and is granted.
#[tokio::test]
async fn a_reader_that_meets_another_at_a_new_row_is_sent_again() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let key = share(1).key;
    let made = format!(
        "INSERT INTO leases (key, namespace, name, holder, lease, expires, acquired, token) \
         VALUES ('{key}', '', 'order:process:42', '', 0, clock_timestamp(), clock_timestamp(), 0)"
    );
    let acquired = acquire_behind(&bed, &mut client, &made).await;
    // Nothing has the row: it may be granted already.
    assert!(
        matches!(acquired, Acquired::Met | Acquired::Granted(_)),
        "{acquired:?}"
    );
    client.take(share(1)).await;
}

/// It is passed over, as a writer passes it over: the transaction may last.
#[tokio::test]
async fn a_reader_does_not_come_before_the_end_of_a_fenced_transaction() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let mut work = PgConnection::connect(&bed.bouncer.url()).await.unwrap();
    for is_released in [false, true] {
        let held = hold(1);
        let token = client.take(held).await;
        let mut tx = work.begin().await.unwrap();
        fence(&bed.table, &mut tx, held.key, token).await.unwrap();
        if is_released {
            client.release(held).await;
        } else {
            bed.expire(held.key).await;
        }
        assert!(client.is_refused(share(1)).await);
        tx.commit().await.unwrap();
        let reader = share(1);
        client.take(reader).await;
        // Nor is a transaction fenced any more by the lock of the writer before.
        let mut tx = work.begin().await.unwrap();
        let refused = fence(&bed.table, &mut tx, held.key, token).await;
        assert!(refused.unwrap_err().is_lost());
        tx.rollback().await.unwrap();
        client.release(reader).await;
    }
}

#[tokio::test]
async fn a_request_of_readers_that_comes_late_does_nothing() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let (held, read) = (hold(1), share(2));
    client.take(held).await;
    client.take(read).await;
    let rows = "SELECT string_agg(l::text, ' ' ORDER BY l.key) FROM leases AS l";
    let before: String = bed.look(rows).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let late = i64::try_from((now - Duration::from_millis(1)).as_micros()).unwrap();
    let waiting = Wish {
        has_place: true,
        ..wish(hold(2))
    };
    let ask = Ask {
        renewals: &[held, read],
        acquires: &[wish(share(1)), wish(share(2)), waiting, wish(share(3))],
        ..Ask::default()
    };
    let answer = client.ask_until(ask, late).await.unwrap();
    assert!(answer.time > late && !answer.is_renewed(0) && !answer.is_renewed(1));
    for place in 0..4 {
        assert!(matches!(answer.acquired(place), Acquired::Held(_)));
    }
    assert!(!answer.has_place(2));
    assert_eq!(bed.look::<String>(rows).await, before);
}

/// What was written before the clock of the server went back ends after a lease at most.
#[tokio::test]
async fn shares_and_places_that_end_too_late_are_brought_back() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let (one, other) = (share(1), share(1));
    client.take(one).await;
    client.take(other).await;
    assert_eq!(wait(&mut client, hold(1)).await, Some(true));
    bed.write(
        "UPDATE leases SET expires = clock_timestamp() + interval '1 day', \
         readers_until = ARRAY[clock_timestamp() + interval '5 s', clock_timestamp() + interval '1 day'], \
         wanted_until = clock_timestamp() + interval '1 day' WHERE owner IS NOT NULL",
    )
    .await;
    // The place of a writer that is gone keeps none out.
    client.take(share(1)).await;
    let acquires = &[wish(hold(1))];
    let asked = Ask {
        acquires,
        ..Ask::default()
    };
    let answer = client.ask(asked).await;
    assert!(answer.acquired(0) == Acquired::Held(None) && answer.ends_too_late(0));
    let late = &[one.key];
    client
        .ask(Ask {
            late,
            ..Ask::default()
        })
        .await;
    let key = one.key;
    for (what, most) in [("expires", 30.0), ("readers_until[1]", 5.0)] {
        let left = format!(
            "SELECT extract(epoch FROM {what} - clock_timestamp())::float8 FROM leases WHERE key = '{key}'"
        );
        let left: f64 = bed.look(&left).await;
        assert!(left > 0.0 && left <= most, "{what} {left}");
    }
    let is_whole = format!(
        "SELECT expires >= ALL (readers_until) AND cardinality(readers_until) = cardinality(readers) \
         FROM leases WHERE key = '{key}'"
    );
    assert!(bed.look::<bool>(&is_whole).await);
    assert!(client.renews(one).await && client.renews(other).await);
}

#[tokio::test]
async fn a_look_tells_what_is_free_for_a_writer_and_for_a_reader() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    // Of a name that was never locked, held by a writer, by readers, and by readers before a writer that waits.
    let keys: Vec<_> = (1..=4).map(|number| hold(number).key).collect();
    client.take(hold(2)).await;
    client.take(share(3)).await;
    client.take(share(4)).await;
    assert_eq!(wait(&mut client, hold(4)).await, Some(true));
    let look = client.table.look(number(), &keys, Duration::from_secs(2));
    let answer = client.send(look).await;
    let told = (0..4).map(|at| (answer.is_free(at), answer.is_readable(at)));
    assert!(told.eq([(true, true), (false, false), (false, true), (false, false)]));
    let look = client.table.who_holds(number(), &keys);
    let answer = client.send(look).await;
    let modes: Vec<_> = (0..4)
        .map(|at| answer.holder(at).map(lock_core::Holder::mode))
        .collect();
    let shared = Some(LockMode::Shared);
    assert_eq!(modes, [None, Some(LockMode::Exclusive), shared, shared]);
}

/// With the rights that are documented, and no more.
#[tokio::test]
async fn a_role_that_may_read_and_write_the_table_reads_and_waits() {
    let bed = Bed::new().await;
    bed.write("GRANT SELECT, INSERT, UPDATE, DELETE ON leases TO app")
        .await;
    let mut client = bed.client_at(&bed.server.url_for("app", "postgres")).await;
    let reader = share(1);
    client.take(reader).await;
    assert_eq!(wait(&mut client, hold(1)).await, Some(true));
    assert!(client.is_refused(share(1)).await && client.renews(reader).await);
    client.release(reader).await;
    client.release(place(1)).await;
    client.take(hold(1)).await;
}

/// The table of a version without readers, while a lock is held in it.
#[tokio::test]
async fn a_table_of_the_version_before_is_given_readers_with_its_locks_held() {
    let bed = Bed::new().await;
    make_former(&bed).await;
    let (held, writer) = (hold(1), hold(2));
    acquire_formerly(&bed, held).await.expect("it is free");
    let refused = open(&bed, false).await.unwrap_err();
    assert!(refused.is_misconfigured());
    let sql = Setup::new("former", false).unwrap().sql();
    let sql = sql.replace("\"former\"", "public.former");
    assert!(refused.to_string().ends_with(&sql), "{refused}");
    // By several at a time.
    let url = bed.server.url();
    let opening = [
        open_at(&url, true),
        open_at(&url, true),
        open_at(&url, true),
    ];
    for opened in futures_util::future::join_all(opening).await {
        opened.unwrap();
    }
    let mut client = Client {
        table: open(&bed, false).await.unwrap(),
        ..bed.client().await
    };
    assert!(client.renews(held).await && client.is_refused(share(1)).await);
    assert!(acquire_formerly(&bed, hold(1)).await.is_none());
    assert_eq!(client.release(held).await, Released::Free);

    // What a process of the version before does beside readers.
    let reader = share(1);
    client.take(reader).await;
    assert!(acquire_formerly(&bed, hold(1)).await.is_none());
    assert!(client.renews(reader).await);
    let expired = "UPDATE former SET expires = clock_timestamp(), \
         readers_until = ARRAY[clock_timestamp()] WHERE owner IS NOT NULL";
    bed.write(expired).await;
    let next = hold(1);
    acquire_formerly(&bed, next).await.expect("they have ended");
    assert!(!client.renews(reader).await && client.is_refused(share(1)).await);
    assert!(client.is_refused(hold(1)).await && client.renews(next).await);
    client.release(next).await;
    client.take(share(1)).await;
    assert!(!client.renews(reader).await);
    assert!(acquire_formerly(&bed, writer).await.is_some());
}

/// Nor is a transaction of a process of the version before fenced by the lock that it has lost to readers.
#[tokio::test]
async fn a_fence_of_the_version_before_does_not_take_readers_for_its_writer() {
    let bed = Bed::new().await;
    make_former(&bed).await;
    let held = hold(1);
    let token = acquire_formerly(&bed, held).await.unwrap();
    let fenced = format!(
        "SELECT count(*) FROM (SELECT FROM former AS l WHERE l.key = '{}' AND l.token = '{token}' \
         AND l.owner <> '00000000-0000-0000-0000-000000000000' AND l.expires > clock_timestamp() \
         FOR KEY SHARE OF l) AS l",
        held.key
    );
    assert_eq!(bed.look::<i64>(&fenced).await, 1);
    bed.write("UPDATE former SET expires = clock_timestamp() WHERE owner IS NOT NULL")
        .await;
    let mut client = Client {
        table: open(&bed, true).await.unwrap(),
        ..bed.client().await
    };
    client.take(share(1)).await;
    assert_eq!(bed.look::<i64>(&fenced).await, 0);
}

/// As the version before made it.
async fn make_former(bed: &Bed) {
    bed.write(
        "CREATE TABLE former (key uuid PRIMARY KEY, namespace text NOT NULL, name text NOT NULL, owner uuid, \
          holder text NOT NULL, lease int4 NOT NULL, expires timestamptz NOT NULL, acquired timestamptz NOT NULL, \
          token int8 NOT NULL, awaited bool NOT NULL DEFAULT false) WITH (fillfactor = 50); \
         COMMENT ON TABLE former IS 'distributed_lock lease table, version 1'; \
         INSERT INTO former (key, namespace, name, holder, lease, expires, acquired, token) VALUES \
          ('00000000-0000-0000-0000-000000000000', '', 'server', '', 0, clock_timestamp(), clock_timestamp(), 0)",
    )
    .await;
}

/// What the version before sent to acquire a lock, for one owner; the token.
async fn acquire_formerly(bed: &Bed, hold: Hold) -> Option<i64> {
    let Hold { key, owner, .. } = hold;
    let sql = format!(
        "WITH asked AS (SELECT '{key}'::uuid AS key, '{owner:032x}'::uuid AS owner, 30000 AS lasts), \
         server AS MATERIALIZED (SELECT server.token FROM former AS server \
          WHERE server.key = '00000000-0000-0000-0000-000000000000' AND server.expires <= clock_timestamp()), \
         free AS MATERIALIZED (SELECT l.key FROM asked AS a JOIN former AS l ON l.key = a.key CROSS JOIN server \
          WHERE (l.owner IS NULL OR l.expires <= clock_timestamp() OR l.owner = a.owner) \
          LIMIT 1 FOR UPDATE OF l SKIP LOCKED), \
         taken AS (UPDATE former AS l SET owner = a.owner, holder = 'former:1', lease = a.lasts, \
          expires = clock_timestamp() + a.lasts * interval '1 ms', acquired = clock_timestamp(), \
          token = greatest(l.token + 1, server.token + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::int8) \
          FROM free AS f JOIN asked AS a ON a.key = f.key CROSS JOIN server \
          WHERE l.key = f.key AND (l.owner IS NULL OR l.expires <= clock_timestamp() OR l.owner = a.owner) \
          RETURNING l.token), \
         made AS (INSERT INTO former AS l (key, namespace, name, owner, holder, lease, expires, acquired, token) \
          SELECT a.key, '', 'order:process:42', a.owner, 'former:1', a.lasts, \
           clock_timestamp() + a.lasts * interval '1 ms', clock_timestamp(), \
           greatest(server.token + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::int8) \
          FROM asked AS a CROSS JOIN server WHERE NOT EXISTS (SELECT FROM former AS l WHERE l.key = a.key) \
          ON CONFLICT (key) DO NOTHING RETURNING l.token) \
         SELECT coalesce((SELECT token FROM taken), (SELECT token FROM made))"
    );
    bed.look(&sql).await
}

async fn open(
    bed: &Bed,
    create: bool,
) -> Result<lock_core::postgres::lease_table::Table, lock_core::LockError> {
    open_at(&bed.server.url(), create).await
}

async fn open_at(
    url: &str,
    create: bool,
) -> Result<lock_core::postgres::lease_table::Table, lock_core::LockError> {
    let mut session = PgConnection::connect(url).await.unwrap();
    let setup = Setup::new("former", create).unwrap();
    setup.open(&mut session, super::LEASE).await
}
