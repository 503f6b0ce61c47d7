//! What is ready without waiting takes part in the cooperation of the runtime's tasks: a loop of it lets
//! the other tasks of its thread run.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use lock_core::memory::MemoryBackend;
use lock_core::{LockError, LockPolicy, LockProvider, LossReason, distributed_lock};
use lock_tower::{HeldLock, LockLayer};
use tower::ServiceExt;

use crate::support::{name, s, take};

/// More often than a task of tokio may do something before it has to let others run: 128 times.
const ROUNDS: usize = 1_000;

/// Does it again and again; how often another task of the same thread ran meanwhile.
async fn others_ran(again: impl AsyncFn()) -> usize {
    others_ran_beside(async {
        for _ in 0..ROUNDS {
            again().await;
        }
    })
    .await
}

async fn others_ran_beside(work: impl Future) -> usize {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    work.await;
    other.abort();
    turns.load(Ordering::Relaxed)
}

macro_rules! lets_others_run {
    ($($again:expr),+ $(,)?) => {
        $(
            let turns = others_ran($again).await;
            assert!(turns >= ROUNDS / 200, "{turns} turns for others beside: {}", stringify!($again));
        )+
    };
}

fn client() -> LockProvider {
    LockProvider::new(MemoryBackend::new())
}

#[tokio::test]
async fn acquires_and_releases_let_other_tasks_run() {
    let client = client();
    let lock = client.lock(name()).unwrap();
    lets_others_run!(
        async || drop(lock.acquire(s(1)).await.unwrap()),
        async || drop(lock.try_acquire(s(0)).await.unwrap()),
        async || take(&client).await.release().await.unwrap(),
        async || lock.run(s(1), ready(())).await.unwrap(),
        async || drop(client.acquire(name(), s(1)).await.unwrap()),
        async || drop(client.try_acquire(name(), s(0)).await.unwrap()),
        async || client.run(name(), s(1), ready(())).await.unwrap(),
        async || drop(client.acquire_all([name()], s(1)).await.unwrap()),
        async || drop(client.claim([name()], 1).await.unwrap()),
        async || lock
            .try_run(s(1), ready(Ok::<_, LockError>(())))
            .await
            .unwrap(),
        async || client
            .try_run(name(), s(1), ready(Ok::<_, LockError>(())))
            .await
            .unwrap(),
        async || drop(
            client
                .acquire_all([name()], s(1))
                .await
                .unwrap()
                .release()
                .await
        ),
        async || drop(lock.acquire_owned(s(1)).await.unwrap()),
    );
}

#[tokio::test]
async fn looks_at_the_store_let_other_tasks_run() {
    let client = client();
    lets_others_run!(
        async || assert!(client.health().await.is_up()),
        async || assert!(client.holder(name()).await.unwrap().is_none()),
        async || assert!(client.holder("no name").await.is_err()),
    );
}

#[tokio::test]
async fn refusals_let_other_tasks_run() {
    let client = client();
    let guard = take(&client).await;
    let lock = client.lock(name()).unwrap();
    lets_others_run!(
        async || assert!(lock.try_acquire(s(0)).await.unwrap().is_none()),
        async || assert!(lock.run(s(0), pending::<()>()).await.is_err()),
        async || assert!(client.acquire_all([name()], s(0)).await.is_err()),
        async || assert!(client.acquire_all([""; 0], s(0)).await.is_err()),
        async || assert!(client.acquire_all(["no name"], s(0)).await.is_err()),
        async || assert!(client.claim([name()], 1).await.unwrap().is_empty()),
        async || assert!(client.claim(["no name"], 1).await.is_err()),
        async || assert!(client.acquire("no name", s(0)).await.is_err()),
        async || assert!(client.run("no name", s(0), ready(())).await.is_err()),
    );
    drop(guard);
    client.shutdown(Duration::ZERO).await;
    lets_others_run!(
        async || assert!(lock.try_acquire(s(1)).await.is_err()),
        async || assert!(client.claim([name()], 1).await.is_err()),
    );
}

