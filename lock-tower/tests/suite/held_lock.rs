//! What handlers do with their lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request};
use axum::response::{IntoResponse, Response};
use axum::routing;
use http::{Method, StatusCode};
use lock_core::backend::TokioClock;
use lock_core::memory::MemoryBackend;
use lock_core::{LockError, LockErrorKind, LockProvider, LossReason};
use lock_tower::{HeldLock, LockLayer, LockRejection, RouteLocks};
use tokio::sync::{mpsc, oneshot};
use tower_http::catch_panic::CatchPanicLayer;

use crate::support::{Locks, Log, NAME, PROCESS, TEMPLATE, URI, Work, post, send, text};

#[tokio::test]
async fn it_is_an_extractor_and_an_extension() {
    async fn handler(
        held: HeldLock,
        Extension(same): Extension<HeldLock>,
        request: Request,
    ) -> String {
        assert!(request.extensions().get::<HeldLock>().unwrap().is_valid());
        assert!(!format!("{held:?}").contains("order:process:7"));
        assert_eq!(held.name(), same.name());
        held.name().to_string()
    }
    let locks = Locks::new();
    let router = Router::new().route(
        PROCESS,
        routing::post(handler).route_layer(locks.layer(TEMPLATE)),
    );
    assert_eq!(text(post(&router, URI).await).await, NAME);
}

#[tokio::test]
async fn the_lock_of_an_outer_layer_is_not_that_of_an_inner_one() {
    async fn handler(held: HeldLock) -> String {
        held.name().to_string()
    }
    async fn optional(held: Option<HeldLock>) -> String {
        held.map_or("unlocked".to_owned(), |held| held.name().to_string())
    }
    let locks = Locks::new();
    let tenant = || {
        locks
            .layer("tenant:work:<tenant>")
            .param("tenant", |_| "acme")
    };
    // No entry is for it: a misspelt path.
    let table = RouteLocks::new(locks.provider.clone())
        .route(
            Method::POST,
            "/order/{id}/process",
            TEMPLATE,
            Duration::ZERO,
        )
        .unwrap();
    let router = Router::new()
        .route(PROCESS, routing::post(handler))
        .route("/optional", routing::post(optional))
        .route_layer(table)
        .route_layer(tenant());
    let (log, _capturing) = Log::capture();
    let response = post(&router, URI).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(log.lines("extracts `HeldLock`").len(), 1);
    assert_eq!(text(post(&router, "/optional").await).await, "unlocked");

    // Nor is this method.
    let inner = locks.layer(TEMPLATE).method(Method::POST);
    let router = Router::new()
        .route(PROCESS, routing::any(handler).layer(inner))
        .route_layer(tenant());
    assert_eq!(text(post(&router, URI).await).await, NAME);
    let response = send(&router, Method::PUT, URI).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);

    let router = Router::new()
        .route(PROCESS, routing::post(handler))
        .route_layer(tenant());
    assert_eq!(text(post(&router, URI).await).await, "tenant:work:acme");
}

#[tokio::test]
async fn tokens_grow_and_stay_the_same_for_one_request() {
    async fn handler(held: HeldLock) -> Result<String, LockRejection> {
        let token = held.fencing_token().await?;
        assert_eq!(held.clone().fencing_token().await?, token);
        Ok(token.to_string())
    }
    let locks = Locks::new();
    let router = Router::new().route(
        PROCESS,
        routing::post(handler).route_layer(locks.layer(TEMPLATE)),
    );
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(text(post(&router, URI).await).await.parse::<u64>().unwrap());
    }
    assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
}

#[tokio::test]
async fn a_loss_reaches_what_the_handler_has_spawned() {
    let locks = Locks::new();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let handler = async move |held: HeldLock| {
        let sender = sender.clone();
        tokio::spawn(async move { sender.send(held.lost().await).unwrap() });
        std::future::pending::<()>().await;
    };
    let router = Router::new().route(
        PROCESS,
        routing::post(handler).route_layer(locks.layer(TEMPLATE)),
    );
    let (response, ()) = tokio::join!(post(&router, URI), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        locks.revoke(NAME);
    });
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(receiver.recv().await, Some(LossReason::Revoked));
}

#[tokio::test]
async fn a_view_outlives_the_lock_and_says_that_it_is_over() {
    let locks = Locks::new();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let handler = async move |held: HeldLock| sender.send(held).unwrap();
    let router = Router::new().route(
        PROCESS,
        routing::post(handler).route_layer(locks.layer(TEMPLATE)),
    );
    post(&router, URI).await;
    let held = receiver.recv().await.unwrap();
    assert!(locks.is_free(NAME).await, "a view keeps no lock");
    assert!(!held.is_valid());
    assert!(held.fencing_token().await.unwrap_err().is_lost());
    assert!(
        tokio::time::timeout(Duration::from_millis(20), held.lost())
            .await
            .is_err()
    );
    assert!(held.into_guard().unwrap_err().is_lost());
}

