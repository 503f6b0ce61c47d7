//! Who holds a lock and is cut off, frozen or ended: it knows in time, and others go on in time.

use std::sync::Arc;
use std::time::Duration;

use lock_core::LockProvider;
use lock_core::backend::{Attempt, Backend, Grant, LockRequest};
use lock_core::postgres::{PostgresBackend, PostgresGrant};
use lock_tests::servers::{Lan, PostgresServer, Proxy, Server};
use lock_tests::{Lateness, PostgresStore, Store, boottime, crowd_outlasts, eventually, is_held};

use crate::notice::Notice;
use crate::support::{
    BOUND, Ended, GRANTED_WITHIN, LEASE, MARGIN, PATIENCE, acquire, backend, child, client,
    nanoseconds, numbered, order, session_of, take,
};

/// How often something is done whose time is printed in milliseconds.
const ROUNDS: usize = 5;

/// How soon the locks of a session that has ended can be acquired.
const FREED: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_holder_is_succeeded_in_time_and_knows_at_its_first_look() {
    let store = PostgresStore::open().await;
    let (mut holder, other) = (child(&store).await, store.client().await);
    holder.hold(&order()).await;
    let old = holder.ask("token").await;
    let old: u64 = old.strip_prefix("token ").unwrap().parse().unwrap();
    let lateness = Lateness::of(GRANTED_WITHIN);
    holder.freeze().await;
    let guard = acquire(&other, order(), PATIENCE).await;
    lateness.at_most(Duration::ZERO).await;
    assert!(guard.fencing_token().await.unwrap().get() > old);
    holder.thaw().await;
    assert_eq!(holder.ask("valid").await, "valid false");
    assert_eq!(holder.ask("token").await, "error lost");
    assert_eq!(holder.ask("release").await, "error lost");
    assert!(
        guard.is_valid(),
        "what the old holder does is nothing to the new"
    );
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_of_a_killed_holder_is_granted_within_half_a_second() {
    let store = PostgresStore::open().await;
    let (mut holder, other) = (child(&store).await, store.client().await);
    holder.hold(&order()).await;
    let lock = other.lock(order()).unwrap();
    let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    eventually("the other waits", || async {
        store.advisory_locks().await == 4
    })
    .await;
    let lateness = Lateness::of(FREED);
    holder.kill().await;
    drop(waiter.await.unwrap().unwrap());
    lateness.at_most(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_behind_a_dead_network_knows_before_another_is_granted() {
    let lan = Lan::new().await;
    let server = PostgresServer::options().inside(lan.right()).start().await;
    let (near, far) = (server.url(), server.url());
    let holder = lan.left().run(async move { client(&far).await }).await;
    let other = lan.right().run(async move { client(&near).await }).await;
    let guard = Arc::new(take(&holder, order()).await);
    let old = guard.fencing_token().await.unwrap();
    let (lock, held) = (other.lock(order()).unwrap(), Arc::clone(&guard));
    let waiter = tokio::spawn(async move {
        let next = lock.acquire(PATIENCE).await.unwrap();
        assert!(!held.is_valid(), "held by two");
        next
    });

    let (at_the_deadline, granted_in_time) =
        (Lateness::of(LEASE - MARGIN), Lateness::of(GRANTED_WITHIN));
    lan.down().await;
    let down = boottime();
    let ended = Ended::of(guard).await;
    at_the_deadline.at_most(BOUND).await;
    let next = waiter.await.unwrap();
    granted_in_time.at_most(Duration::ZERO).await;
    assert!(ended.last_valid <= down + nanoseconds(LEASE - MARGIN));
    assert!(next.fencing_token().await.unwrap() > old);

    // Cut off, it learns that there is no server, and not that the lock is held.
    let lock = holder.lock(order()).unwrap();
    let error = lock.acquire(Duration::ZERO).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    lan.up().await;
    next.release().await.unwrap();
    drop(acquire(&holder, order(), PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_connection_is_noticed_at_once_and_made_again_within_the_wait() {
    let server = PostgresServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let client = client(&proxy.url(&server.url())).await;
    for _ in 0..ROUNDS {
        let guard = take(&client, order()).await;
        let token = guard.fencing_token().await.unwrap();
        let notice = Notice::of_now();
        proxy.reset();
        guard.lost().await;
        notice.assert_in_time();
        assert!(guard.release().await.unwrap_err().is_lost());
        let next = acquire(&client, order(), Duration::from_secs(5)).await;
        assert!(next.fencing_token().await.unwrap() > token);
        next.release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_costs_the_lock_and_nobody_waits_longer_than_allowed() {
    const ANSWERS: Duration = Duration::from_millis(300);
    let server = PostgresServer::start().await;
    let url = server.url();
    let holder = client(&url).await;
    let other = LockProvider::builder(backend(&url).await)
        .response_timeout(ANSWERS)
        .build();
    let guard = Arc::new(take(&holder, order()).await);
    // One who waits already, one who begins to wait, and one who only tries.
    let (early, wait) = (other.lock(order()).unwrap(), Duration::from_millis(1_200));
    let (earliest, early_bound) = (Lateness::of(wait), Lateness::of(wait + ANSWERS));
    let early = tokio::spawn(async move {
        let error = early.acquire(wait).await.unwrap_err();
        earliest.check(ANSWERS + BOUND).await;
        early_bound.at_most(BOUND).await;
        error
    });
    eventually("it waits", || async { registrations(&server).await == 1 }).await;
    let at_the_deadline = Lateness::of(LEASE - MARGIN);
    let frozen = boottime();
    server.freeze().await;
    for wait in [Duration::ZERO, Duration::from_millis(200)] {
        for number in [1, 2] {
            let late = Lateness::of(wait + ANSWERS);
            let error = other.lock(numbered(number)).unwrap().acquire(wait).await;
            late.at_most(BOUND).await;
            let error = error.unwrap_err();
            assert!(error.is_unavailable(), "{error}");
        }
    }
    let error = early.await.unwrap();
    assert!(error.is_unavailable(), "{error}");
    let ended = Ended::of(guard).await;
    at_the_deadline.at_most(BOUND).await;
    assert!(ended.last_valid <= frozen + nanoseconds(LEASE - MARGIN) + nanoseconds(BOUND));
    server.thaw().await;
    acquire(&holder, order(), PATIENCE)
        .await
        .release()
        .await
        .unwrap();
    acquire(&other, order(), PATIENCE)
        .await
        .release()
        .await
        .unwrap();
}

/// How many names are registered as waited for.
async fn registrations(server: &PostgresServer) -> i64 {
    let pool = server.pool().await;
    let shared = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) - count(DISTINCT pid) FROM pg_locks \
         WHERE locktype = 'advisory' AND objsubid = 1 AND mode = 'ShareLock'",
    );
    shared.fetch_one(&pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_costs_the_lock_at_once_and_waits_outlast_its_restart() {
    let server = PostgresServer::start().await;
    let client = client(&server.url()).await;
    let guard = take(&client, order()).await;
    let token = guard.fencing_token().await.unwrap();
    let lost = tokio::spawn(guard.lost());
    server.kill().await;
    let notice = Notice::of_now();
    lost.await.unwrap();
    notice.assert_in_time();
    let error = client.lock(numbered(1)).unwrap();
    let error = error.acquire(Duration::ZERO).await;
    let error = error.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    let lock = client.lock(order()).unwrap();
    let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    server.restart().await;
    let next = waiter.await.unwrap().unwrap();
    assert!(next.fencing_token().await.unwrap() > token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_waiters_outlast_a_restart_of_the_server() {
    let server = PostgresServer::start().await;
    let (holder, waiter) = (client(&server.url()).await, client(&server.url()).await);
    crowd_outlasts(&holder, &waiter, &order(), async {
        server.kill().await;
        // They are notified, and ask again.
        tokio::time::sleep(LEASE).await;
        server.restart().await;
    })
    .await;
}

/// The server has carried out what it was asked, and the connection ends in place of the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_are_lost_leave_no_lock_behind() {
    let server = PostgresServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let (near, url) = (server.url(), proxy.url(&server.url()));
    let (here, there) = tokio::join!(client(&url), client(&near));
    for _ in 0..15 {
        proxy.drop_next_reply();
        let guard = acquire(&here, order(), PATIENCE).await;
        assert!(is_held(&there, order()).await);
        proxy.drop_next_reply();
        // That the session is gone can be known before the release or by it.
        if let Err(error) = guard.release().await {
            assert!(error.is_lost() || error.is_unavailable(), "{error:?}");
        }
        let next = acquire(&there, order(), PATIENCE).await;
        next.release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_that_is_dropped_anywhere_leaves_nothing_behind() {
    let store = PostgresStore::open().await;
    let proxy = Proxy::to(store.server.address()).await;
    let slow = client(&proxy.url(&store.server.url())).await;
    let other = store.client().await;
    proxy.delay(Duration::from_millis(5));
    for held in [false, true] {
        for after in 0..30 {
            let holder = match held {
                true => Some(acquire(&other, numbered(after), PATIENCE).await),
                false => None,
            };
            let lock = slow.lock(numbered(after)).unwrap();
            let task = tokio::spawn(async move { lock.acquire(PATIENCE).await });
            tokio::time::sleep(Duration::from_millis(after as u64)).await;
            task.abort();
            // A grant that was ready is dropped with the task.
            let _ = task.await;
            drop(holder);
        }
    }
    proxy.heal().await;
    eventually(
        "nothing is left but the markers of two sessions",
        || async { store.advisory_locks().await == 2 },
    )
    .await;
    for number in 0..30 {
        drop(take(&other, numbered(number)).await);
    }
    // The session that it was done to goes on.
    assert_eq!(store.sessions().await, 2);
    acquire(&slow, order(), PATIENCE)
        .await
        .release()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_session_loses_all_its_locks_at_once_and_is_made_again() {
    let store = PostgresStore::open().await;
    let (holder, other) = (store.client().await, store.client().await);
    for _ in 0..ROUNDS {
        let guard = acquire(&holder, order(), PATIENCE).await;
        let second = acquire(&holder, numbered(1), PATIENCE).await;
        let token = guard.fencing_token().await.unwrap();
        let lock = other.lock(order()).unwrap();
        let waiter = tokio::spawn(async move { lock.acquire(PATIENCE).await });
        eventually("the other waits", || async {
            store.advisory_locks().await == 5
        })
        .await;
        let notice = Notice::of_the_end_of(session_of(&store.pool, &order()).await);
        let freed = Lateness::of(FREED);
        store.lose(&order()).await;
        guard.lost().await;
        second.lost().await;
        notice.await.unwrap().assert_in_time();
        let next = waiter.await.unwrap().unwrap();
        freed.at_most(Duration::ZERO).await;
        assert!(next.fencing_token().await.unwrap() > token);
        for lost in [guard, second] {
            assert!(lost.fencing_token().await.unwrap_err().is_lost());
            assert!(lost.release().await.unwrap_err().is_lost());
        }
        drop(acquire(&holder, numbered(1), Duration::from_secs(5)).await);
        assert!(is_held(&holder, order()).await);
        next.release().await.unwrap();
    }
}

/// The time of a caller ends its wait, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_for_less_than_the_lease_costs_no_lock() {
    const ANSWERS: Duration = Duration::from_millis(100);
    let store = PostgresStore::open().await;
    let client = LockProvider::builder(store.long_lived().await)
        .response_timeout(ANSWERS)
        .build();
    let guard = acquire(&client, order(), PATIENCE).await;
    let session = session_of(&store.pool, &order()).await;
    store.server.freeze().await;
    for number in 0..5 {
        let lock = client.lock(numbered(number)).unwrap();
        let error = lock.acquire(Duration::ZERO).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
    }
    store.server.thaw().await;
    // All that was asked for meanwhile is answered, and given back.
    for number in 0..5 {
        drop(acquire(&client, numbered(number), PATIENCE).await);
    }
    assert!(guard.is_valid());
    assert_eq!(session_of(&store.pool, &order()).await, session);
    guard.release().await.unwrap();
}

/// Grants outlive the session that their locks were on, and are released then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_lost_session_touches_nothing_of_the_next() {
    let store = PostgresStore::open().await;
    let (backend, other) = (store.backend().await, store.client().await);
    for dropped in [true, false] {
        let old = grant(&backend).await;
        store.lose(&order()).await;
        eventually("it is lost", || async { !old.lease().is_valid() }).await;
        let new = grant(&backend).await;
        assert!(old.fencing_token().await.unwrap_err().is_lost());
        match dropped {
            true => drop(old),
            false => assert!(old.release().await.unwrap_err().is_lost()),
        }
        // Answered after whatever the driver was asked before.
        backend.health().await.unwrap();
        assert!(is_held(&other, order()).await && new.lease().is_valid());
        new.fencing_token().await.unwrap();
        new.release().await.unwrap();
    }
}

/// Asks until the lock is granted.
async fn grant(backend: &PostgresBackend) -> PostgresGrant {
    loop {
        match backend.try_acquire(&LockRequest::new(order())).await {
            Ok(Attempt::Granted(grant)) => return grant,
            Ok(Attempt::Held { .. }) => panic!("nobody has it"),
            Err(error) => assert!(error.is_unavailable(), "{error}"),
        }
    }
}
