//! Fencing tokens grow, whatever happens to the server.

use lock_core::postgres::PostgresBackend;
use lock_core::{LockName, LockProvider};
use lock_tests::servers::{PostgresServer, Server};
use sqlx::Executor;

use crate::support::{PATIENCE, name};

async fn locks(server: &PostgresServer) -> LockProvider {
    LockProvider::new(PostgresBackend::connect(&server.url()).await.unwrap())
}

/// The token of one more hold.
async fn token(locks: &LockProvider, name: &LockName) -> u64 {
    let guard = locks.lock(name).unwrap().acquire(PATIENCE).await.unwrap();
    let token = guard.fencing_token().await.unwrap();
    guard.release().await.unwrap();
    token.get()
}

#[tokio::test]
async fn tokens_do_not_go_back_when_the_server_crashes() {
    let server = PostgresServer::with(&[("fsync", "on")]).await;
    let (locks, name) = (locks(&server).await, name("order:process:42"));
    let mut last = 0;
    for round in 0..5 {
        // The crash comes right behind the answer.
        for _ in 0..3 {
            let token = token(&locks, &name).await;
            assert!(token > last, "round {round}: {token} after {last}");
            last = token;
        }
        server.restart().await;
    }
}

#[tokio::test]
async fn tokens_do_not_go_back_when_a_standby_is_promoted() {
    let primary = PostgresServer::start().await;
    let (old, name) = (locks(&primary).await, name("order:process:42"));
    let standby = primary.standby().await;
    // What never reaches the standby.
    standby.freeze().await;
    let mut last = 0;
    for _ in 0..200 {
        last = token(&old, &name).await;
    }
    primary.kill().await;
    standby.thaw().await;
    standby.promote().await;
    let new = token(&locks(&standby).await, &name).await;
    assert!(new > last, "{new} after {last}");
}

#[tokio::test]
async fn an_epoch_comes_before_all_tokens_of_a_server() {
    let (old, new) = tokio::join!(PostgresServer::start(), PostgresServer::start());
    let name = name("order:process:42");
    let many =
        "DO 'BEGIN FOR i IN 1..1000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END'";
    old.pool().await.execute(many).await.unwrap();
    let last = token(&locks(&old).await, &name).await;
    let first = token(&locks(&new).await, &name).await;
    assert!(first < last, "which is why there are epochs");
    let epoch = PostgresBackend::builder(new.url()).token_epoch(1);
    let raised = LockProvider::new(epoch.connect().await.unwrap());
    assert!(token(&raised, &name).await > last);
}