#[tokio::test]
async fn a_view_keeps_no_lock_of_a_request_that_was_dropped() {
    let locks = Locks::new();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let handler = async move |held: HeldLock| {
        sender.send(held).unwrap();
        std::future::pending::<()>().await;
    };
    let route = routing::get(handler).route_layer(locks.layer(TEMPLATE));
    let router = Router::new().route(PROCESS, route);
    let sending = tokio::time::timeout(Duration::from_millis(20), send(&router, Method::GET, URI));
    assert!(sending.await.is_err());
    let view = receiver.recv().await.unwrap();
    assert!(locks.is_free(NAME).await);
    assert!(!view.is_valid());
}

#[tokio::test]
async fn work_that_is_accepted_takes_the_guard_along() {
    let locks = Locks::new();
    let work = Work::new();
    let spawned = work.clone();
    let handler = async move |held: HeldLock| -> Result<StatusCode, LockRejection> {
        let guard = held.into_guard()?;
        let work = spawned.clone();
        tokio::spawn(async move { guard.protect(work.run()).await });
        Ok(StatusCode::ACCEPTED)
    };
    let router = Router::new().route(
        PROCESS,
        routing::post(handler).route_layer(locks.layer(TEMPLATE)),
    );

    assert_eq!(post(&router, URI).await.status(), StatusCode::ACCEPTED);
    work.has_begun(1).await;
    assert!(!locks.is_free(NAME).await);
    assert_eq!(post(&router, URI).await.status(), StatusCode::CONFLICT);
    work.let_end();
    locks.all_free().await;
    assert_eq!(work.ended(), 1);
}

#[tokio::test]
async fn the_guard_is_given_once() {
    async fn handler(held: HeldLock) -> String {
        let guard = held.clone().into_guard().unwrap();
        let error: LockError = held.clone().into_guard().unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Misconfigured);
        guard.release().await.unwrap();
        // Released by the handler, which is no loss: the handler goes on.
        assert!(!held.is_valid());
        tokio::time::sleep(Duration::from_millis(20)).await;
        "went on".to_owned()
    }
    let locks = Locks::new();
    let router = Router::new().route(
        PROCESS,
        routing::post(handler).route_layer(locks.layer(TEMPLATE)),
    );
    assert_eq!(text(post(&router, URI).await).await, "went on");
}

#[tokio::test]
async fn a_loss_stops_the_handler_that_has_taken_the_guard_as_well() {
    let locks = Locks::new();
    let work = Work::new();
    let inner = work.clone();
    let handler = async move |held: HeldLock| {
        let _guard = held.into_guard().unwrap();
        inner.run().await;
    };
    let router = Router::new().route(
        PROCESS,
        routing::post(handler).route_layer(locks.layer(TEMPLATE)),
    );
    let (response, ()) = tokio::join!(post(&router, URI), async {
        work.has_begun(1).await;
        locks.revoke(NAME);
    });
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!((work.dropped(), work.ended()), (1, 0));
}

#[tokio::test]
async fn a_lost_guard_is_not_given() {
    let locks = Locks::new();
    let store = locks.store.clone();
    let handler = async move |held: HeldLock| {
        store.revoke(held.name());
        assert!(held.into_guard().unwrap_err().is_lost());
    };
    let router = Router::new().route(
        PROCESS,
        routing::post(handler).route_layer(locks.layer(TEMPLATE)),
    );
    // Its last poll was under a lock that was lost: what it did is not known to be locked.
    assert_eq!(
        post(&router, URI).await.status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );
    locks.all_free().await;
}

#[tokio::test]
async fn an_upgrade_without_the_guard_is_logged() {
    let (log, _capturing) = Log::capture();
    let locks = Locks::new();
    let handler = async || StatusCode::SWITCHING_PROTOCOLS;
    let router = Router::new().route(PROCESS, routing::any(handler).layer(locks.layer(TEMPLATE)));
    let response = send(&router, Method::GET, URI).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    // A lock has a line now and then, and not one for each upgrade.
    send(&router, Method::GET, URI).await;
    assert_eq!(log.lines("upgraded").len(), 1);
    assert!(locks.is_free(NAME).await);

    let accepted = Router::new().route(
        PROCESS,
        routing::any(async || StatusCode::OK).layer(locks.layer("order:connect:<id>")),
    );
    send(&accepted, Method::GET, URI).await;
    assert_eq!(log.lines("upgraded").len(), 1);
    send(&accepted, Method::CONNECT, URI).await;
    assert_eq!(log.lines("upgraded").len(), 2);
}

#[tokio::test]
async fn an_upgrade_with_the_guard_holds_it() {
    let (log, _capturing) = Log::capture();
    let locks = Locks::new();
    let (end, ended) = oneshot::channel::<()>();
    let ended = Arc::new(tokio::sync::Mutex::new(Some(ended)));
    let handler = async move |held: HeldLock| {
        let guard = held.into_guard().unwrap();
        let ended = ended.lock().await.take().unwrap();
        tokio::spawn(async move {
            ended.await.unwrap();
            guard.release().await.unwrap();
        });
        StatusCode::SWITCHING_PROTOCOLS
    };
    let router = Router::new().route(PROCESS, routing::any(handler).layer(locks.layer(TEMPLATE)));
    send(&router, Method::GET, URI).await;
    assert!(!locks.is_free(NAME).await);
    end.send(()).unwrap();
    locks.all_free().await;
    assert_eq!(log.lines("upgraded").len(), 0);
}

