//! What a request does with a row, one at a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lock_core::postgres::lease_table::{
    Acquired, Ask, Failure, Hold, Released, RowKey, Server, Wish,
};
use lock_tests::eventually;
use lock_tests::servers::PostgresServer;
use sqlx::{Connection, Executor, PgConnection};

use super::{Bed, hold, number, wish};

#[tokio::test]
async fn a_lock_changes_hands_in_one_request() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let (former, next) = (hold(1), hold(1));
    let first = client.take(former).await;
    let ask = Ask {
        releases: &[former],
        acquires: &[wish(next)],
        ..Ask::default()
    };
    let answer = client.ask(ask).await;
    assert_eq!(answer.released(0), Released::Free);
    assert!(matches!(answer.acquired(0), Acquired::Granted(token) if token > first));
    assert!(client.renews(next).await && !client.renews(former).await);
}

#[tokio::test]
async fn an_acquire_that_comes_twice_is_one_grant() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    let token = client.take(held).await;
    assert_eq!(client.take(held).await, token);
    // Twice in one request: one of them has it, whichever it is.
    let twins = [wish(hold(2)), wish(hold(2))];
    let ask = Ask {
        acquires: &twins,
        ..Ask::default()
    };
    let answer = client.ask(ask).await;
    let granted = [0, 1].map(|place| matches!(answer.acquired(place), Acquired::Granted(_)));
    assert!(granted[0] != granted[1], "{granted:?}");
}

#[tokio::test]
async fn a_request_that_comes_late_does_nothing() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    client.take(held).await;
    let rows = "SELECT string_agg(l::text, ' ' ORDER BY l.key) FROM leases AS l";
    let before: String = bed.look(rows).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let late = i64::try_from((now - Duration::from_millis(1)).as_micros()).unwrap();
    let ask = Ask {
        renewals: &[held],
        tokens: &[held],
        acquires: &[wish(hold(1)), wish(hold(2)), wish(held)],
        ..Ask::default()
    };
    let answer = client.ask_until(ask, late).await.unwrap();
    assert!(answer.time > late && !answer.is_renewed(0) && answer.issued(0).is_none());
    for place in 0..3 {
        assert!(matches!(answer.acquired(place), Acquired::Held(_)));
    }
    assert_eq!(bed.look::<String>(rows).await, before);
}

#[tokio::test]
async fn a_lease_that_has_ended_is_another_owners() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let (former, next) = (hold(1), hold(1));
    let first = client.take(former).await;
    bed.expire(former.key).await;
    assert!(!client.renews(former).await && client.issue(former).await.is_none());
    assert!(client.take(next).await > first);
    assert!(!client.renews(former).await);
    assert_eq!(client.release(former).await, Released::Taken);
    assert!(client.renews(next).await);
}

#[tokio::test]
async fn what_is_anothers_is_not_touched() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let (held, other) = (hold(1), hold(1));
    let token = client.take(held).await;
    let Acquired::Held(Some(left)) = client.acquire(other).await else {
        panic!("it is held, for a while");
    };
    assert!((1..=30_000).contains(&left));
    assert!(!client.renews(other).await && client.issue(other).await.is_none());
    assert_eq!(client.release(other).await, Released::Taken);
    assert_eq!(client.release(hold(2)).await, Released::Missing);
    assert_eq!(client.take(held).await, token, "it has it still");
    assert_eq!(client.release(held).await, Released::Free);
    assert_eq!(client.release(held).await, Released::Missing);
}

#[tokio::test]
async fn a_token_that_is_issued_is_greater_than_the_last() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    let granted = client.take(held).await;
    let issued = client.issue(held).await.unwrap();
    let again = client.issue(held).await.unwrap();
    assert!(granted < issued && issued < again);
    client.release(held).await;
    assert!(client.take(hold(1)).await > again);
}

