//! A waker may run what it likes, when it is woken and when it is dropped: some executors poll or
//! drop a task there. No lock of the library may be held then.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use lock_core::backend::Clock;
use lock_core::memory::MemoryBackend;
use lock_core::{Acquire, LockProvider, Lost};
use lock_tests::scripted_backend::{Play, ScriptedBackend};

use crate::support::{is_free, name, runtime, take};

/// Runs a body in a thread and a runtime of its own; fails when it does not come back.
fn comes_back<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    let (sender, back) = mpsc::channel();
    thread::spawn(move || {
        runtime().block_on(body());
        sender.send(()).unwrap();
    });
    back.recv_timeout(Duration::from_secs(10))
        .expect("it waits for a lock that it holds itself");
}

/// A clock that the test moves, in seconds.
#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// Looks at the store when it is woken.
struct Curious(MemoryBackend);

impl Wake for Curious {
    fn wake(self: Arc<Self>) {
        assert!(self.0.held() <= 1);
    }
}

#[test]
fn a_waker_may_use_the_store_when_a_lease_ends() {
    comes_back(|| async {
        let clock = Arc::new(Hand::default());
        let store = MemoryBackend::with_lease(Duration::from_secs(3), clock.clone());
        let (here, there) = (
            LockProvider::new(store.clone()),
            LockProvider::new(store.clone()),
        );
        let guard = take(&here).await;
        let mut lost = guard.lost();
        let waker = Waker::from(Arc::new(Curious(store)));
        assert!(
            Pin::new(&mut lost)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        clock.0.store(10, Ordering::SeqCst);
        // The end of the lease is found by who wants the lock.
        assert!(is_free(&there).await);
        assert!(!guard.is_valid());
    });
}

/// Asks again when it is woken, as an executor does that polls there.
struct Asks(Mutex<Option<Acquire>>, Mutex<LockProvider>);

impl Wake for Asks {
    fn wake(self: Arc<Self>) {
        let Some(mut asking) = self.0.lock().unwrap().take() else {
            return;
        };
        let waker = Waker::from(Arc::clone(&self));
        let context = &mut Context::from_waker(&waker);
        if Pin::new(&mut asking).poll(context).is_pending() {
            *self.0.lock().unwrap() = Some(asking);
            return;
        }
        let lock = self.1.lock().unwrap().lock(name()).unwrap();
        let mut again = lock.acquire_owned(Duration::ZERO);
        let again = Pin::new(&mut again).poll(context);
        assert!(matches!(again, Poll::Ready(Err(error)) if error.is_contended()));
    }
}

#[test]
fn a_waker_may_ask_again_when_it_is_refused() {
    comes_back(|| async {
        let scripted = ScriptedBackend::new();
        scripted.tries([Play::Late(Duration::from_millis(20))]);
        let client = scripted.client();
        let mut owner = client
            .lock(name())
            .unwrap()
            .acquire_owned(Duration::from_secs(5));
        let context = &mut Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut owner).poll(context).is_pending());
        // It has no time, and waits for the answer that is on its way.
        let asking = client.lock(name()).unwrap().acquire_owned(Duration::ZERO);
        let asks = Arc::new(Asks(Mutex::new(None), Mutex::new(client)));
        let waker = Waker::from(Arc::clone(&asks));
        let mut asking = asking;
        assert!(
            Pin::new(&mut asking)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        *asks.0.lock().unwrap() = Some(asking);
        drop(owner.await.unwrap());
        assert!(asks.0.lock().unwrap().is_none(), "it was woken");
    });
}

/// What the last waker of a task drops along with it.
struct Task(#[allow(dead_code, reason = "only dropped")] Mutex<Option<Lost>>);

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_may_drop_another_listener_when_it_is_replaced() {
    comes_back(|| async {
        let client = LockProvider::new(MemoryBackend::new());
        let guard = client
            .lock(name())
            .unwrap()
            .acquire(Duration::ZERO)
            .await
            .unwrap();
        let (mut first, mut second) = (guard.lost(), guard.lost());
        let mut noop = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut second).poll(&mut noop).is_pending());
        let waker = Waker::from(Arc::new(Task(Mutex::new(Some(second)))));
        assert!(
            Pin::new(&mut first)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        drop(waker);
        // The listener moves to another task; the waker of the old one was its last trace.
        assert!(Pin::new(&mut first).poll(&mut noop).is_pending());
        drop(first);
        guard.release().await.unwrap();
    });
}

#[test]
fn a_waker_may_leave_the_line_when_it_is_replaced() {
    comes_back(|| async {
        let client = LockProvider::new(MemoryBackend::new());
        let guard = take(&client).await;
        let lock = client.lock(name()).unwrap();
        let (mut first, mut second) = (
            lock.acquire_owned(Duration::from_secs(60)),
            lock.acquire_owned(Duration::from_secs(60)),
        );
        struct InLine(#[allow(dead_code, reason = "only dropped")] Mutex<Option<Acquire>>);
        impl Wake for InLine {
            fn wake(self: Arc<Self>) {}
        }
        let mut noop = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut second).poll(&mut noop).is_pending());
        let waker = Waker::from(Arc::new(InLine(Mutex::new(Some(second)))));
        assert!(
            Pin::new(&mut first)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        drop(waker);
        assert!(Pin::new(&mut first).poll(&mut noop).is_pending());
        guard.release().await.unwrap();
        assert!(first.await.is_ok());
    });
}
