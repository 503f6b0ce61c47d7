//! Another server than the table was on, and one whose clock has jumped.

use std::time::Duration;

use lock_core::postgres::lease_table::{Acquired, Ask, Server};
use lock_tests::eventually;
use lock_tests::servers::{PostgresServer, Server as _};

use super::{Bed, Client, LEASE, hold, wish};

/// What the server says of itself.
async fn state(client: &mut Client) -> Server {
    client.ask(Ask::default()).await.server
}

/// Notes another server, or that its clock has jumped.
async fn note(client: &mut Client, has_jumped: bool) {
    let note = Some(has_jumped);
    client
        .ask(Ask {
            note,
            ..Ask::default()
        })
        .await;
}

/// Also where a restart alone would be none: its timeline tells there.
#[tokio::test]
async fn a_server_that_was_promoted_grants_nothing_for_a_lease() {
    for fsync in ["on", "off"] {
        promoted(Bed::on(PostgresServer::with(&[("fsync", fsync)]).await).await).await;
    }
}

async fn promoted(bed: Bed) {
    let mut client = bed.client().await;
    let (kept, lacking) = (hold(1), hold(2));
    client.take(kept).await;
    let standby = bed.server.standby().await;
    standby.catch_up_with(&bed.server).await;
    let mut there = bed.client_at(&standby.url()).await;
    assert!(
        there.try_ask(Ask::default()).await.is_err(),
        "it takes none"
    );
    // Of a clock that was ahead, and not on the standby any more.
    standby.kill().await;
    let token = client.take(lacking).await;
    bed.server.kill().await;
    standby.restart().await;
    standby.promote().await;

    let mut there = bed.client_at(&standby.url()).await;
    there.lease = Duration::from_secs(1);
    assert_eq!(state(&mut there).await, Server::IsAnother);
    assert!(there.is_refused(hold(2)).await);
    assert!(there.renews(kept).await, "what it knows goes on");
    assert!(
        there.issue(kept).await.is_none(),
        "tokens wait for the note"
    );
    for _ in 0..2 {
        // Noted once; the row knows the longest lease of all.
        note(&mut there, false).await;
        let Server::Waits(left) = state(&mut there).await else {
            panic!("nothing is granted");
        };
        assert!(left > 0 && left <= i64::try_from(LEASE.as_millis()).unwrap());
    }
    assert!(there.is_refused(hold(2)).await);
    let end = "UPDATE leases SET expires = clock_timestamp() WHERE name = 'server'";
    sqlx::raw_sql(end)
        .execute(&mut there.session)
        .await
        .unwrap();
    let ahead = 600_000_000;
    assert!(there.take(hold(2)).await > token + ahead / 2);
    assert!(there.is_refused(hold(1)).await, "it is held all the time");
}

#[tokio::test]
async fn a_restart_loses_nothing_where_the_disk_is_synced() {
    let synced = PostgresServer::with(&[("fsync", "on")]).await;
    for (server, expected) in [
        (synced, Server::Grants),
        (PostgresServer::start().await, Server::IsAnother),
    ] {
        let bed = Bed::on(server).await;
        let mut client = bed.client_at(&bed.server.url()).await;
        let held = hold(1);
        client.take(held).await;
        bed.server.kill().await;
        bed.server.restart().await;
        let mut client = bed.client_at(&bed.server.url()).await;
        assert_eq!(state(&mut client).await, expected);
        assert!(client.renews(held).await && client.is_refused(hold(1)).await);
        let is_granted = matches!(client.acquire(hold(2)).await, Acquired::Granted(_));
        assert_eq!(is_granted, expected == Server::Grants);
    }
}

/// Seen by a client, which compares the time of each answer with its own.
#[tokio::test]
async fn nothing_is_granted_for_a_lease_after_the_clock_has_jumped() {
    let bed = Bed::new().await;
    let mut client = bed.client().await;
    client.lease = Duration::from_secs(1);
    // As long as the longest lease that a client has come with.
    bed.write("UPDATE leases SET lease = 1000 WHERE name = 'server'")
        .await;
    note(&mut client, false).await;
    assert_eq!(
        state(&mut client).await,
        Server::Grants,
        "nothing has happened"
    );
    let held = hold(1);
    client.take(held).await;
    note(&mut client, true).await;
    assert!(matches!(state(&mut client).await, Server::Waits(1..=1_000)));
    let ask = Ask {
        renewals: &[held],
        acquires: &[wish(hold(2))],
        ..Ask::default()
    };
    let answer = client.ask(ask).await;
    assert!(answer.is_renewed(0) && answer.acquired(0) == Acquired::Held(None));
    let client = tokio::sync::Mutex::new(client);
    eventually("the lease is over", || async {
        state(&mut *client.lock().await).await == Server::Grants
    })
    .await;
    client.into_inner().take(hold(2)).await;
}