/// As they would be without the rows that were removed.
#[tokio::test]
async fn tokens_do_not_go_back_when_rows_are_removed() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let (held, kept) = (hold(1), hold(2));
    client.take(held).await;
    client.take(kept).await;
    client.release(held).await;
    // Far ahead of the clock, as after a fail-over; and free for long.
    let (key, ahead) = (held.key, 1_i64 << 52);
    let old = "expires = clock_timestamp() - interval '2 hours'";
    bed.write(&format!(
        "UPDATE leases SET token = {ahead}, {old} WHERE key = '{key}'"
    ))
    .await;
    let sweep = client.table.sweep(number());
    client.send(sweep).await;
    let rows = "SELECT count(*) FROM leases WHERE name <> 'server'";
    assert_eq!(bed.look::<i64>(rows).await, 1, "the one that is held stays");
    assert!(client.take(hold(1)).await > ahead);
    assert!(client.renews(kept).await);
}

#[tokio::test]
async fn a_sweep_tells_how_many_rows_it_has_removed() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    client.take(held).await;
    bed.write(
        "INSERT INTO leases SELECT gen_random_uuid(), '', 'order', NULL, '', 0, \
          now() - interval '2 hours', now(), 0 FROM generate_series(1, 2500)",
    )
    .await;
    for removed in [1_000, 1_000, 500, 0] {
        let sweep = client.table.sweep(number());
        assert_eq!(client.send(sweep).await.swept(), removed);
    }
    assert!(client.renews(held).await, "the one that is held stays");
}

fn bringing_back(late: &[RowKey]) -> Ask<'_> {
    Ask {
        late,
        ..Ask::default()
    }
}

/// A row that was written before the clock of the server went back keeps its lock for one lease, and no longer.
#[tokio::test]
async fn a_lease_that_ends_too_late_is_brought_back() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    client.take(held).await;
    let key = held.key;
    bed.write(&format!(
        "UPDATE leases SET expires = clock_timestamp() + interval '1 day' WHERE key = '{key}'"
    ))
    .await;
    let acquires = &[wish(hold(1))];
    let ask = Ask {
        acquires,
        ..Ask::default()
    };
    let answer = client.ask(ask).await;
    assert!(answer.acquired(0) == Acquired::Held(None) && answer.ends_too_late(0));
    client.ask(bringing_back(&[key])).await;
    let left = format!(
        "SELECT extract(epoch FROM expires - clock_timestamp())::float8 FROM leases WHERE key = '{key}'"
    );
    let left: f64 = bed.look(&left).await;
    assert!(left > 0.0 && left <= super::LEASE.as_secs_f64(), "{left}");
    assert!(client.renews(held).await);
}

/// Each statement of a request looks at what is committed then, also where transactions do not unless they say so.
#[tokio::test]
async fn a_row_that_is_changed_while_a_request_waits_spoils_none() {
    for isolation in ["repeatable read", "serializable"] {
        let settings = [("default_transaction_isolation", isolation)];
        let bed = Bed::on(PostgresServer::with(&settings).await).await;
        let mut client = bed.client().await;
        let held = hold(1);
        client.take(held).await;
        let mut other = bed.pool.begin().await.unwrap();
        // As a process does that waits for the lock.
        other
            .execute("UPDATE leases SET awaited = true")
            .await
            .unwrap();
        let changing = async {
            bed.until_one_waits().await;
            other.commit().await.unwrap();
        };
        let (is_renewed, ()) = tokio::join!(client.renews(held), changing);
        assert!(is_renewed, "{isolation}");
        assert_eq!(client.release(held).await, Released::Free);
    }
}

#[tokio::test]
async fn a_request_that_fails_has_done_nothing() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let (held, wanted) = (hold(1), hold(2));
    client.take(held).await;
    let mut other = PgConnection::connect(&bed.server.url()).await.unwrap();
    let mut tx = other.begin().await.unwrap();
    tx.execute("SELECT FROM leases FOR UPDATE").await.unwrap();
    let ask = Ask {
        releases: &[held],
        acquires: &[wish(wanted)],
        ..Ask::default()
    };
    let failed = client.try_ask(ask).await.unwrap_err();
    assert!(matches!(failed, Failure::Refused(_)), "{failed:?}");
    tx.rollback().await.unwrap();
    assert!(client.renews(held).await && !client.renews(wanted).await);
    assert_eq!(client.release(wanted).await, Released::Missing);
}

