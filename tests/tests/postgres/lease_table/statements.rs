//! Statements that the sessions of the server are taught.

use lock_tests::servers::Server;
use sqlx::{Executor, Row};

use super::{Bed, Client, hold};

/// More than teach a session after one that was not taught.
const MANY: usize = 50;

/// How many statements the session of this client was taught.
async fn taught(client: &mut Client) -> i64 {
    let taught = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'distributed_lock%'";
    client.session.fetch_one(taught).await.unwrap().get(0)
}

async fn cycle(client: &mut Client) {
    let held = hold(1);
    client.take(held).await;
    assert!(client.renews(held).await);
    client.release(held).await;
}

/// As a pooler has it do, between two clients.
#[tokio::test]
async fn a_session_that_forgets_its_statements_is_taught_again() {
    let bed = Bed::new().await;
    let mut client = bed.client_at(&bed.server.url()).await;
    for _ in 0..3 {
        for _ in 0..MANY {
            cycle(&mut client).await;
        }
        assert!(taught(&mut client).await > 0);
        for forget in ["DEALLOCATE ALL", "DISCARD ALL"] {
            client.session.execute(forget).await.unwrap();
            assert_eq!(taught(&mut client).await, 0);
            cycle(&mut client).await;
        }
    }
    // What is lacking alone is taught.
    let one = "SELECT 'DEALLOCATE ' || min(name) FROM pg_prepared_statements \
         WHERE name LIKE 'distributed_lock%'";
    let one: String = client.session.fetch_one(one).await.unwrap().get(0);
    let before = taught(&mut client).await;
    client
        .session
        .execute(sqlx::AssertSqlSafe(one))
        .await
        .unwrap();
    cycle(&mut client).await;
    assert_eq!(taught(&mut client).await, before);
}

/// They are errors in its log.
#[tokio::test]
async fn new_sessions_are_mostly_taught_before_they_are_asked() {
    let bed = Bed::new().await;
    let mut errors = 0;
    for _ in 0..20 {
        let mut client = bed.client_at(&bed.server.url()).await;
        cycle(&mut client).await;
        errors = bed.server.log().matches("does not exist").count();
    }
    assert!(errors <= 3, "{errors}");
}

#[tokio::test]
async fn a_role_that_cannot_teach_sends_statements_in_full() {
    let bed = Bed::new().await;
    let mut client = bed.client_without_language().await;
    for _ in 0..MANY {
        cycle(&mut client).await;
    }
    assert_eq!(taught(&mut client).await, 0);
    let refused = bed
        .server
        .log()
        .matches("permission denied for language")
        .count();
    assert_eq!(refused, 1);
}

/// A table that is large when the first statement is planned, or becomes so.
#[tokio::test]
async fn statements_find_their_rows_by_the_index() {
    let bed = Bed::new().await;
    let mut client = bed.client_at(&bed.server.url()).await;
    cycle(&mut client).await;
    bed.write(
        "INSERT INTO leases SELECT gen_random_uuid(), '', 'order', NULL, '', 0, now(), now(), 0 \
         FROM generate_series(1, 20000)",
    )
    .await;
    let scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'leases'";
    drop(client);
    let mut client = bed.client_at(&bed.server.url()).await;
    let before: i64 = bed.look(scans).await;
    for _ in 0..MANY {
        cycle(&mut client).await;
    }
    drop(client);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(bed.look::<i64>(scans).await, before);
}