#[tokio::test]
async fn a_panic_releases_at_once() {
    async fn handler() -> Response {
        tokio::task::yield_now().await;
        panic!("on purpose")
    }
    let (log, _capturing) = Log::capture();
    let locks = Locks::new();
    let router = Router::new()
        .route(PROCESS, routing::any(handler).layer(locks.layer(TEMPLATE)))
        .layer(CatchPanicLayer::new());
    for method in [Method::POST, Method::GET] {
        let response = send(&router, method, URI).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(locks.is_free(NAME).await);
    }
    // Its client has not left: there is nothing to go on with.
    tokio::task::yield_now().await;
    assert_eq!(log.lines("client"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn max_hold_stops_a_handler_that_hangs() {
    let locks = Locks::new();
    let work = Work::new();
    let layer = locks.layer(TEMPLATE).max_hold(Duration::from_secs(30));
    let router = Router::new().route(PROCESS, routing::any(work.handler()).layer(layer));
    for (times, method) in [Method::GET, Method::POST].into_iter().enumerate() {
        let started = tokio::time::Instant::now();
        let response = send(&router, method, URI).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(crate::support::json(response).await["reason"], "lock-lost");
        assert_eq!(started.elapsed().as_secs(), 30);
        assert_eq!((work.dropped(), work.ended()), (times + 1, 0));
        assert!(locks.is_free(NAME).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_stopped_is_gone_before_its_lock_is_free() {
    /// Looks, when it is dropped, whether the lock is free for others.
    struct Last(MemoryBackend, Arc<AtomicBool>);
    impl Drop for Last {
        fn drop(&mut self) {
            self.1.store(self.0.held() == 1, Ordering::SeqCst);
        }
    }
    let locks = Locks::new();
    let was_held = Arc::new(AtomicBool::new(false));
    let (store, seen) = (locks.store.clone(), Arc::clone(&was_held));
    let handler = async move || {
        let _last = Last(store.clone(), seen);
        std::future::pending::<()>().await;
    };
    let layer = locks.layer(TEMPLATE).max_hold(Duration::from_secs(30));
    let router = Router::new().route(PROCESS, routing::any(handler).layer(layer));
    for method in [Method::GET, Method::POST] {
        was_held.store(false, Ordering::SeqCst);
        let response = send(&router, method, URI).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(
            was_held.load(Ordering::SeqCst),
            "released under the handler"
        );
        assert!(locks.is_free(NAME).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ends_stops_the_handler() {
    let lease = Duration::from_secs(20);
    let store = MemoryBackend::with_lease(lease, Arc::new(TokioClock::new()));
    let layer = LockLayer::new(LockProvider::new(store), TEMPLATE).unwrap();
    let work = Work::new();
    let router = Router::new().route(PROCESS, routing::post(work.handler()).route_layer(layer));
    let started = tokio::time::Instant::now();
    let response = post(&router, URI).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(started.elapsed().as_secs(), 20);
    assert_eq!((work.dropped(), work.ended()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_stops_what_does_not_end_in_time() {
    let locks = Locks::new();
    let work = Work::new();
    let router = Router::new().route(
        PROCESS,
        routing::post(work.handler()).route_layer(locks.layer(TEMPLATE)),
    );
    let (response, ()) = tokio::join!(post(&router, URI), async {
        work.has_begun(1).await;
        locks.provider.shutdown(Duration::from_secs(3)).await;
    });
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!((work.dropped(), locks.store.held()), (1, 0));
}

#[tokio::test]
async fn what_the_handler_owns_goes_before_its_lock() {
    /// Looks, when it is dropped, whether the lock is still held.
    struct Last(HeldLock, Arc<AtomicBool>);
    impl Drop for Last {
        fn drop(&mut self) {
            self.1.store(self.0.is_valid(), Ordering::SeqCst);
        }
    }
    let locks = Locks::new();
    let was_held = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&was_held);
    let handler = async move |held: HeldLock| -> Response {
        let _last = Last(held, Arc::clone(&seen));
        std::future::pending::<()>().await;
        Body::empty().into_response()
    };
    let layer = locks.layer(TEMPLATE).drop_on_disconnect();
    let router = Router::new().route(PROCESS, routing::any(handler).layer(layer));
    for method in [Method::GET, Method::POST] {
        was_held.store(false, Ordering::SeqCst);
        let sending = tokio::time::timeout(Duration::from_millis(20), send(&router, method, URI));
        assert!(sending.await.is_err());
        assert!(
            was_held.load(Ordering::SeqCst),
            "released under the handler"
        );
        assert!(locks.is_free(NAME).await);
    }
}