#[tokio::test]
async fn what_a_guard_answers_lets_other_tasks_run() {
    let store = MemoryBackend::new();
    let client = LockProvider::new(store.clone());
    let guard = take(&client).await;
    let guards = client.acquire_all(["a:b:1", "a:b:2"], s(0)).await.unwrap();
    lets_others_run!(
        async || guard.protect(ready(())).await.unwrap(),
        async || guards.protect(ready(())).await.unwrap(),
        async || assert!(guard.fencing_token().await.is_ok()),
        async || assert!(guards[0].fencing_token().await.is_ok()),
        async || guard
            .try_protect(ready(Ok::<_, LockError>(())))
            .await
            .unwrap(),
        async || guards
            .try_protect(ready(Ok::<_, LockError>(())))
            .await
            .unwrap(),
    );
    store.revoke(guard.name());
    store.revoke(guards[1].name());
    lets_others_run!(
        async || assert!(guard.protect(ready(())).await.is_err()),
        async || assert_eq!(guard.lost().await, LossReason::Revoked),
        async || assert_eq!(guards.lost().await, LossReason::Revoked),
        async || assert!(guard.fencing_token().await.is_err()),
    );
}

#[tokio::test]
async fn a_leader_lets_other_tasks_run() {
    let client = client();
    let mut leader = client.leader("job:lead").unwrap();
    assert!(leader.changed().await.unwrap());
    let other = client.leader("job:lead").unwrap();
    lets_others_run!(
        async || leader.while_leading(ready(())).await.unwrap(),
        async || assert!(leader.fencing_token().await.is_ok()),
        async || assert!(other.fencing_token().await.is_err()),
        async || assert!(leader.current().await.is_ok()),
    );
    client.shutdown(Duration::ZERO).await;
    lets_others_run!(async || assert!(other.clone().changed().await.is_err()));
}

#[tokio::test]
async fn rounds_that_never_wait_let_other_tasks_run() {
    let client = client();
    let rounds = AtomicUsize::new(0);
    let turns = others_ran_beside(client.lead("job:lead", async |_| {
        match rounds.fetch_add(1, Ordering::Relaxed) {
            ROUNDS => Err(client.lock("").unwrap_err()),
            _ => Ok(()),
        }
    }));
    assert!(turns.await >= ROUNDS / 200);
}

#[distributed_lock("order:process:<id>", wait = "0s")]
async fn process(locks: &LockProvider, id: u64) -> Result<u64, LockError> {
    let _ = locks;
    Ok(id)
}

#[distributed_lock("job:sweep", skip)]
async fn sweep(locks: &LockProvider) {
    let _ = locks;
}

#[distributed_lock("order:sweep:<id>", skip)]
async fn invalid(locks: &LockProvider, id: &str) {
    let _ = (locks, id);
}

#[tokio::test]
async fn a_locked_function_lets_other_tasks_run() {
    let client = client();
    lets_others_run!(
        async || assert!(process(&client, 7).await.is_ok()),
        async || sweep(&client).await,
        // It has no lock to ask for: its name is empty.
        async || invalid(&client, "").await,
    );
    let _guards = [take(&client).await, job(&client).await];
    lets_others_run!(
        async || assert!(process(&client, 42).await.is_err()),
        async || sweep(&client).await,
    );
}

async fn job(client: &LockProvider) -> lock_core::LockGuard {
    let lock = client.lock("job:sweep").unwrap();
    lock.acquire(LockPolicy::background_job()).await.unwrap()
}

#[tokio::test]
async fn a_locked_route_lets_other_tasks_run() {
    let layer = LockLayer::new(client(), "order:process:<id>").unwrap();
    let handler = async |held: HeldLock| held.fencing_token().await.unwrap().to_string();
    let router: Router = Router::new().route("/{id}", post(handler).route_layer(layer));
    lets_others_run!(async || {
        let request = Request::post("/7").body(Body::empty()).unwrap();
        let answer: Result<_, Infallible> = router.clone().oneshot(request).await;
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    });
}
