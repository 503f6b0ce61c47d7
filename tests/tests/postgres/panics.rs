//! A panic in the thread that drives the session, which can come from what a program gives the
//! library to call there: its logger.

use std::io::{self, Write};
use std::time::Duration;

use lock_core::LossReason;
use lock_tests::{PostgresStore, Store, eventually};

use crate::ghost::Ghost;
use crate::support::{PATIENCE, acquire, numbered, order, take};

/// Panics when it learns that a session was ended.
struct Logger;

impl Write for Logger {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(text);
        assert!(!text.contains("had stalled"), "on purpose: {text}");
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_driver_costs_all_locks_at_once_and_there_is_another_session() {
    tracing_subscriber::fmt().with_writer(|| Logger).init();
    let store = PostgresStore::open().await;
    let (client, other) = (store.client().await, store.client().await);
    let guards = [
        take(&client, numbered(1)).await,
        take(&client, numbered(2)).await,
    ];
    let theirs = take(&other, numbered(3)).await;
    // A caller waits, so that sessions are looked at that stand still, and one does.
    let lock = client.lock(numbered(3)).unwrap();
    let waiter = tokio::spawn(async move { lock.acquire(Duration::from_secs(8)).await });
    let mut ghost = Ghost::holding(&store.server, "distributed_lock", "lease 2000", &order()).await;
    ghost.stop_inside_a_statement().await;

    for guard in &guards {
        // Not when the lease ends, which is not renewed any more.
        assert_eq!(guard.lost().await, LossReason::Disconnected);
    }
    for guard in guards {
        assert!(guard.fencing_token().await.unwrap_err().is_lost());
        assert!(guard.release().await.unwrap_err().is_lost());
    }
    // The waiter goes on with it.
    theirs.release().await.unwrap();
    drop(waiter.await.unwrap().unwrap());
    for number in [1, 2] {
        drop(acquire(&other, numbered(number), PATIENCE).await);
        drop(acquire(&client, numbered(number), PATIENCE).await);
    }
    eventually("the session that it had is gone", || async {
        store.sessions().await == 2
    })
    .await;
}