/// What goes into a row from outside is text there, and nothing else.
#[tokio::test]
async fn values_are_kept_as_they_are() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let names = ["order:process:42", "a\"b,{c}\\'d' \u{e9}", ""];
    let holds = [1, 2, 3].map(hold);
    // All of them plain, and one that is not.
    for asked in [0..1, 1..3] {
        let acquires = asked.clone().map(|at| Wish {
            name: names[at],
            ..wish(holds[at])
        });
        let ask = Ask {
            acquires: &acquires.collect::<Vec<_>>(),
            ..Ask::default()
        };
        client.ask(ask).await;
        for at in asked {
            let key = holds[at].key;
            let kept = format!(
                "SELECT namespace || ',' || name || ',' || holder FROM leases WHERE key = '{key}'"
            );
            let expected = format!("{},{},here:1", super::NAMESPACE, names[at]);
            assert_eq!(bed.look::<String>(&kept).await, expected);
        }
    }
}

/// Rows change on their page, and no index does.
#[tokio::test]
async fn a_cycle_leaves_nothing_in_the_index() {
    const CYCLES: usize = 500;
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    for _ in 0..CYCLES {
        let holds: Vec<Hold> = (0..8).map(hold).collect();
        let acquires: Vec<_> = holds.iter().copied().map(wish).collect();
        let ask = Ask {
            acquires: &acquires,
            ..Ask::default()
        };
        let answer = client.ask(ask).await;
        assert!(matches!(answer.acquired(7), Acquired::Granted(_)));
        let ask = Ask {
            renewals: &holds,
            ..Ask::default()
        };
        assert!(client.ask(ask).await.is_renewed(7));
        let ask = Ask {
            releases: &holds,
            ..Ask::default()
        };
        assert_eq!(client.ask(ask).await.released(7), Released::Free);
    }
    drop(client);
    let expected = i64::try_from(CYCLES * 8 * 3 - 8).unwrap();
    // The pooler's sessions report what they did within a second, or when they end.
    eventually("the statistics are there", || async {
        let updates = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'leases'";
        bed.look::<i64>(updates).await >= expected
    })
    .await;
    let cold = "SELECT n_tup_upd - n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'leases'";
    let (cold, pages): (i64, i64) = (
        bed.look(cold).await,
        bed.look("SELECT pg_relation_size('leases') / 8192").await,
    );
    assert!(
        cold * 100 <= expected,
        "{cold} of {expected} updates changed an index"
    );
    assert!(pages <= 4, "{pages} pages for 9 rows");
}

/// As an operator may write them, to keep a lock from all.
#[tokio::test]
async fn a_row_that_never_expires_spoils_no_request_and_ends() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    let held = hold(1);
    for (number, written) in [
        "expires = 'infinity', lease = 30000",
        "expires = 'infinity', lease = 2147483647",
        "expires = '-infinity', lease = 30000",
    ]
    .into_iter()
    .enumerate()
    {
        let row = format!("WHERE key = '{}'", held.key);
        client.release(held).await;
        client.take(held).await;
        bed.write(&format!("UPDATE leases SET {written} {row}"))
            .await;
        let acquires = [wish(hold(1)), wish(hold(10 + number))];
        let ask = Ask {
            acquires: &acquires,
            ..Ask::default()
        };
        let answer = client.ask(ask).await;
        let is_over = written.contains("-infinity");
        let granted = [0, 1].map(|place| matches!(answer.acquired(place), Acquired::Granted(_)));
        assert_eq!(granted, [is_over, true], "{written}");
        assert_eq!(answer.ends_too_late(0), !is_over, "{written}");
        client.ask(bringing_back(&[held.key])).await;
        let ends = format!("SELECT isfinite(expires) FROM leases {row}");
        assert!(bed.look::<bool>(&ends).await, "{written}");
    }
    bed.write("UPDATE leases SET expires = 'infinity' WHERE name = 'server'")
        .await;
    // As a quarantine that is too long.
    let answer = client.ask(Ask::default()).await;
    assert!(matches!(answer.server, Server::Waits(left) if left > 30_000));
}
